"""Which parts of a network its multiply-accumulates are in: stem, blocks, what is between them, head."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from torch import nn

from horinsight.complexity.cost_results import MacCount

MAC_COLUMNS = ("convolution", "linear", "matmul", "attention")  # of `COLUMNS`: those that sum up to `macs`
STAGES = ("blocks", "layers", "stages")  # children that make their parent a stage and not a block


@dataclass(frozen=True)
class CostPart:
    """Parts that follow one another and cost the same.

    Attributes:
        names: paths of the modules, in the network's order.
        macs: multiply-accumulates of each of them, as `MacCount.macs` counts.
        by_column: the same, by kind of operation, without those that are 0.
    """

    names: tuple[str, ...]
    macs: int
    by_column: dict[str, int]

    @property
    def total(self) -> int:
        """Of all of them."""
        return self.macs * len(self.names)

    @property
    def label(self) -> str:
        """Short, for an axis.

        Example:
            >>> CostPart(("blocks.0", "blocks.1"), 5, {}).label, CostPart(("head",), 5, {}).label
            ('blocks.0 to 1, x 2', 'head')
        """
        first, last = self.names[0], self.names[-1]
        return first if first == last else f"{first} to {last.rpartition('.')[2]}, x {len(self.names)}"


def cost_parts(model: nn.Module, count: MacCount) -> list[CostPart]:
    """The parts that compute something, equal neighbours together.

    A part is a module that is neither a list or sequence of modules nor a stage, the outermost such; what a model
    computes outside of all its modules is in none.

    Args:
        model: that was counted.
        count: of `count_macs`.

    Example:
        >>> from horinsight.complexity.counted import count_macs
        >>> from horinsight.models.registry import model_without_weights
        >>> model = model_without_weights("hornet_test")
        >>> count = count_macs(model, 64)
        >>> sum(part.total for part in cost_parts(model, count)) == count.macs
        True
    """
    found = []
    for path in _paths(model):
        columns = {key: count.by_module.get(path, {}).get(key, 0) for key in MAC_COLUMNS}
        if sum(columns.values()):
            found.append((path, {key: value for key, value in columns.items() if value}))

    def alike(entry: tuple[str, dict[str, int]]) -> tuple[str, tuple[tuple[str, int], ...]]:
        path, columns = entry
        parent, _, last = path.rpartition(".")
        return (parent if last.isdigit() else path), tuple(columns.items())

    groups = [list(group) for _, group in groupby(found, key=alike)]
    return [
        CostPart(tuple(path for path, _ in group), sum(group[0][1].values()), dict(group[0][1])) for group in groups
    ]


def _paths(module: nn.Module, path: str = "") -> Iterator[str]:
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        children = dict(child.named_children())
        if isinstance(child, nn.Sequential | nn.ModuleList) or not children.keys().isdisjoint(STAGES):
            yield from _paths(child, inner)
        else:
            yield inner
