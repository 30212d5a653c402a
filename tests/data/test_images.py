import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from horinsight import load_image, sample_images
from horinsight.data.images import image_label, sample_image


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 12, columns * 8, 255 - columns * 8], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "ppm", "jpg", "webp"])
def test_formats(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(gradient()).save(path, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (30, 20))
    lossy = suffix in ("jpg", "webp", "gif")
    np.testing.assert_allclose(np.asarray(image).astype(int), gradient(), atol=40 if lossy else 0)


def test_the_suffix_does_not_matter(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "picture.jpg")
    assert load_image(tmp_path / "picture.jpg").size == (30, 20)


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.fromarray(gradient()).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "turned.png")), np.rot90(gradient(), -1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path, mode):
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:10] = 255
    black = Image.fromarray(np.dstack([np.zeros((20, 30, 3), np.uint8), alpha]), "RGBA")
    if mode == "P":
        picture = Image.new("P", (30, 20))
        picture.putpalette([0, 0, 0, 255, 0, 0])
        picture.putdata([0] * 300 + [1] * 300)
        picture.save(tmp_path / "clear.png", transparency=1)
    else:
        black.convert(mode).save(tmp_path / "clear.png")
    pixels = np.asarray(load_image(tmp_path / "clear.png"))
    assert (pixels[:10] == 0).all()
    assert (pixels[10:] == 255).all()


def test_half_transparency_is_a_mixture_with_white(tmp_path):
    Image.new("RGBA", (9, 9), (0, 0, 0, 128)).save(tmp_path / "half.png")
    assert abs(int(np.asarray(load_image(tmp_path / "half.png"))[0, 0, 0]) - 127) <= 1


def test_16_bits_are_scaled_to_8(tmp_path):
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
        pixels = np.asarray(load_image(tmp_path / f"deep.{suffix}"))
        np.testing.assert_allclose(pixels[..., 0], values / 257, atol=0.51)


def test_floating_point(tmp_path):
    Image.fromarray(np.linspace(0, 1, 600).reshape(20, 30).astype(np.float32)).save(tmp_path / "unit.tiff")
    assert np.asarray(load_image(tmp_path / "unit.tiff")).max() == 255
    Image.fromarray(np.full((20, 30), 300.0, np.float32)).save(tmp_path / "large.tiff")
    with pytest.raises(ValueError, match="from 0 to 1"):
        load_image(tmp_path / "large.tiff")


def test_cmyk_and_grey(tmp_path):
    Image.fromarray(gradient()).convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(gradient()).convert("L").save(tmp_path / "grey.png")
    assert load_image(tmp_path / "print.jpg").mode == "RGB"
    assert load_image(tmp_path / "grey.png").mode == "RGB"


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(10_000_000), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(12000, 11000), (30000, 30000), (60000, 60000)])
def test_decompression_bombs_are_not_decoded(tmp_path, size):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(*size))
    assert bomb.stat().st_size < 11_000
    with pytest.raises(ValueError, match="more than 24 megapixels"):
        load_image(bomb)


def test_text_chunk_bomb(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 80_000_000, zip=True)
    Image.fromarray(gradient()).save(tmp_path / "chatty.png", pnginfo=info)
    with pytest.raises(ValueError, match=r"chatty.png is damaged|Decompressed data too large"):
        load_image(tmp_path / "chatty.png")


def damaged() -> dict[str, bytes]:
    buffer = io.BytesIO()
    Image.fromarray(gradient(200, 300)).save(buffer, "PNG")
    whole = buffer.getvalue()
    return {
        "text.jpg": b"this is not a picture\n",
        "empty.png": b"",
        "header.png": whole[:40],
        "truncated.png": whole[: len(whole) // 2],
        "flipped.png": whole[:60] + bytes(255 - byte for byte in whole[60:90]) + whole[90:],
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
    }


@pytest.mark.parametrize("name", damaged())
def test_what_is_no_picture_is_one_clear_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(damaged()[name])
    with pytest.raises(ValueError, match=name) as error:
        load_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "message"), [((1, 1), "1x1 pixels"), ((7, 90), "at least 8"), ((5000, 9), "50 times")]
)
def test_sizes_that_make_no_sense(tmp_path, size, message):
    Image.new("RGB", size).save(tmp_path / "odd.png")
    with pytest.raises(ValueError, match=message):
        load_image(tmp_path / "odd.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such image"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_image(tmp_path)


def test_samples_are_real_photographs():
    samples = sample_images()
    assert {"astronaut", "chelsea", "coffee", "rocket"} <= set(samples)
    for image in samples.values():
        assert image.mode == "RGB"
        assert np.asarray(image).std() > 20
    with pytest.raises(ValueError, match="expected one of chelsea"):
        sample_image("lena")


def test_labels_tell_pixels_apart():
    image = Image.fromarray(gradient())
    other = gradient()
    other[0, 0, 0] += 1
    assert image_label("a", image) == image_label("a", image.copy())
    assert image_label("a", image) != image_label("a", Image.fromarray(other))
    assert image_label("a", image) != image_label("a", Image.fromarray(gradient().reshape(30, 20, 3)))
