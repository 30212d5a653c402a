"""What `horinsight ie --compare OTHER` names: a model, a checkpoint, a block of the same model, or a result on disk."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from horinsight.cli.picture_options import Pictures
from horinsight.cli.progress import block_progress, stream_progress
from horinsight.cli.weights_options import Weights, model_with_weights
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_comparison import SpectrumComparison, compare_spectra
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.interaction.spectrum_rows import spectrum_of_row
from horinsight.results import Provenance, ResultSet, load_result

if TYPE_CHECKING:
    from torch import nn

    from horinsight.data.picture_stream import PictureStream
    from horinsight.mixers.blocks import MixingBlock

RESULT_SUFFIXES = (".json", ".npz")
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True, eq=False)
class Asked:
    """What is compared with something else.

    Attributes:
        model: the numerator's.
        model_name: its name.
        stream: what it is shown.
        default: names of the pictures that are taken where none are asked for.
        blocks: of the model.
        options: of the measurement.
    """

    model: "nn.Module"
    model_name: str
    stream: "PictureStream"
    default: Sequence[str]
    blocks: Sequence["MixingBlock"]
    options: SpectrumOptions


def comparisons_with(
    asked: Asked, other: str, *, weights: Weights, pictures: Pictures
) -> dict["MixingBlock", SpectrumComparison]:
    """Blocks over those of what `--compare` names, in the order of the network; progress on standard error.

    Raises:
        ValueError: no such model, checkpoint, block or result, or nothing that pairs.
        OSError: a result that cannot be read.
    """
    by_name = {block.name: block for block in asked.blocks}
    with ExitStack() as stack:
        stack.enter_context(stream_progress("comparisons", asked.stream))
        show: Callable[[MixingBlock], None] = _nothing
        if asked.stream.one_batch() is not None:  # of more, all blocks are finished together
            show = stack.enter_context(block_progress("comparisons", len(by_name)))
        if Path(other).suffix.lower() in RESULT_SUFFIXES:
            found = _with_result(asked, other, show)
        else:
            found = _measured(asked, other, weights, pictures, show)
    return {by_name[comparison.first]: comparison for comparison in found}


def _nothing(_: "MixingBlock") -> None:
    """Of what batches tell."""


def _with_result(asked: Asked, other: str, show: Callable[["MixingBlock"], None]) -> list[SpectrumComparison]:
    """Over those of the same names in a file, or in its order where no name is the same."""
    from horinsight.interaction.model_spectra import model_interaction_spectra

    kept, names = kept_spectra(Path(other)), [block.name for block in asked.blocks]
    pairs = {name: name for name in names if name in kept}
    if not pairs and len(names) == len(kept):
        pairs = dict(zip(names, kept, strict=True))
    if not pairs:
        raise ValueError(
            f"--compare: {other} has the blocks {', '.join(kept)}, none of {', '.join(names)}: choose as many with "
            "--blocks."
        )
    indices = [block.index for block in asked.blocks if block.name in pairs]
    spectra = model_interaction_spectra(
        asked.model,
        asked.stream,
        blocks=indices,
        options=asked.options,
        on_block=lambda block, _: show(block),
        model_name=asked.model_name,
    )
    return [compare_spectra(spectra[name], kept[partner], names=(name, partner)) for name, partner in pairs.items()]


def _measured(
    asked: Asked, other: str, weights: Weights, pictures: Pictures, show: Callable[["MixingBlock"], None]
) -> list[SpectrumComparison]:
    """Over those of another model or checkpoint, or over one other block, along common draws."""
    from horinsight.interaction.model_comparison import model_spectrum_comparisons
    from horinsight.mixers.blocks import named_blocks

    indices = [block.index for block in asked.blocks]
    second, second_stream, partners = asked.model, asked.stream, indices
    if other.isdecimal():
        partners = [int(other)] * len(indices)
    else:
        second = _second_model(asked.model_name, other, weights)
        second_stream = pictures.stream(second, asked.default, again=True)
        there = {block.index for block in named_blocks(second, image_size=second_stream.image_size)}
        indices = partners = [index for index in indices if index in there]
        if not indices:
            raise ValueError(f"--compare: {other} has {len(there)} blocks, none of those asked for.")
    found = model_spectrum_comparisons(
        (asked.model, second),
        (asked.stream, second_stream),
        blocks=(indices, partners),
        options=asked.options,
        on_block=lambda block, _: show(block),
    )
    return list(found.values())


def kept_spectra(path: Path) -> dict[str, InteractionSpectrum]:
    """Spectra by name from a report of `ie` in JSON, or from a result that was saved from Python.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"--compare: there is no result {path}.")
    content = _json_of(path) if path.suffix.lower() == ".json" else {}
    if isinstance(content, dict) and "blocks" in content and "result" not in content:
        try:
            weights = content["weights"]
            origin = Provenance(
                content["model"],
                weights["source"],
                weights["trained"],
                weights["sha256"],
                tuple(content["images"]),
                content["seed"],
                content["versions"],
            )
            return {row["name"]: spectrum_of_row(row, content["seed"], origin) for row in content["blocks"]}
        except (KeyError, TypeError) as error:
            raise ValueError(f"--compare: {path} is not a report of `horinsight ie` in JSON.") from error
    try:
        found = dict(load_result(ResultSet, path))
    except ValueError:
        found = {path.stem: load_result(InteractionSpectrum, path)}
    if not all(isinstance(spectrum, InteractionSpectrum) for spectrum in found.values()):
        raise ValueError(f"--compare: {path} holds no interaction spectra.")
    return found


def _json_of(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--compare: {path} is not JSON: {error}.") from error


def _second_model(model_name: str, other: str, weights: Weights) -> "nn.Module":
    """A checkpoint of the same model, or another model as it comes."""
    if Path(other).suffix.lower() in CHECKPOINT_SUFFIXES or Path(other).is_file():
        return model_with_weights(model_name, replace(weights, checkpoint=Path(other)))
    from horinsight.models.registry import check_model_name

    check_model_name(other)
    plain = replace(
        weights,
        checkpoint=None,
        ema=False,
        partial=False,
        resize_filters=False,
        rename_in_order=False,
        num_classes=None,
    )
    return model_with_weights(other, plain)
