"""What `complexity` answers, as values: they are read, drawn and reported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.results import Provenance, Result

CONVENTION = "multiply-accumulates of convolutions, linear layers and matrix products, without biases"
CONVENTIONS: Mapping[str, str] = {
    "macs": CONVENTION,
    "macs_published": "Table 1's FLOPs: macs + 5 per element of each LayerNorm over the last dimension + for each FFT "
    "the elements of its input times ceil(log2(C H)), as the published script has it (it means log2(H W))",
    "flops": "2 per multiply-accumulate, 1 per element-wise product, scaling and bias, 5 per normalised element, "
    "2.5 log2(H W) per element of an FFT's input; activations, softmax and residual additions are not counted",
}
COLUMNS = ("convolution", "linear", "matmul", "attention", "products", "scaling", "biases", "norms", "fft")


@dataclass(frozen=True, eq=False, repr=False)
class MacCount(Result):
    """What one forward pass over one image computes.

    Attributes:
        model: class of the model.
        image_size: (H, W) in pixels.
        params: number of parameters.
        macs: multiply-accumulates, see `CONVENTIONS`.
        macs_published: in the convention of the paper's Table 1: macs + published_norms + published_ffts.
        flops: in floating-point operations.
        published_norms: what Table 1's convention adds for LayerNorms.
        published_ffts: and for FFTs.
        by_operator: multiply-accumulates by ATen operator.
        by_column: all columns of `COLUMNS`; the first four sum up to `macs`. "products" are element-wise products of
            two features or of features and weights, "scaling" those with a number, "biases" additions, "norms"
            normalised elements, "fft" elements of the inputs of FFTs times log2(H W), rounded.
        by_module: the same for each module, with what it holds, over all of its calls; "" is the model.
        by_call: the same for each call of a module: `name`, `name#2`, ...
        not_counted: ATen operators that compute something and were not counted → number of calls.
        convention: what one unit of `macs` is.
        provenance: name of the model and versions; no weights and no pictures are needed to count.
    """

    model: str
    image_size: tuple[int, int]
    params: int
    macs: int
    macs_published: int
    flops: int
    published_norms: int
    published_ffts: int
    by_operator: Mapping[str, int]
    by_column: Mapping[str, int]
    by_module: Mapping[str, Mapping[str, int]]
    not_counted: Mapping[str, int]
    by_call: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    convention: str = CONVENTION
    provenance: Provenance | None = None

    def _columns(self) -> dict[str, Any]:
        """A row per module and column."""
        entries = [(path, *entry) for path, columns in self.by_module.items() for entry in columns.items()]
        module, column, count = zip(*entries, strict=True) if entries else ((), (), ())
        return {"module": list(module), "column": list(column), "count": list(count)}


DENSE_CONVENTION = (
    "MACs of convolutions and linear layers + 1 per element for a convolution's bias + 2 per element of a BatchNorm + "
    "1 per element of a ReLU; no gating, attention's products, LayerNorm, GELU, FFT, pooling, resizing"
)


@dataclass(frozen=True, eq=False, repr=False)
class DenseCount(Result):
    """What a segmenter or a detector computes for one picture.

    Attributes:
        image_size: (H, W) in pixels.
        regions: how many through each box head and each mask head; (0, 0) of what has none.
        params: number of parameters, those of an auxiliary head among them.
        macs: multiply-accumulates of convolutions and linear layers.
        biases: elements that convolutions added their bias to.
        batch_norms: elements that BatchNorms gave.
        relus: elements that ReLUs gave.
        attention: multiply-accumulates of attention's products, which `macs_counted` leaves out.
        macs_counted: macs + biases + 2 batch_norms + relus.
        convention: of `macs_counted`.
        provenance: name of the model and versions; no weights and no pictures are needed to count.
    """

    image_size: tuple[int, int]
    regions: tuple[int, int]
    params: int
    macs: int
    biases: int
    batch_norms: int
    relus: int
    attention: int
    macs_counted: int
    convention: str = DENSE_CONVENTION
    provenance: Provenance | None = None


@dataclass(frozen=True, eq=False, repr=False)
class TableRowCount(Result):
    """One row of Tables 1, 2, 3 or 6 of the paper: our count beside the printed one.

    Attributes:
        table: "1", "2", "3", "6a", "6b" or "6c".
        label: as the paper's data name the network.
        model: name for `create_model`, of the backbone where there is a framework.
        framework: "classifier", "upernet", "cascade_mask_rcnn" or "mask_rcnn".
        fpn: "fpn", "horfpn_7x7" or "horfpn_gf"; empty for a classifier.
        image_size: (H, W) in pixels.
        params: number of parameters.
        macs: multiply-accumulates alone: of convolutions, linear layers and, for a classifier, matrix products.
        macs_counted: in the convention of the row.
        printed_params_m: parameters in millions, as printed; None where the table has none.
        printed_flops_g: FLOPs in units of 10⁹, as printed.
        params_reproduced: whether the parameters are the printed ones.
        flops_reproduced: whether `macs_counted` is what is printed.
        convention: "published", "macs", "dense" or "dense_attention", see `TABLE_CONVENTIONS`.
        provenance: that of the count.
    """

    table: str
    label: str
    model: str
    framework: str
    fpn: str
    image_size: tuple[int, int]
    params: int
    macs: int
    macs_counted: int
    printed_params_m: int | None
    printed_flops_g: float
    params_reproduced: bool
    flops_reproduced: bool
    convention: str
    provenance: Provenance | None = None

    @property
    def reproduced(self) -> bool:
        """Whether both are."""
        return self.params_reproduced and self.flops_reproduced


TABLE_CONVENTIONS: Mapping[str, str] = {
    "published": CONVENTIONS["macs_published"],
    "macs": CONVENTION,
    "dense": DENSE_CONVENTION,
    "dense_attention": "as dense, and with attention's products, as Swin's own paper counts its T, S and B",
}


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


BOUND_CONVENTION = (
    "multiply-accumulates of convolutions, linear layers and gating products, and of the FFTs of GF; without scale and "
    "biases"
)


@dataclass(frozen=True, eq=False, repr=False)
class GnConvBound(Result):
    """Eq. 3.6 for one gⁿConv of a model.

    Attributes:
        index: of the block, from 1.
        name: of the block, see `MixingBlock`.
        order: n.
        dim: C.
        kernel_size: K; None where f is not a depthwise convolution with a square kernel.
        height: H of its map.
        width: W.
        macs: counted in a forward pass: convolutions, linear layers and gating products, and the FFTs of GF.
        with_scale_and_biases: counted with these two.
        closed_form: `gnconv_macs`; None where the bound does not apply.
        bound: `macs_bound`; None likewise.
        ratio: macs / bound; None likewise.
        margin: bound - macs; None likewise.
        applicable: whether Eq. 3.6 is about this gnConv.
        holds: macs < bound and macs = closed form; None where not applicable.
        convention: what one unit of `macs` is.
        provenance: that of the count.
    """

    index: int
    name: str
    order: int
    dim: int
    kernel_size: int | None
    height: int
    width: int
    macs: int
    with_scale_and_biases: int
    closed_form: int | None
    bound: float | None
    ratio: float | None
    margin: float | None
    applicable: bool
    holds: bool | None
    convention: str = BOUND_CONVENTION
    provenance: Provenance | None = None


def bound_row(bound: GnConvBound) -> dict[str, Any]:
    """A bound as a row of a report, which says the convention and the provenance once."""
    return {name: value for name, value in vars(bound).items() if name not in ("convention", "provenance")}


@dataclass(frozen=True, eq=False, repr=False)
class OrderGrowth(Result):
    """Cost of a gⁿConv over its bound (Eq. 3.6), by order.

    Attributes:
        dim: C.
        kernel_size: K.
        height: H.
        width: W.
        orders: (N,) n.
        macs: (N,) multiply-accumulates.
        bound: what they approach from below.
    """

    dim: int
    kernel_size: int
    height: int
    width: int
    orders: np.ndarray
    macs: np.ndarray
    bound: float


@dataclass(frozen=True, eq=False, repr=False)
class SizeGrowth(Result):
    """Cost on square maps of growing side: a gⁿConv, its bound, and global self-attention of the same width.

    Attributes:
        dim: C.
        order: n.
        kernel_size: K.
        sides: (N,) H = W.
        gnconv: (N,) multiply-accumulates, linear in the number of positions.
        bound: (N,) right side of Eq. 3.6.
        attention: (N,) 4HWC² + 2(HW)²C, quadratic in the number of positions.
    """

    dim: int
    order: int
    kernel_size: int
    sides: np.ndarray
    gnconv: np.ndarray
    bound: np.ndarray
    attention: np.ndarray
