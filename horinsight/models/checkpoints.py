"""Reads HorNet weights as they are found in the wild: official, mmpretrain, detectors', safetensors."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from horinsight.description import weighted_part
from horinsight.models.checkpoint_content import content_of_file, state_of
from horinsight.models.global_local_filter import resized_filter
from horinsight.models.misfits import CheckpointError, cut, in_order, misfit
from horinsight.models.origin import WeightsOrigin, set_weights_origin
from horinsight.models.parameter_names import names_in_model
from horinsight.results import Result


@dataclass(frozen=True, eq=False, repr=False)
class LoadedCheckpoint(Result):
    """What `load_checkpoint` did.

    Attributes:
        file: name of the file.
        source: which entry of it was taken ("model", "model_ema", "state_dict", "the file itself", …).
        loaded: keys of the model that now have the file's values.
        renamed: key of the file → key of the model, where they differ.
        resized: GF filters that were resized to the model's.
        missing: keys of the model that kept their values (only with `strict=False`).
        unexpected: keys of the file that were not used (only with `strict=False`).
        misshapen: keys left out because their shapes differ (only with `strict=False`).
    """

    file: str
    source: str
    loaded: tuple[str, ...]
    renamed: Mapping[str, str]
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __str__(self) -> str:
        counts = {
            "renamed": self.renamed,
            "resized": self.resized,
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.misshapen,
        }
        rest = "".join(f", {len(keys)} {what}" for what, keys in counts.items() if keys)
        return f"{self.file} ({self.source}): {len(self.loaded)} tensors loaded{rest}"


def load_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    strict: bool = True,
    resize_filters: bool = False,
    rename_in_order: bool = False,
) -> LoadedCheckpoint:
    """Load weights into a model, whoever wrote them. The model is changed only if everything asked for fits.

    Understood: `.safetensors`, and PyTorch files read with the safe loader only (an `argparse.Namespace` in them is
    fine, anything else that would run code is refused); weights under `model`, `state_dict`, `module`, `state` or at
    the top, averaged ones under `model_ema` or `state_dict_ema`; the prefixes `module.`, `_orig_mod.`, `backbone.`,
    `encoder.`; the names of the published code, of mmpretrain, of a segmenter in mmsegmentation (`mmseg_state_dict`)
    and of a detector in mmdet (`mmdet_state_dict`).

    Args:
        model: the model to fill, also in a wrapper; its dtype and device stay.
        path: the file.
        ema: take the averaged weights instead of the raw ones.
        strict: every key must be there, none more, all of the right shape. Otherwise load what fits.
        resize_filters: resize GF filters learned at another resolution, as the forward pass would
            (bilinear, `align_corners=True`).
        rename_in_order: match the tensors that no name matches to those of the model that lack one, by their order in
            the file. Refused unless as many are left on both sides and each has the shape and the last part of the
            name (`weight`, `bias`, `running_mean`) of its partner. Which of two alike comes first, the file decides.

    Returns:
        What was loaded, renamed, resized, missing.

    Raises:
        CheckpointError: (a ValueError) no weights in the file, or they do not fit; the model is as it was.
        OSError: the file cannot be read.

    Example:
        >>> import torch
        >>> import tempfile, timm
        >>> model = timm.create_model("hornet_test")
        >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        ...     torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, file.name)
        ...     report = load_checkpoint(model, file.name)
        >>> report.source, len(report.renamed) == len(model.state_dict())
        ('model', True)
    """
    path = Path(path)
    source, tensors = state_of(content_of_file(path), ema=ema, file=cut(path.name))
    part = weighted_part(model)
    model, renamed, tensors = _matched(model, part, tensors)
    expected = model.state_dict()
    nameless = [key for key in tensors if key not in renamed]
    named = set(renamed.values())
    partners = in_order(
        {key: tensors[key].shape for key in nameless},
        {key: value.shape for key, value in expected.items() if key not in named},
        sorted_by_name=path.suffix == ".safetensors",
    )
    if rename_in_order:
        if isinstance(partners, str):
            raise CheckpointError(f"{cut(path.name)} cannot be renamed in order: {partners}.")
        renamed |= partners

    fitting: dict[str, Tensor] = {}
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    resized = []
    for key, target in renamed.items():
        value, like = tensors[key], expected[target]
        if resize_filters and _differs_in_filter_size(target, value, like):
            value = resized_filter(value.float(), tuple(like.shape[1:3]))
            resized.append(target)
        if value.shape == like.shape:
            fitting[target] = value
        else:
            misshapen[target] = (tuple(value.shape), tuple(like.shape))
    missing = tuple(key for key in expected if key not in fitting and key not in misshapen)
    unexpected = tuple(key for key in tensors if key not in renamed)

    misfits = bool(missing or unexpected or misshapen)
    if (strict and misfits) or not fitting:
        message = misfit(
            path.name,
            type(part).__name__,
            len(tensors),
            missing,
            unexpected,
            misshapen,
            agrees_in_order=not isinstance(partners, str),
        )
        raise CheckpointError(message, missing=missing, unexpected=unexpected, misshapen=misshapen)
    model.load_state_dict(fitting, strict=False)
    notes = [f"{len(resized)} filters resized"] if resized else []
    notes += [f"{len(nameless)} tensors renamed in order"] if rename_in_order and nameless else []
    notes += [f"partial: {len(expected) - len(fitting)} of {len(expected)} tensors not in it"] if misfits else []
    _tell_origin(model, WeightsOrigin(", ".join([f"checkpoint {path.name}", source, *notes]), trained=True))
    return LoadedCheckpoint(
        file=path.name,
        source=source,
        loaded=tuple(fitting),
        renamed={key: target for key, target in renamed.items() if key != target},
        resized=tuple(resized),
        missing=missing,
        unexpected=unexpected,
        misshapen=tuple(misshapen),
    )


def _tell_origin(model: nn.Module, origin: WeightsOrigin) -> None:
    """Write it down in the model, and in parts that have one of their own (a detector's backbone)."""
    for part in model.modules():
        if part is model or hasattr(part, "weights_origin"):
            set_weights_origin(part, origin)


def _matched(
    model: nn.Module, part: nn.Module, tensors: dict[str, Tensor]
) -> tuple[nn.Module, dict[str, str], dict[str, Tensor]]:
    """The module to fill, key of the file → key of that module, and the tensors as it has them.

    A model that is published under names of its own, a detector, says itself how a file is read (`named_weights`).
    """
    reads: Any = getattr(part, "named_weights", None)
    if reads is not None:
        return part, *reads(tensors)
    model = max(part, model, key=lambda module: len(names_in_model(tensors, module.state_dict())))
    return model, names_in_model(tensors, model.state_dict()), tensors


def _differs_in_filter_size(key: str, value: Tensor, like: Tensor) -> bool:
    return (
        key.endswith("complex_weight")
        and value.ndim == like.ndim == 4
        and value.shape != like.shape
        and (value.shape[0], value.shape[3]) == (like.shape[0], like.shape[3])
    )
