"""Models by name: built with random weights or from a checkpoint, and where their weights come from."""

import difflib
import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from horinsight.models import hornet, hornet_isotropic
from horinsight.models.checkpoints import LoadedCheckpoint, load_checkpoint


@dataclass(frozen=True)
class WeightsOrigin:
    """Where the weights of a model come from: in words, and whether they are trained (None when nobody said)."""

    source: str
    trained: bool | None


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that this package adds to timm.

    Args:
        pattern: a shell pattern such as `hornet_*_gf`.

    Example:
        >>> list_models("hornet_s_*")
        ['hornet_s_iso', 'hornet_s_iso_gf']
    """
    names = [*hornet.default_cfgs, *hornet_isotropic.default_cfgs]
    return [name for name in names if fnmatchcase(name, pattern)]


def check_model_name(name: str) -> None:
    """Refuse a name that neither this package nor timm knows.

    Raises:
        ValueError: with the nearest names.
    """
    if timm.is_model(name.split(".")[0]):
        return
    near = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.5)
    near += difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.8)
    hint = (
        f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"expected one of {', '.join(list_models())}"
    )
    raise ValueError(f"Unknown model {name!r}: {hint}" + ("" if near else ", or a model of timm."))


def create_model(
    name: str,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    ema: bool = False,
    resize_filters: bool = False,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """A model in eval mode, with random weights or those of a checkpoint. Nothing is downloaded.

    Args:
        name: one of `list_models()`, or any model of timm.
        checkpoint: weights to load, see `load_checkpoint` (strict).
        ema: take the averaged weights of the checkpoint.
        resize_filters: resize GF filters that the checkpoint has at another resolution.
        seed: of the random weights; the global random state stays as it was.
        **options: for the model's constructor, such as `num_classes`, `order`, `kernel_size`.

    Raises:
        ValueError: an unknown name, or weights that do not fit.
        TypeError: an option that the model does not have.
        OSError: the checkpoint cannot be read.

    Example:
        >>> model = create_model("hornet_test", num_classes=10)
        >>> model.training, weights_origin(model).source
        (False, 'random, seed 0')
    """
    check_model_name(name)
    if options.pop("pretrained", False):
        raise ValueError(f"create_model downloads nothing: pass checkpoint=PATH for trained weights of {name}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, **options)
    set_weights_origin(model, WeightsOrigin(f"random, seed {seed}", trained=False))
    if checkpoint is not None:
        report = load_checkpoint(model, checkpoint, ema=ema, resize_filters=resize_filters)
        set_weights_origin(model, WeightsOrigin(_checkpoint_source(report), trained=True))
    return model.eval()


def _checkpoint_source(report: LoadedCheckpoint) -> str:
    resized = f", {len(report.resized)} filters resized" if report.resized else ""
    return f"checkpoint {report.file}, {report.source}{resized}"


def set_weights_origin(model: nn.Module, origin: WeightsOrigin) -> None:
    """Write down where a model's weights come from, for every result that is computed with it."""
    model.weights_origin = origin  # type: ignore[assignment]


def weights_origin(model: nn.Module) -> WeightsOrigin:
    """Where the weights of a model come from, as `create_model` wrote it down; "unknown" for other models."""
    origin = getattr(model, "weights_origin", None)
    return origin if isinstance(origin, WeightsOrigin) else WeightsOrigin("unknown", trained=None)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of a model's state dict.

    Example:
        >>> weights_sha256(create_model("hornet_test"))[:8] == weights_sha256(create_model("hornet_test"))[:8]
        True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value.flatten().view(torch.uint8).numpy()).data)
    return digest.hexdigest()
