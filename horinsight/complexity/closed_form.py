"""The cost of a gⁿConv in closed form, term by term, as exact integers (§3.1 and Appendix A).

Symbols: C channels (`dim`), n order, K kernel size, H x W the map; C_k = C / 2^{n-1-k} the channels of step k.
"""

from dataclasses import dataclass
from itertools import pairwise

from horinsight.models.gnconv import gnconv_dims
from horinsight.results import Result


@dataclass(frozen=True, eq=False, repr=False)
class GnConvMacs(Result):
    """Multiply-accumulates of one gⁿConv on one map, by term.

    Attributes:
        proj_in: φ_in, HWC · 2C.
        depthwise: f, HW K² Σ C_k.
        linears: g_1..g_{n-1}, HW Σ C_{k-1} C_k.
        gates: the n element-wise products, HW Σ C_k.
        proj_out: φ_out, HWC · C.
        scale: the products with 1/α, HW Σ C_k; not in the paper's count.
        biases: additions of the biases of φ_in, f, g_k and φ_out; not in the paper's count.
    """

    proj_in: int
    depthwise: int
    linears: int
    gates: int
    proj_out: int
    scale: int
    biases: int

    @property
    def macs(self) -> int:
        """The paper's count, which Eq. 3.6 bounds: without scale and biases."""
        return self.proj_in + self.depthwise + self.linears + self.gates + self.proj_out

    @property
    def with_scale_and_biases(self) -> int:
        """Another convention: everything that is multiplied or added."""
        return self.macs + self.scale + self.biases


def gnconv_terms(dim: int, order: int, kernel_size: int, height: int, width: int) -> GnConvMacs:
    """The cost of a gⁿConv with a K x K depthwise convolution as f, term by term.

    Args:
        dim: C, divisible by 2^(n-1).
        order: n, at least 1.
        kernel_size: K.
        height: H.
        width: W.

    Returns:
        Exact integers, for one map.

    Raises:
        ValueError: a size below 1, or a dim that the order does not divide.

    Example:
        >>> terms = gnconv_terms(64, 2, 7, 56, 56)
        >>> terms.macs == 56 * 56 * 64 * 299, terms.gates
        (True, 301056)
    """
    for name, value in (("kernel_size", kernel_size), ("height", height), ("width", width)):
        if value < 1:
            raise ValueError(f"gnconv_macs expects {name} of at least 1, got {value}.")
    C_k = gnconv_dims(dim, order)
    HW, total = height * width, sum(C_k)
    return GnConvMacs(
        proj_in=HW * dim * 2 * dim,
        depthwise=HW * kernel_size**2 * total,
        linears=HW * sum(a * b for a, b in pairwise(C_k)),
        gates=HW * total,
        proj_out=HW * dim * dim,
        scale=HW * total,
        biases=HW * (2 * dim + total + sum(C_k[1:]) + dim),
    )


def gnconv_macs(dim: int, order: int, kernel_size: int, height: int, width: int) -> int:
    """Multiply-accumulates of a gⁿConv, without biases and scale, with its gating products.

    HWC · [3C + (2/3) C (1 - 4^{1-n}) + 2K² (1 - 2^{-n}) + 2 - 2^{1-n}]

    Args:
        dim: C, divisible by 2^(n-1).
        order: n, at least 1.
        kernel_size: K.
        height: H.
        width: W.

    Raises:
        ValueError: see `gnconv_terms`.

    Example:
        >>> gnconv_macs(512, 5, 7, 7, 7)
        49495488
    """
    return gnconv_terms(dim, order, kernel_size, height, width).macs


def attention_macs(dim: int, height: int, width: int) -> int:
    """Multiply-accumulates of global self-attention on an H x W map: 4HWC² + 2(HW)²C.

    The projections to q, k, v and out, then q kᵀ and its product with v; without softmax and biases.

    Args:
        dim: C; the number of heads does not matter.
        height: H.
        width: W.

    Example:
        >>> attention_macs(384, 14, 14)
        145108992
    """
    HW = height * width
    return 4 * HW * dim**2 + 2 * HW**2 * dim
