"""Counts what a forward pass of any model computes, on the meta device: no weights, no arithmetic, any size."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from horinsight.capture import call_name, running
from horinsight.complexity.cost_results import COLUMNS, MacCount
from horinsight.description import image_channels, weighted_part
from horinsight.dry_run import dry_run
from horinsight.models.provenance import architecture_name
from horinsight.results import Provenance
from horinsight.torch_private import DispatchMode

MAC_COLUMNS = ("convolution", "linear", "matmul", "attention")
LAYER_NORM_COST = 5  # operations per element, as the published script has it
FFT_COST = 2.5  # of a real transform, per element and log2 of the number of elements

Fft = Literal["published", "exact"]

# what reads, views or moves values without arithmetic is not worth a line in `not_counted`
_MOVES = ("view", "reshape", "permute", "transpose", "expand", "slice", "split", "select", "squeeze", "clone", "copy",
          "contiguous", "empty", "detach", "alias", "_to_copy", "cat", "stack", "t.default", "as_strided", "unbind",
          "roll", "index", "zeros", "ones", "full", "arange", "lift_fresh", "new_", "chunk", "constant_pad",
          "_unsafe_view", "unsqueeze", "rand", "bernoulli", "pad", "flip", "repeat", "im2col", "fill",
          "promote_types")  # fmt: skip
_NORMS = ("native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm_legit",
          "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "_fused_rms_norm")  # fmt: skip
_LINEARS = ("addmm", "mm", "linear", "addmv", "mv")


@dataclass
class _Tally:
    """What has been seen so far."""

    by_operator: Counter[str] = field(default_factory=Counter)
    by_module: dict[str, Counter[str]] = field(default_factory=dict)
    by_call: dict[str, Counter[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    layer_norm_elements: int = 0  # of norms over the last dimension
    fft_published: int = 0


class _Counter(DispatchMode):
    """Sees every ATen operator that a forward pass comes down to."""

    def __init__(self, model: nn.Module, inside: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.tally = _Tally()
        self._inside = inside
        self._kinds = {path: type(module).__name__ for path, module in model.named_modules()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in flop_registry:  # in inference mode a linear layer comes whole, say
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        name = func.overloadpacket.__name__
        out = _shapes(name, args)
        out = func(*args, **kwargs) if out is None else out
        seen = self._columns(func, name, args, kwargs, out)
        if seen is None:
            self.tally.others[str(func).removeprefix("aten.")] += 1
            return out
        paths = self._paths()
        calls = {call_name(*call) for call in self._inside}
        for column, amount in seen.items():
            for path in paths:
                self.tally.by_module.setdefault(path, Counter())[column] += amount
            for call in calls:
                self.tally.by_call.setdefault(call, Counter())[column] += amount
            if column in MAC_COLUMNS:
                self.tally.by_operator[name] += amount
        if name in ("native_layer_norm", "_fused_rms_norm") and "2d" not in self._kinds[max(paths, key=len)].lower():
            self.tally.layer_norm_elements += args[0].numel()
        return out

    def _paths(self) -> set[str]:
        """Modules that are running and the containers around them, as paths in the model; "" is the model."""
        parts = [path.split(".") for path, _ in self._inside]
        return {""} | {".".join(names[: depth + 1]) for names in parts for depth in range(len(names))}

    def _columns(self, func: Any, name: str, args: Any, kwargs: Any, out: Any) -> dict[str, int] | None:
        """What one call adds to which columns; None if it is not counted."""
        if func.overloadpacket in flop_registry:
            macs = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out) // 2
            if name in ("convolution", "_convolution"):
                return {"convolution": macs, "biases": out.numel() if args[2] is not None else 0}
            if name in _LINEARS or (name == "bmm" and args[1].stride(0) == 0):  # one matrix for all: strided inputs
                return {"linear": macs, "biases": out.numel() if name == "addmm" else 0}
            return {"attention" if "attention" in name else "matmul": macs}
        if name in ("mul", "mul_", "div", "div_"):
            both = all(isinstance(value, Tensor) and value.ndim > 0 for value in args[:2])
            parts = 4 if out.is_complex() else 1  # real products of a complex one
            return {"products" if both else "scaling": parts * out.numel()}
        if name in ("add", "add_") and isinstance(args[1], Tensor) and args[1].ndim == 1 < out.ndim:
            return {"biases": out.numel()}  # of a linear layer whose product came alone
        if name in ("addcmul", "addcmul_"):
            return {"products": out.numel()}
        if name in _NORMS:
            return {"norms": args[0].numel()}
        if name in ("_fft_r2c", "_fft_c2r"):
            x, dims = args[0], args[1]
            shape = out.shape if name == "_fft_c2r" else x.shape  # of the real side
            length = math.prod(shape[dim] for dim in dims)
            published = x.shape[1] * x.shape[2] if x.ndim > 2 else length  # a script about maps says nothing of others
            self.tally.fft_published += x.numel() * math.ceil(math.log2(published))
            return {"fft": round(x.numel() * math.log2(length))}
        return None


def _shapes(name: str, args: Any) -> Any:
    """What a frequent operator gives on the meta device, without torch's slow way there; None for the others."""
    x = args[0] if args else None
    if not isinstance(x, Tensor) or not x.is_meta:
        return None
    if name == "addmm":
        return x.new_empty(args[1].shape[0], args[2].shape[1])
    if name == "gelu":
        return torch.empty_like(x)
    if name == "native_layer_norm":
        statistic = x.new_empty(*x.shape[: x.ndim - len(args[1])], *[1] * len(args[1]))
        return torch.empty_like(x, memory_format=torch.contiguous_format), statistic, statistic
    return None


def count_macs(model: nn.Module, image_size: int | tuple[int, int], *, fft: Fft = "published") -> MacCount:
    """What a forward pass over one image computes, as torch dispatches it, with the formulas of torch's own counter.

    Args:
        model: any image model, with or without weights.
        image_size: pixels, one number or (H, W).
        fft: what `macs_published` adds for each FFT: "published", as the script behind Table 1 has it, or "exact",
            elements of its input times log2(H W).

    Returns:
        The count in three conventions, by column, operator and module, with what was not counted.

    Raises:
        ValueError: the model does not take images of this size.

    Example:
        >>> count = count_macs(nn.Conv2d(3, 8, 4, stride=4), 32)
        >>> count.macs == 8 * 8 * 8 * 3 * 16, count.by_column["biases"]
        (True, 512)
    """
    if fft not in ("published", "exact"):
        raise ValueError(f'fft expects "published" or "exact", got {fft!r}.')
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    in_chans = image_channels(model, size)
    with running(model) as inside, _Counter(model, inside) as counter:
        dry_run(model, size, in_chans=in_chans)
    tally = counter.tally
    by_module = {
        path: {column: tally.by_module.get(path, Counter())[column] for column in COLUMNS}
        for path, _ in model.named_modules()
    }
    columns = by_module[""]
    macs = sum(columns[column] for column in MAC_COLUMNS)
    norms = LAYER_NORM_COST * tally.layer_norm_elements
    transforms = tally.fft_published if fft == "published" else columns["fft"]
    return MacCount(
        model=type(weighted_part(model)).__name__,
        image_size=size,
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        macs_published=macs + norms + transforms,
        flops=2 * macs
        + sum(columns[column] for column in ("products", "scaling", "biases"))
        + LAYER_NORM_COST * columns["norms"]
        + round(FFT_COST * columns["fft"]),
        published_norms=norms,
        published_ffts=transforms,
        by_operator=dict(tally.by_operator),
        by_column=columns,
        by_module=by_module,
        provenance=Provenance(
            model=architecture_name(model),
            weights="not needed: counted on shapes alone",
            trained=None,
            weights_sha256="",
            images=("x".join(map(str, size)) + " pixels",),
            seed=0,
        ),
        by_call={call: {column: seen[column] for column in COLUMNS} for call, seen in tally.by_call.items()},
        not_counted={op: calls for op, calls in sorted(tally.others.items()) if not op.startswith(_MOVES)},
    )
