"""What stands in a picture's place where it is taken away: no baseline is neutral, so each says what it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from horinsight.data.preprocess import preprocessing

BaselineName = Literal["black", "mean", "blur", "others"]
# of the longer side: the standard deviation of a blur that nobody stated. On the digits of hornet_digits_iso an eighth
# leaves .80 of the probability, a fifth about a third
BLUR_SHARE = 1 / 5
DRAW = 1  # of the numbers that seed a draw: which draw it is


@dataclass(frozen=True)
class PictureBaseline:
    """What each picture is replaced by.

    Attributes:
        name: what tables call it.
        words: what it is.
        picture: from all pictures, (B, C, H, W) as the model takes them, and the number of one, to its (C, H, W); of
            pictures that come in batches from those of a batch.
        numbered: from a picture, (C, H, W), and its number among all of them, where that is all that it needs to know.
    """

    name: str
    words: str
    picture: Callable[[Tensor, int], Tensor]
    numbered: Callable[[Tensor, int], Tensor] | None = None

    def of_one(self, images: Tensor, place: int, number: int) -> Tensor:
        """What a picture is replaced by, (C, H, W), whether all pictures are there or a batch of them.

        Args:
            images: all pictures, or a batch.
            place: of the picture among these.
            number: of the picture among all.
        """
        return self.picture(images, place) if self.numbered is None else self.numbered(images[place], number)


def black_colour(model: nn.Module, image_size: tuple[int, int]) -> Tensor:
    """(C,), a black pixel as the model's preprocessing gives it."""
    return preprocessing(model, image_size=image_size)(Image.new("RGB", image_size[::-1]))[:, 0, 0]


def colour_baseline(
    colour: Sequence[float] | Tensor, name: str = "colour", words: str | None = None
) -> PictureBaseline:
    """One colour everywhere: black, or the mean of the data.

    Args:
        colour: (C,), in the values that the model takes (after its normalisation).
        name: what tables call it.
        words: what it is.

    Example:
        >>> colour_baseline([0.0, 1.0], "green").picture(torch.zeros(1, 2, 1, 1), 0).tolist()
        [[[0.0]], [[1.0]]]
    """
    values = torch.as_tensor(colour, dtype=torch.float64, device="cpu")
    shown = ", ".join(f"{value:.3g}" for value in values.tolist())

    def picture(images: Tensor, index: int) -> Tensor:
        if len(values) != images.shape[1]:
            raise ValueError(
                f"The baseline {name!r} expects a number for each of {images.shape[1]} channels, got {len(values)}."
            )
        return values.to(images)[:, None, None].expand_as(images[index])

    return PictureBaseline(name, words or f"one colour, ({shown}) after normalisation", picture)


def black_baseline(model: nn.Module, image_size: tuple[int, int]) -> PictureBaseline:
    """A black picture, prepared as the model's configuration says."""
    colour = black_colour(model, image_size)
    shown = ", ".join(f"{value:.3g}" for value in colour.tolist())
    return colour_baseline(colour, "black", f"black, ({shown}) after normalisation")


def mean_baseline(mean: Sequence[float] | Tensor | None = None) -> PictureBaseline:
    """The mean of the data, or of the picture itself.

    Args:
        mean: (C,), of the data, in the values that the model takes; each picture's own channel means when None.
    """
    if mean is not None:
        values = torch.as_tensor(mean, dtype=torch.float64, device="cpu")
        shown = ", ".join(f"{value:.3g}" for value in values.tolist())
        return colour_baseline(values, "mean", f"mean of the data, ({shown}) after normalisation")
    return PictureBaseline(
        "mean",
        "the picture's own channel means",
        lambda images, index: images[index].mean((1, 2), keepdim=True).expand_as(images[index]),
    )


def blur_baseline(deviation: float | None = None) -> PictureBaseline:
    """The picture, blurred by a Gaussian; weights are made to sum to 1 at the border.

    Args:
        deviation: standard deviation in pixels; a fifth of the longer side when None.

    Example:
        >>> flat = torch.ones(1, 1, 4, 5)
        >>> torch.allclose(blur_baseline(2.0).picture(flat, 0), flat[0])
        True
    """
    if deviation is not None and not deviation > 0:
        raise ValueError(f"blur_baseline expects a deviation above 0 pixels, got {deviation}.")
    shown = f"{deviation:g} pixels" if deviation else "a fifth of the longer side"

    def picture(images: Tensor, index: int) -> Tensor:
        x = images[index]
        sigma = deviation or BLUR_SHARE * max(x.shape[1:])
        rows, columns = (_blur_weights(side, sigma).to(x) for side in x.shape[1:])
        return rows @ x @ columns.T

    return PictureBaseline("blur", f"Gaussian blur, standard deviation {shown}", picture)


def _blur_weights(side: int, sigma: float) -> Tensor:
    places = torch.arange(side, dtype=torch.float64, device="cpu")
    weights = torch.exp(-((places[:, None] - places[None]) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def others_baseline(pool: Tensor | None = None, *, seed: int = 0) -> PictureBaseline:
    """Another picture for each, drawn once: what is put in its place is a picture like these, of another thing or not.

    Args:
        pool: (N, C, H, W), what is drawn from; the pictures themselves when None. A picture never stands for itself.
        seed: of the draw, with the picture's number.
    """

    def drawn(others: Tensor, image: Tensor, number: int) -> Tensor:
        if others.shape[1:] != image.shape:
            raise ValueError(
                f"others_baseline expects a pool of shape (N, {', '.join(map(str, image.shape))}), got "
                f"{tuple(others.shape)}."
            )
        for chosen in np.random.default_rng([seed, DRAW, number]).permutation(len(others)):
            if not torch.equal(others[chosen], image):
                return others[chosen]
        raise ValueError(f"others_baseline expects another picture than number {number} to draw from: give it a pool.")

    words = f"another picture, one of {'those given' if pool is None else len(pool)}, drawn with seed {seed}"
    if pool is None:
        return PictureBaseline("others", words, lambda images, index: drawn(images, images[index], index))
    return PictureBaseline(
        "others",
        words,
        lambda images, index: drawn(pool.to(images), images[index], index),
        lambda image, number: drawn(pool.to(image), image, number),
    )


def tensor_baseline(values: Tensor, name: str = "given") -> PictureBaseline:
    """A given picture, (C, H, W), for all, or (B, C, H, W), one for each."""

    def picture(images: Tensor, index: int) -> Tensor:
        if values.shape not in (images.shape, images.shape[1:]):
            expected = f"{tuple(images.shape[1:])} or {tuple(images.shape)}"
            raise ValueError(f"The baseline {name!r} expects a tensor of shape {expected}, got {tuple(values.shape)}.")
        return (values if values.ndim == 3 else values[index]).to(images)

    if values.ndim == 3:
        return PictureBaseline(name, "a given picture", picture)

    def numbered(image: Tensor, number: int) -> Tensor:
        if values.shape[1:] != image.shape or number >= len(values):
            raise ValueError(
                f"The baseline {name!r} expects {tuple(image.shape)} for each picture, number {number} among them, got "
                f"{tuple(values.shape)}."
            )
        return values[number].to(image)

    return PictureBaseline(name, "a given picture for each", picture, numbered)


def named_baseline(name: str, model: nn.Module, images: Tensor, *, seed: int = 0) -> PictureBaseline:
    """A baseline by its name, with what nobody stated at its default.

    Args:
        name: "black", "mean", "blur" or "others".
        model: whose black it is.
        images: (B, C, H, W), all of them: what "others" draws from.
        seed: of its draw.

    Raises:
        ValueError: no such name.

    Example:
        >>> named_baseline("mean", nn.Identity(), torch.zeros(1, 3, 8, 8)).words
        "the picture's own channel means"
    """
    if name == "black":
        return black_baseline(model, (images.shape[2], images.shape[3]))
    if name == "mean":
        return mean_baseline()
    if name == "blur":
        return blur_baseline()
    if name == "others":
        return others_baseline(images, seed=seed)
    raise ValueError(f"Baselines are {', '.join(get_args(BaselineName))}, or a PictureBaseline, got {name!r}.")
