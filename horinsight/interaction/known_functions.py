"""Functions whose interactions are known, on which estimators are tried.

Ishigami's and Sobol's g function have effects in closed form; the ten functions of Tsang et al. 2018 have known sets of
features that interact, and are what detectors of interactions are compared on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

FeatureSet = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class KnownFunction:
    """A function with its distribution of inputs and its interactions.

    Attributes:
        name: as published.
        function: (N, d) → (N,), row by row.
        low: (d,) lower ends of the independent uniform inputs.
        high: (d,) upper ends.
        interactions: maximal sets of features (from 0) that interact; every subset of one does too.
        effects: IE_I = E[(∂^|I| f / ∂x_I)²] in closed form for some sets I; sets that are not listed are not known.
        source: where it was published.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    low: tuple[float, ...]
    high: tuple[float, ...]
    interactions: tuple[FeatureSet, ...]
    effects: Mapping[FeatureSet, float] = field(default_factory=dict)
    source: str = ""

    def inputs(self, num: int, *, seed: int = 0) -> Tensor:
        """Independent draws, (num, d), float64."""
        generator = torch.Generator().manual_seed(seed)
        low, high = (torch.tensor(end, dtype=torch.float64) for end in (self.low, self.high))
        return low + (high - low) * torch.rand(num, len(low), dtype=torch.float64, generator=generator)

    def interacting_pairs(self) -> frozenset[FeatureSet]:
        """All pairs inside one of the maximal sets."""
        return frozenset(pair for group in self.interactions for pair in combinations(sorted(group), 2))


def pairwise_auc(strengths: Mapping[FeatureSet, float], interacting: frozenset[FeatureSet]) -> float:
    """Area under the ROC curve of telling interacting pairs from others by their strengths; ties count half.

    Args:
        strengths: one number per pair.
        interacting: the pairs that do interact.

    Returns:
        Between 0 and 1; 0.5 for chance.

    Raises:
        ValueError: all pairs interact, or none.

    Example:
        >>> pairwise_auc({(0, 1): 2.0, (0, 2): 0.0, (1, 2): 1.0}, frozenset({(0, 1)}))
        1.0
    """
    truth = np.array([pair in interacting for pair in strengths])
    if truth.all() or not truth.any():  # where roc_auc_score is NaN, with a warning
        raise ValueError("pairwise_auc expects pairs that interact and pairs that do not.")
    return float(roc_auc_score(truth, list(strengths.values())))


def ishigami(b: float = 0.1) -> KnownFunction:
    """sin x1 + 7 sin² x2 + b x3⁴ sin x1 on U(-π, π)³; IE_13 = 8 b² π⁶ / 7, every other interaction is 0.

    Example:
        >>> round(ishigami().effects[(0, 2)], 4)
        10.9873
    """

    def f(x: Tensor) -> Tensor:
        return x[:, 0].sin() + 7 * x[:, 1].sin() ** 2 + b * x[:, 2] ** 4 * x[:, 0].sin()

    effects = {(0, 1): 0.0, (1, 2): 0.0, (0, 1, 2): 0.0, (0, 2): 8 * b**2 * math.pi**6 / 7}
    return KnownFunction(
        "Ishigami", f, (-math.pi,) * 3, (math.pi,) * 3, ((0, 2),), effects, "Ishigami and Homma 1990; IE by integration"
    )


def sobol_g(a: Sequence[float] = (0.0, 1.0, 4.5, 9.0)) -> KnownFunction:
    """Π (|4x_i - 2| + a_i)/(1 + a_i) on U(0, 1); IE_I = Π_I 16/(1+a_i)² · Π_not I (1 + 1/(3(1+a_i)²)).

    Its kinks lie on one feature each, so that no interaction hides on them.
    """
    weights = torch.tensor(a, dtype=torch.float64)

    def g(x: Tensor) -> Tensor:
        return (((4 * x - 2).abs() + weights.to(x)) / (1 + weights.to(x))).prod(dim=1)

    d = len(a)
    effects = {}
    for group in (group for size in range(1, d + 1) for group in combinations(range(d), size)):
        inside = math.prod(16 / (1 + a[i]) ** 2 for i in group)
        effects[group] = inside * math.prod(1 + 1 / (3 * (1 + a[i]) ** 2) for i in range(d) if i not in group)
    return KnownFunction("Sobol g", g, (0.0,) * d, (1.0,) * d, (tuple(range(d)),), effects, "Saltelli and Sobol 1995")


def _f1(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    power = torch.pow(math.pi, x1 * x2)
    return power * (2 * x3).sqrt() - x4.asin() + (x3 + x5).log() - x9 / x10 * (x7 / x8).sqrt() - x2 * x7


def _f2(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    first = torch.pow(math.pi, x1 * x2) * (2 * x3.abs()).sqrt() - (0.5 * x4).asin() + ((x3 + x5).abs() + 1).log()
    return first + x9 / (1 + x10.abs()) * (x7.abs() / (1 + x8.abs())).sqrt() - x2 * x7


def _f3(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    first = (x1 - x2).abs().exp() + (x2 * x3).abs() - torch.pow(x3**2, x4.abs())
    return first + (x4**2 + x5**2 + x7**2 + x8**2).log() + x9 + 1 / (1 + x10**2)


def _f4(x: Tensor) -> Tensor:
    return _f3(x) + (x[:, 0] * x[:, 3]) ** 2


def _f5(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    return 1 / (1 + x1**2 + x2**2 + x3**2) + (x4 + x5).exp().sqrt() + (x6 + x7).abs() + x8 * x9 * x10


def _f6(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    first = ((x1 * x2).abs() + 1).exp() - ((x3 + x4).abs() + 1).exp()
    return first + (x5 + x6 - x8).cos() + (x8**2 + x9**2 + x10**2).sqrt()


def _f7(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    first = (x1.atan() + x2.atan()) ** 2 + (x3 * x4 + x6).clamp(min=0) - 1 / (1 + (x4 * x5 * x6 * x7 * x8) ** 2)
    return first + (x7.abs() / (1 + x9.abs())) ** 5 + x.sum(1)


def _f8(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    first = x1 * x2 + torch.pow(2, x3 + x5 + x6) + torch.pow(2, x3 + x4 + x5 + x7)
    return first + (x7 * (x8 + x9).sin()).sin() + (0.9 * x10).acos()


def _f9(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    first = (x1 * x2 + x3 * x4).tanh() * x5.abs().sqrt() + (x5 + x6).exp()
    return first + ((x6 * x7 * x8) ** 2 + 1).log() + x9 * x10 + 1 / (1 + x10.abs())


def _f10(x: Tensor) -> Tensor:
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 = x.unbind(1)
    return (x1 + x2).sinh() + (x3 + x5 + x7).tanh().acos() + (x4 + x5).cos() + 1 / (x7 * x9).cos()


# Maximal sets, numbered from 1 as published. A finite set of features is an interaction where f is not a sum of
# functions that each leave one of them out.
_TSANG: tuple[tuple[Callable[[Tensor], Tensor], tuple[FeatureSet, ...]], ...] = (
    (_f1, ((1, 2, 3), (3, 5), (7, 8, 9, 10), (2, 7))),
    (_f2, ((1, 2, 3), (3, 5), (7, 8, 9, 10), (2, 7))),
    (_f3, ((1, 2), (2, 3), (3, 4), (4, 5, 7, 8))),
    (_f4, ((1, 2), (2, 3), (3, 4), (1, 4), (4, 5, 7, 8))),
    (_f5, ((1, 2, 3), (4, 5), (6, 7), (8, 9, 10))),
    (_f6, ((1, 2), (3, 4), (5, 6, 8), (8, 9, 10))),
    (_f7, ((1, 2), (3, 4, 6), (4, 5, 6, 7, 8), (7, 9))),
    (_f8, ((1, 2), (3, 5, 6), (3, 4, 5, 7), (7, 8, 9))),
    (_f9, ((1, 2, 3, 4, 5), (5, 6), (6, 7, 8), (9, 10))),
    (_f10, ((1, 2), (3, 5, 7), (4, 5), (7, 9))),
)


def tsang_functions() -> dict[str, KnownFunction]:
    """The ten synthetic functions F1..F10 of ten features.

    Inputs are uniform on -1..1; those of F1 on 0..1, but x4, x5, x8 and x10 on 0.6..1.

    Interactions that exist only on a kink (|x6 + x7| in F5, max(x3 x4 + x6, 0) for x3 and x6 in F7) have no derivative
    that sees them.

    Source: Tsang, Cheng, Liu 2018 (arXiv 1705.04977), Table 1.

    Example:
        >>> f5 = tsang_functions()["F5"]
        >>> sorted(f5.interacting_pairs())
        [(0, 1), (0, 2), (1, 2), (3, 4), (5, 6), (7, 8), (7, 9), (8, 9)]
    """
    functions = {}
    for number, (function, groups) in enumerate(_TSANG, 1):
        low: tuple[float, ...] = (-1.0,) * 10
        if number == 1:
            low = tuple(0.6 if feature in (4, 5, 8, 10) else 0.0 for feature in range(1, 11))
        functions[f"F{number}"] = KnownFunction(
            f"F{number}",
            function,
            low,
            (1.0,) * 10,
            tuple(tuple(feature - 1 for feature in group) for group in groups),
            source="Tsang et al. 2018, Table 1",
        )
    return functions
