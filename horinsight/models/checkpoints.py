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

from horinsight.models.global_local_filter import resized_filter
from horinsight.results import Result

EMA_WRAPPERS = ("model_ema", "state_dict_ema")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "state", "params")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.", "net.")
LISTED_KEYS = 20  # beyond this many a list of keys is written with ranges of numbers

# mmpretrain's name → the published one; which names prove that a file is mmpretrain's is in _is_mmpretrain
MMPRETRAIN_NAMES = (
    (re.compile(r"\.gnconv\.projs\."), ".gnconv.pws."),
    (re.compile(r"\.(gamma[12])\.weight$"), r".\1"),
    (re.compile(r"^norm3\."), "norm."),
    (re.compile(r"^head\.fc\."), "head."),
)


class CheckpointError(ValueError):
    """A file that holds no weights, or weights that do not fit. One line; the keys concerned are attributes as well.

    Attributes:
        missing: keys of the model that the file lacks.
        unexpected: keys of the file that the model lacks.
        misshapen: key → (shape in the file, shape in the model).
    """

    def __init__(
        self,
        message: str,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.unexpected = unexpected
        self.misshapen = dict(misshapen or {})


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
) -> LoadedCheckpoint:
    """Load weights into a model, whoever wrote them. The model is changed only if everything asked for fits.

    Understood: `.safetensors`, and PyTorch files read with the safe loader only (an `argparse.Namespace` in them is
    fine, anything else that would run code is refused); weights under `model`, `state_dict`, `module`, `state` or at
    the top, averaged ones under `model_ema` or `state_dict_ema`; the prefixes `module.`, `_orig_mod.`, `backbone.`,
    `encoder.`; the names of the published code and of mmpretrain.

    Args:
        model: the model to fill; its dtype and device stay.
        path: the file.
        ema: take the averaged weights instead of the raw ones.
        strict: every key must be there, none more, all of the right shape. Otherwise load what fits.
        resize_filters: resize GF filters learned at another resolution, as the forward pass would
            (bilinear, `align_corners=True`).

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
    source, tensors = _state_of(_read(path), ema=ema, file=path.name)
    expected = model.state_dict()
    renamed = _names_in_model(tensors, expected)

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
        message = _misfit(path.name, type(model).__name__, len(tensors), missing, unexpected, misshapen)
        raise CheckpointError(message, missing=missing, unexpected=unexpected, misshapen=misshapen)
    model.load_state_dict(fitting, strict=False)
    notes = [f"{len(resized)} filters resized"] if resized else []
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


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights of a model come from: in words, and whether they are trained (None when nobody said)."""

    source: str
    trained: bool | None


def set_weights_origin(model: nn.Module, origin: WeightsOrigin) -> None:
    """Write down where a model's weights come from, for every result that is computed with it."""
    model.weights_origin = origin  # type: ignore[assignment]


def weights_origin(model: nn.Module) -> WeightsOrigin:
    """Where the weights of a model come from, as its builder or `load_checkpoint` wrote it; "unknown" for others."""
    origin = getattr(model, "weights_origin", None)
    return origin if isinstance(origin, WeightsOrigin) else WeightsOrigin("unknown", trained=None)


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
                f"{path.name} was refused: it asks for {refused[1].rstrip(',.')}, which is not plain weights and could "
                "run code. Nothing of it was run. If you trust its author, save its state dict alone with torch.save."
            ) from error
        if path.is_file() and path.stat().st_size == 0:
            raise CheckpointError(f"{path.name} is not a readable checkpoint: it is empty.") from error
        raise CheckpointError(
            f"{path.name} is not a readable checkpoint (a PyTorch file or .safetensors): it is damaged, cut short, or "
            f"something else ({_reason(error)})."
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
        {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found_ema:
        wanted_names = " or ".join(EMA_WRAPPERS)
        raise CheckpointError(f"{file} has no averaged weights ({wanted_names}): load it without ema=True (--ema).")
    if not tensors:
        held = ", ".join(map(repr, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
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


def _misfit(
    file: str,
    model: str,
    num_tensors: int,
    missing: tuple[str, ...],
    unexpected: tuple[str, ...],
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> str:
    def shape(size: tuple[int, ...]) -> str:
        return "x".join(map(str, size)) or "scalar"

    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {listed(missing)}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected: {listed(unexpected)}")
    if misshapen:
        shapes = [f"{key} (file {shape(a)}, model {shape(b)})" for key, (a, b) in misshapen.items()]
        few = len(shapes) <= LISTED_KEYS
        parts.append(
            f"{len(shapes)} of another shape: "
            + (", ".join(shapes) if few else f"{listed(misshapen)}; e.g. {shapes[0]}")
        )
    advice = ""
    classes = misshapen.get("head.weight")
    if classes is not None and classes[0][1:] == classes[1][1:]:
        advice = f" Build the model with num_classes={classes[0][0]} (--num-classes {classes[0][0]})."
    elif any(key.endswith("complex_weight") for key in misshapen):
        advice = " Filters of another resolution are resized with resize_filters=True (--resize-filters)."
    if not advice and num_tensors > len(unexpected):
        advice = " What fits is loaded with strict=False (--partial)."
    return f"{file} ({num_tensors} tensors) does not fit this {model}: {'; '.join(parts)}.{advice}"


def listed(keys: Iterable[str]) -> str:
    """Keys in one line; a long list is shortened, without loss, by writing ranges of numbers.

    Example:
        >>> listed(["head.bias", "head.weight"])
        'head.bias, head.weight'
        >>> listed([f"stages.2.{block}.gamma{which}" for block in range(18) for which in (1, 2)])
        'stages.2.[0-17].gamma1, stages.2.[0-17].gamma2'
    """
    keys = list(keys)
    if len(keys) <= LISTED_KEYS:
        return ", ".join(keys)
    rows: list[list[Any]] = [re.split(r"(?<=\.)(\d+)(?=\.)", key) for key in keys]
    for column in range(1, max(map(len, rows)), 2):
        merged: dict[tuple[Any, ...], list[int]] = {}
        for row in rows:
            if column < len(row):
                merged.setdefault((*row[:column], None, *row[column + 1 :]), []).append(int(row[column]))
            else:
                merged[tuple(row)] = []
        rows = [[_ranges(found) if part is None else part for part in row] for row, found in merged.items()]
    return ", ".join("".join(row) for row in rows)


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return text if text.isdigit() else f"[{text}]"
