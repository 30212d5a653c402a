"""Which tensors of one run were made of which others."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class Lineage:
    """The ancestors of every tensor that a function of torch returned; it keeps no tensor alive.

    A tensor that only shows another one in another shape is that one. A part of a tensor is made of it, and what is
    made of another part is not made of this one.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, 3)
        >>> y, lineage = x.exp(), Lineage()
        >>> lineage.made([y], of=[x])
        >>> lineage.is_made_of(y, x), lineage.is_made_of(x, y)
        (True, False)
    """

    def __init__(self) -> None:
        self._nodes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor -> (its number, ancestors as bits)
        self._count = 0

    def made(self, outputs: Sequence[Tensor], *, of: Sequence[Tensor]) -> None:
        """Write down that a function made some tensors of others."""
        given = [self._node(tensor) for tensor in of]
        ancestors = 0
        for number, older in given:
            ancestors |= older | 1 << number
        for output in outputs:
            same = [node for tensor, node in zip(of, given, strict=True) if _shows(output, tensor)]
            self._nodes[output] = same[0] if same else (self._new(), ancestors)

    def is_made_of(self, tensor: Tensor, other: Tensor) -> bool:
        """Whether the first was computed from the second, and is not the same."""
        number, _ = self._node(other)
        return bool(self._node(tensor)[1] >> number & 1)

    def _node(self, tensor: Tensor) -> tuple[int, int]:
        if tensor not in self._nodes:
            self._nodes[tensor] = (self._new(), 0)
        node: tuple[int, int] = self._nodes[tensor]
        return node

    def _new(self) -> int:
        self._count += 1
        return self._count


def _shows(output: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor is another one in another shape."""
    same_memory = output.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    return output is not tensor and same_memory and output.numel() == tensor.numel() and output._is_view()
