"""Whether a number that is not zero may have become one, because it was too small for its dtype."""

import math
from typing import Any

import torch
from torch import Tensor

from horinsight.torch_private import DispatchMode

# Which arguments of an operator are multiplied with each other; everything else passes numbers on or adds them up.
_FACTORS = {
    "mm": slice(2),
    "bmm": slice(2),
    "mv": slice(2),
    "dot": slice(2),
    "addmm": slice(1, 3),
    "addmv": slice(1, 3),
    "baddbmm": slice(1, 3),
    "addcmul": slice(1, 3),
    "convolution": slice(2),
    "convolution_backward": slice(3),
}
_ELEMENTWISE = frozenset({"mul", "mul_"})


class UnderflowWatch(DispatchMode):
    """Looks at what is computed inside the context, derivatives as well, for numbers too small for their dtype.

    A 0.0 that comes of it is exact where nothing is found: every zero was one before, or is the sum of numbers that are
    right. Found is a product of two numbers that are not zero which is 0.0, or which may be (the smallest numbers that
    meet in a matrix product or a convolution), and every result below the smallest normal number.

    Attributes:
        found: whether there was one so far.

    Example:
        >>> x = torch.tensor([1e-30, 0.0, 1.0])
        >>> with UnderflowWatch() as watch:
        ...     _ = x * 0, x * x
        >>> watch.found
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode a linear layer comes whole, say
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        name = func.overloadpacket.__name__
        before = [part.clone() if isinstance(part, Tensor) else part for part in args] if name == "mul_" else args
        out = func(*args, **kwargs)
        if not (self.found or func.is_view or "empty" in name):  # what nobody has written yet proves nothing
            self.found = self._underflows(name, before, out)
        return out

    def _underflows(self, name: str, args: Any, out: Any) -> bool:
        results = [part for part in (out if isinstance(out, list | tuple) else [out]) if _is_float(part)]
        if not results:
            return False
        if any(_smallest(part) < torch.finfo(part.dtype).tiny for part in results):
            return True
        if name in _ELEMENTWISE:
            alive = (args[0] != 0) & torch.as_tensor(args[1] != 0, device=out.device)
            return bool((alive & (out == 0)).any())
        factors = sorted(_smallest(part) for part in args[_FACTORS[name]]) if name in _FACTORS else []
        return len(factors) > 1 and factors[0] * factors[1] < torch.finfo(results[0].dtype).tiny


def _is_float(part: Any) -> bool:
    return isinstance(part, Tensor) and (part.is_floating_point() or part.is_complex())


def _smallest(part: Tensor) -> float:
    """The smallest magnitude in a tensor that is not zero; infinity where there is none."""
    magnitudes = part.abs()
    return float(magnitudes.masked_fill_(magnitudes == 0, math.inf).min()) if part.numel() else math.inf
