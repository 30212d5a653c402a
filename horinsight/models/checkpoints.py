"""Reads HorNet weights as they are found in the wild: official, mmpretrain, detectors', safetensors."""

import argparse
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from horinsight.description import weighted_part
from horinsight.models.global_local_filter import resized_filter
from horinsight.models.misfits import CheckpointError, cut, in_order, misfit
from horinsight.models.misfits import listed as listed  # asked for here by those who show a report
from horinsight.models.origin import WeightsOrigin, set_weights_origin
from horinsight.models.origin import weights_origin as weights_origin  # asked for here by those who load
from horinsight.results import Result

EMA_WRAPPERS = ("model_ema", "state_dict_ema")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "state", "params")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.", "net.")

# mmpretrain's name → the published one; which names prove that a file is mmpretrain's is in _is_mmpretrain
MMPRETRAIN_NAMES = (
    (re.compile(r"\.gnconv\.projs\."), ".gnconv.pws."),
    (re.compile(r"\.(gamma[12])\.weight$"), r".\1"),
    (re.compile(r"^norm3\."), "norm."),
    (re.compile(r"^head\.fc\."), "head."),
)


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
    `encoder.`; the names of the published code and of mmpretrain.

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
        >>> import tempfile, timm
        >>> model = timm.create_model("hornet_test")
        >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        ...     torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, file.name)
        ...     report = load_checkpoint(model, file.name)
        >>> report.source, len(report.renamed) == len(model.state_dict())
        ('model', True)
    """
    path = Path(path)
    source, tensors = _state_of(_read(path), ema=ema, file=cut(path.name))
    part = weighted_part(model)
    model = max(part, model, key=lambda module: len(_names_in_model(tensors, module.state_dict())))
    expected = model.state_dict()
    renamed = _names_in_model(tensors, expected)
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
    set_weights_origin(model, WeightsOrigin(", ".join([f"checkpoint {path.name}", source, *notes]), trained=True))
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


def mmpretrain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """A HorNet's weights under mmpretrain's names, for its tools and for detectors built on it. Nothing is copied.

    Example:
        >>> import timm
        >>> sorted(mmpretrain_state_dict(timm.create_model("hornet_test")))[0]
        'backbone.downsample_layers.0.0.bias'
    """
    renamed = {}
    for key, tensor in model.state_dict().items():
        name = key.replace(".gnconv.pws.", ".gnconv.projs.")
        name = re.sub(r"\.(gamma[12])$", r".\1.weight", name)
        name = re.sub(r"^norm\.", "norm3.", name)
        renamed[re.sub(r"^head\.", "head.fc.", name) if name.startswith("head.") else f"backbone.{name}"] = tensor
    return renamed


def _read(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"No such checkpoint: {path}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a checkpoint file in it.")
    file = cut(path.name)
    with path.open("rb"):
        pass  # an unreadable file is an OSError, not a broken checkpoint
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about old pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler raise anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise CheckpointError(
                f"{file} was refused: it asks for {cut(refused[1].rstrip(',.'))}, which is not plain weights and could "
                "run code. Nothing of it was run. If you trust its author, save its state dict alone with torch.save."
            ) from error
        if path.is_file() and path.stat().st_size == 0:
            raise CheckpointError(f"{file} is not a readable checkpoint: it is empty.") from error
        raise CheckpointError(
            f"{file} is not a readable checkpoint (a PyTorch file or .safetensors): it is damaged, cut short, "
            f"or something else ({_reason(error)})."
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Weights only load failed", "Check the documentation"))]
    return f"{type(error).__name__}: {telling[0][:120].rstrip('.')}" if telling else type(error).__name__


def _state_of(content: Any, *, ema: bool, file: str) -> tuple[str, dict[str, Tensor]]:
    """The state dict inside whatever a file holds, and the entry it was found under."""
    trail: list[str] = []
    wanted = EMA_WRAPPERS if ema else ()
    found_ema = not ema
    while isinstance(content, Mapping):
        inner = next((key for key in (*wanted, *WRAPPERS) if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        found_ema = found_ema or inner in EMA_WRAPPERS
        trail.append(inner)
        content = content[inner]
    tensors = (
        {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found_ema:
        wanted_names = " or ".join(EMA_WRAPPERS)
        raise CheckpointError(f"{file} has no averaged weights ({wanted_names}): load it without ema=True (--ema).")
    if not tensors:
        held = (
            ", ".join(cut(repr(key)) for key in list(content)[:6])
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        only_ema = isinstance(content, Mapping) and any(key in content for key in EMA_WRAPPERS)
        advice = "it has averaged weights only, pass ema=True (--ema)" if only_ema else f"it holds {held or 'nothing'}"
        raise CheckpointError(f"{file} has no weights that horinsight can find: {advice}.")
    return ".".join(trail) or "the file itself", tensors


def _is_mmpretrain(keys: Iterable[str]) -> bool:
    # the prefix `backbone.` proves nothing: detectors trained with the published code have it too
    return any(".gnconv.projs." in key or re.search(r"\.gamma[12]\.weight$", key) for key in keys)


def _names_in_model(keys: Iterable[str], expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Key of the file → key of the model, for those that have one."""
    keys = list(keys)
    mmpretrain = _is_mmpretrain(keys)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for key in sorted(keys, key=lambda key: key not in expected):  # exact names first
        target = next((name for name in _spellings(key, mmpretrain) if name in expected and name not in taken), None)
        if target is not None:
            found[key] = target
            taken.add(target)
    return {key: found[key] for key in keys if key in found}


def _spellings(key: str, mmpretrain: bool) -> list[str]:
    names = [key]
    while prefix := next((prefix for prefix in PREFIXES if names[-1].startswith(prefix)), None):
        names.append(names[-1].removeprefix(prefix))
    if not mmpretrain:
        return names
    published = []
    for name in names:
        for pattern, replacement in MMPRETRAIN_NAMES:
            name = pattern.sub(replacement, name)
        published.append(name)
    return names + published


def _differs_in_filter_size(key: str, value: Tensor, like: Tensor) -> bool:
    return (
        key.endswith("complex_weight")
        and value.ndim == like.ndim == 4
        and value.shape != like.shape
        and (value.shape[0], value.shape[3]) == (like.shape[0], like.shape[3])
    )
