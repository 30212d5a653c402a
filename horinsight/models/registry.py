"""Models by name: built with random weights or from a checkpoint, and where their weights come from."""

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from horinsight.description import data_configuration, stating_parts
from horinsight.models import (
    ablations,
    convnext_isotropic,
    hornet,
    hornet_isotropic,
    order_ablation,
    separable_net,
)
from horinsight.models.checkpoints import load_checkpoint
from horinsight.models.origin import WeightsOrigin, set_weights_origin
from horinsight.models.packaged_weights import model_card, packaged_weights
from horinsight.models.provenance import model_provenance as model_provenance  # asked for here by those who measure
from horinsight.models.provenance import picture_names as picture_names  # likewise
from horinsight.models.provenance import weights_sha256
from horinsight.models.zero_branches import opened_branches


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that this package adds to timm.

    Args:
        pattern: a shell pattern such as `hornet_*_gf`.

    Example:
        >>> list_models("hornet_s_*")
        ['hornet_s_iso', 'hornet_s_iso_gf']
    """
    files = (hornet, hornet_isotropic, ablations, order_ablation, separable_net, convnext_isotropic)
    names = [name for file in files for name in file.default_cfgs]
    return [name for name in names if fnmatchcase(name, pattern)]


def check_model_name(name: str) -> None:
    """Refuse a name that neither this package nor timm knows.

    Raises:
        ValueError: with the nearest names.
    """
    base = name.partition(".")[0]
    if base != name and timm.is_model(base):
        raise ValueError(
            f"{name!r} names pretrained weights, and nothing is downloaded: use {base!r}, with a checkpoint."
        )
    if timm.is_model(name):
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
    strict: bool = True,
    resize_filters: bool = False,
    rename_in_order: bool = False,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """A model in eval mode, with random weights or those of a checkpoint. Nothing is downloaded.

    Random weights are those that the model's own constructor draws, except that norm scales which it sets to 0 (in
    ResNets, to start training from the identity) are 1: a branch times 0 has nothing to analyse. `weights_origin` says
    so where it was done.

    Args:
        name: one of `list_models()`, or any model of timm.
        checkpoint: weights to load, see `load_checkpoint`, which also explains the next four.
        ema: take the averaged weights of the checkpoint.
        strict: every key must fit; otherwise what fits is loaded.
        resize_filters: resize GF filters that the checkpoint has at another resolution.
        rename_in_order: match the checkpoint's tensors to the model's by their order.
        seed: of the random weights; the global random state stays as it was.
        **options: for the model's constructor, such as `num_classes`, `order`, `kernel_size`; `pretrained` for the
            few models that come with trained weights (`hornet_digits_iso`): True by default, unless a checkpoint or an
            option that changes the model is given (`num_classes=10` does not: it is what that model has anyway).

    Raises:
        ValueError: an unknown name, weights that do not fit, or an argument that would have no effect: how to read a
            checkpoint where there is none, a seed where no weight is drawn.
        TypeError: an option that the model does not have.
        OSError: the checkpoint cannot be read.

    Example:
        >>> from horinsight.models.origin import weights_origin
        >>> model = create_model("hornet_test", num_classes=10)
        >>> model.training, weights_origin(model).source
        (False, 'random, seed 0')
    """
    check_model_name(name)
    reading = {
        "ema=True": ema,
        "strict=False": not strict,
        "resize_filters=True": resize_filters,
        "rename_in_order=True": rename_in_order,
    }
    given = [argument for argument, differs in reading.items() if differs]
    if checkpoint is None and given:
        raise ValueError(f"{given[0]} says how to read a checkpoint: pass checkpoint=PATH, too.")
    if "checkpoint_path" in options:
        raise ValueError("create_model expects checkpoint=PATH, got timm's checkpoint_path, which keeps no origin.")
    packaged = packaged_weights(name)
    wanted = options.pop("pretrained", None)
    if wanted and checkpoint is not None:
        raise ValueError("pretrained=True takes the weights that come with a model: leave it or the checkpoint out.")
    if wanted and packaged is None:
        raise ValueError(f"create_model downloads nothing: pass checkpoint=PATH for trained weights of {name}.")
    pretrained = comes_trained(name, options) if wanted is None and checkpoint is None else bool(wanted)
    if seed and (pretrained or (checkpoint is not None and strict)):
        raise ValueError(
            f"seed={seed} has no effect, because every weight of {name} is loaded: leave it out"
            + (", or pass pretrained=False for random weights." if pretrained else ".")
        )
    model = _drawn(name, options, seed)
    opened = "" if checkpoint is not None or pretrained else opened_branches(model, seed=seed)
    if checkpoint is not None:
        load_checkpoint(
            model, checkpoint, ema=ema, strict=strict, resize_filters=resize_filters, rename_in_order=rename_in_order
        )
    elif pretrained and packaged is not None:
        load_checkpoint(model, packaged)
        set_weights_origin(model, WeightsOrigin(model_card(name)["weights"], trained=True))
    else:
        set_weights_origin(model, WeightsOrigin(f"random, seed {seed}{opened}", trained=False))
    return model.eval()


def comes_trained(name: str, options: Mapping[str, Any]) -> bool:
    """Whether `create_model(name, **options)` gives the trained weights that come with a model.

    It does where the options change nothing: drawn from the same seed, every weight and every number that a module
    keeps is what it is without them.

    Args:
        name: of a model.
        options: for its constructor.

    Example:
        >>> comes_trained("hornet_digits_iso", {"num_classes": 10}), comes_trained("hornet_digits_iso", {"order": 2})
        (True, False)
    """
    if packaged_weights(name) is None or not options.get("pretrained", True):
        return False
    options = {option: value for option, value in options.items() if option != "pretrained"}
    return not options or _settings(_drawn(name, options, 0)) == _settings(_drawn(name, {}, 0))


def _drawn(name: str, options: Mapping[str, Any], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model


def _settings(model: nn.Module) -> list[Any]:
    """Everything that tells one model from another: classes, plain attributes of each module, and weights."""
    plain = (bool, int, float, str, tuple, list, type(None))
    modules = [
        (path, type(module), {key: repr(value) for key, value in vars(module).items() if isinstance(value, plain)})
        for path, module in model.named_modules()
    ]
    return [modules, weights_sha256(model)]


_INITIALISERS = frozenset(
    {"uniform_", "normal_", "erfinv_", "mul_", "add_", "sub_", "div_", "clamp_", "fill_", "zero_"}
)


class _NoInitialisation(TorchFunctionMode):
    """Leaves tensors without data alone: drawing their values takes as long as running the model on shapes."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")  # torch.nn.init passes it by name
        if getattr(func, "__name__", "") in _INITIALISERS and isinstance(target, torch.Tensor) and target.is_meta:
            return target
        return func(*args, **kwargs)


@contextmanager
def without_weights() -> Iterator[None]:
    """A context in which models are built on the meta device, and nothing is drawn: for what has no name in timm.

    Example:
        >>> with without_weights():
        ...     layer = nn.Linear(10**6, 10**6)
        >>> layer.weight.is_meta
        True
    """
    with torch.device("meta"), _NoInitialisation():
        yield


def model_without_weights(name: str, **options: Any) -> nn.Module:
    """A model on the meta device, for what depends on shapes alone: nothing is drawn and nothing stored.

    Args:
        name: as for `create_model`.
        **options: for the model's constructor.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> sum(p.numel() for p in model_without_weights("hornet_large_7x7").parameters())
        194542504
    """
    check_model_name(name)
    with without_weights():
        model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model.eval()


def input_size(model: nn.Module) -> tuple[int, int]:
    """(H, W) in pixels that a model of timm is made for, from its configuration, also inside a wrapper.

    Raises:
        ValueError: nothing in the model states it.

    Example:
        >>> input_size(model_without_weights("hornet_test"))
        (96, 96)
    """
    if not stating_parts(model, "pretrained_cfg"):
        raise ValueError(
            f"{type(model).__name__} does not state its image size (it has no pretrained_cfg, as timm's models do): "
            "choose one yourself."
        )
    height, width = data_configuration(model)["input_size"][1:]
    return int(height), int(width)
