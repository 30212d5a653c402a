"""Images from files that anybody may have made, and the photographs that come with scikit-image."""

import hashlib
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import skimage.data
from PIL import Image, ImageOps, UnidentifiedImageError

from horinsight.data.handwritten_digits import sample_digit

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
MAX_MEGAPIXELS = 24  # a 10 kB file can decode to hundreds of megabytes
MIN_SIDE = 8  # pixels: the smallest real images around here are 8x8 digits
MAX_ASPECT = 50  # long side over short side: resizing the short side would blow up the other
SAMPLES: Mapping[str, str] = {
    "chelsea": "chelsea.png",
    "astronaut": "astronaut.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "camera": "camera.png",
}
DIGITS = tuple(f"digit_{digit}" for digit in range(10))


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """A picture from a file, as 8-bit RGB, the right way up.

    Decodes PNG, JPEG, WebP, BMP, TIFF, GIF (first frame) and PPM; turns by the EXIF orientation, puts transparency on
    white, scales 16 bits to 8. The size is checked before anything is decoded.

    Args:
        path: the file.

    Returns:
        A `PIL.Image.Image` of mode RGB, (H, W) of at least 8 pixels a side; `info["name"]` is the path, from which
        results take what the picture is called.

    Raises:
        ValueError: not such a picture, damaged, more than 24 megapixels, less than 8 pixels a side, or more than 50
            times as long as wide.
        OSError: the file is not there or cannot be read.

    Example:
        >>> load_image(Path(skimage.data.__file__).parent / "coffee.png").size
        (600, 400)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No such image: {path}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name an image file in it.")
    with path.open("rb") as file:
        image = _decoded(file, str(path), FORMATS)
    image.info["name"] = str(path)
    return image


def read_image(content: bytes, name: str = "the picture", *, formats: Sequence[str] = FORMATS) -> Image.Image:
    """`load_image` of a file's content.

    Args:
        content: the bytes.
        name: what errors call it.
        formats: the formats that are accepted, of `FORMATS`.

    Raises:
        ValueError: as `load_image`.

    Example:
        >>> read_image(b"no picture", "notes.png", formats=("PNG",))
        Traceback (most recent call last):
        ValueError: notes.png is not a picture that horinsight reads (PNG).
    """
    return _decoded(io.BytesIO(content), name, formats)


def _decoded(file: IO[bytes], name: str, formats: Sequence[str]) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, softer, size warning and remarks about odd metadata
            with Image.open(file, formats=tuple(formats)) as image:
                _check_size(name, image)
                image.load()
                return _rgb(name, ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture that horinsight reads ({', '.join(formats)}).") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has more than {MAX_MEGAPIXELS} megapixels: make it smaller.") from error
    except (OSError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError) as error:
        # what Pillow's decoders raise on damaged files
        raise ValueError(f"{name} is damaged or cut short: {error}.") from error


def _check_size(path: str, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 10**6:
        raise ValueError(f"{path} has {width}x{height} pixels, more than {MAX_MEGAPIXELS} megapixels: make it smaller.")
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{path} has {width}x{height} pixels, expected at least {MIN_SIDE} a side.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"{path} has {width}x{height} pixels, expected at most {MAX_ASPECT} times as long as wide: crop it."
        )


def _rgb(path: str, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F":
            if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
                raise ValueError(
                    f"{path} is a floating-point picture, expected values from 0 to 1: convert it to 8 bits."
                )
            values = values * 65535
        return Image.fromarray((values.clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The image files of a folder, by name; what lies in folders below is left out.

    Raises:
        ValueError: there is none.
    """
    found = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"No images in the folder {folder}: expected files that end in {', '.join(SUFFIXES)}.")
    return found


def sample_images() -> dict[str, Image.Image]:
    """The real pictures that come along, by name; nothing is downloaded.

    Returns:
        Name → 8-bit RGB picture: the photographs of scikit-image (chelsea, a cat, astronaut, coffee, rocket, motorcycle
        and others), and a held-out handwritten digit of scikit-learn for each class (digit_0 to digit_9).

    Example:
        >>> sorted(sample_images())[:3]
        ['astronaut', 'camera', 'chelsea']
    """
    return {name: sample_image(name) for name in (*SAMPLES, *DIGITS)}


def default_samples(model_name: str) -> list[str]:
    """Names of the samples that a model is shown when none are asked for: what it was made for.

    Example:
        >>> default_samples("hornet_digits_iso"), default_samples("hornet_s_iso")
        (['digit_3', 'digit_5', 'digit_8'], ['chelsea'])
    """
    return ["digit_3", "digit_5", "digit_8"] if "digits" in model_name else ["chelsea"]


def sample_image(name: str) -> Image.Image:
    """One of `sample_images()`.

    Raises:
        ValueError: no such sample.
    """
    if name not in (*SAMPLES, *DIGITS):
        raise ValueError(f"No sample image {name!r}: expected one of {', '.join((*SAMPLES, *DIGITS))}.")
    if name in DIGITS:
        image = sample_digit(DIGITS.index(name))
    else:
        image = load_image(Path(skimage.data.__file__).parent / SAMPLES[name])
    image.info["name"] = name
    return image


def image_labels(images: Sequence[Image.Image], names: Sequence[str] | None = None) -> list[str]:
    """A label for each picture (`image_label`); the same picture twice counts twice, as "again".

    Args:
        images: pictures.
        names: of the pictures; when None those that `load_image` and `sample_image` wrote into `image.info["name"]`,
            else the files that Pillow opened, else "image 1", "image 2", …

    Example:
        >>> [label.split(" (")[0] for label in image_labels([sample_image("coffee"), Image.new("RGB", (8, 8))])]
        ['coffee', 'image 2']
    """
    if names is None:
        names = [
            str(image.info.get("name") or getattr(image, "filename", "") or f"image {index}")
            for index, image in enumerate(images, 1)
        ]
    labels: list[str] = []
    for name, image in zip(names, images, strict=True):
        label = image_label(name, image)
        while label in labels:
            label += " again"
        labels.append(label)
    return labels


def image_label(name: str, image: Image.Image) -> str:
    """A name that pins the pixels down: the given name and the first 12 digits of their SHA-256.

    Example:
        >>> image_label("black", Image.new("RGB", (8, 8)))
        'black (sha256 2b429841718c)'
    """
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
    return f"{name} (sha256 {digest[:12]})"
