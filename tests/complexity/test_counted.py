import cmath
import json
from fractions import Fraction
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn

from horinsight import count_macs, gnconv_terms, list_models, published_rows
from horinsight.models.registry import model_without_weights


def meta_model(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def gnconv_macs(dim: int, order: int, K: int, cells: int) -> int:
    """SPEC, section 6, without the gating products, term by term."""
    dims = [dim // 2 ** (order - 1 - k) for k in range(order)]
    linear = dim * 2 * dim + sum(a * b for a, b in pairwise(dims)) + dim * dim
    return cells * (linear + K * K * sum(dims))


def test_the_isotropic_model_term_by_term():
    blocks = 13 * (gnconv_macs(384, 5, 7, 196) + 196 * 2 * 4 * 384 * 384)
    expected = 196 * 3 * 256 * 384 + blocks + 384 * 1000
    assert count_macs(meta_model("hornet_s_iso"), 224).macs == expected


@pytest.mark.parametrize("size", [(224, 224), (160, 224)])
def test_hornet_tiny_term_by_term(size):
    expected = 512 * 1000
    in_chans, cells = 3 * 16, size[0] * size[1] // 16
    for dim, depth, order in zip((64, 128, 256, 512), (2, 3, 18, 2), (2, 3, 4, 5), strict=True):
        expected += cells * in_chans * dim
        expected += depth * (gnconv_macs(dim, order, 7, cells) + cells * 8 * dim * dim)
        in_chans, cells = 4 * dim, cells // 4
    assert count_macs(meta_model("hornet_tiny_7x7"), size).macs == expected


ROWS = published_rows()


def test_the_tables_are_the_papers(reference):
    """The copy in the package is the one in the reference data."""
    paper = json.loads((reference / "paper_tables.json").read_text())
    printed = {
        (row["model"], row["image_size"]): row for row in paper["table1"]["hornet"] + paper["table1"]["baselines"]
    }
    printed |= {(row["model"], 224): row for row in paper["table6"]["b"]} | printed
    assert len([row for row in ROWS if "hornet" in row.model]) == 14
    for row in ROWS:
        assert row.flops_g == printed[row.label, row.image_size]["flops_g"]
        assert row.top1 == printed[row.label, row.image_size]["top1"]
        assert row.params_m == printed[row.label, row.image_size].get("params_m")


def test_rows_are_those_of_hornet_and_of_the_rivals_that_timm_has():
    rows = published_rows()
    table_1, table_6 = ([row for row in rows if row.table == table] for table in ("Table 1", "Table 6b"))
    assert len(table_1) + len(table_6) == len(rows)
    hornets = [row for row in table_1 if row.model == row.label]
    sizes = [384 if at in (6, 7, 10, 11) else 224 for at in range(12)]
    assert [row.image_size for row in hornets] == sizes
    assert [row.pretrain for row in hornets] == ["in1k"] * 8 + ["in22k"] * 4
    rivals = {(row.label, row.model, row.image_size, row.pretrain) for row in table_1 if row not in hornets}
    swins = {("swin_t", "tiny"), ("swin_s", "small"), ("swin_b", "base")}
    convnexts = {("convnext_t", "tiny"), ("convnext_s", "small"), ("convnext_b", "base")}
    expected = {(label, f"swin_{size}_patch4_window7_224", 224, "in1k") for label, size in swins}
    assert rivals == expected | {(label, f"convnext_{size}", 224, "in1k") for label, size in convnexts}
    assert [(row.model, row.image_size, row.params_m) for row in table_6] == [
        ("hornet_s_iso", 224, None),
        ("hornet_s_iso_gf", 224, None),
        ("deit_small_patch16_224", 224, None),
    ]


def test_a_count_prints_as_a_row_when_it_rounds_to_it():
    row = next(row for row in published_rows() if row.model == "hornet_tiny_gf")
    assert (row.params_m, row.flops_g) == (23, 3.9)
    for params, prints in [(22_499_999, False), (22_500_001, True), (23_499_999, True), (23_500_001, False)]:
        assert row.prints_params(params) is prints
    for macs, prints in [(3_849_999_999, False), (3_850_000_001, True), (3_949_999_999, True), (3_950_000_001, False)]:
        assert row.prints_flops(macs) is prints


@pytest.mark.parametrize("row", [r for r in ROWS if "hornet" in r.model], ids=lambda r: f"{r.model} {r.image_size}")
def test_hornets_print_as_in_the_paper(row):
    """All twelve rows of Table 1 and both of Table 6b, to the printed digit."""
    count = count_macs(model_without_weights(row.model), row.image_size)
    assert f"{count.macs_published / 1e9:.1f}" == f"{row.flops_g:.1f}"
    assert row.params_m is None or round(count.params / 1e6) == row.params_m
    assert row.prints_flops(count.macs_published)
    assert row.prints_params(count.params)
    assert count.macs_published == count.macs + count.published_norms + count.published_ffts
    exact = count_macs(model_without_weights(row.model), row.image_size, fft="exact")
    assert exact.macs == count.macs
    assert (exact.macs_published == count.macs_published) == ("gf" not in row.model)


@pytest.mark.parametrize("row", [r for r in ROWS if "hornet" not in r.model], ids=lambda r: r.model)
def test_rivals_come_out_within_a_tenth(row):
    """And the difference is what is said: norms; attention's products are counted."""
    count = count_macs(model_without_weights(row.model), row.image_size)
    assert abs(count.macs / 1e9 - row.flops_g) < 0.1
    assert abs(count.macs_published / 1e9 - row.flops_g) < 0.1
    without_attention = count.macs - count.by_column["matmul"] - count.by_column["attention"]
    if "convnext" not in row.model:
        assert abs(without_attention / 1e9 - row.flops_g) > 0.1, "attention's products are among the printed FLOPs"


def test_the_slip_of_the_published_script_shows():
    """With log2(H W) HorNet-B GF would print as 15.4."""
    count = count_macs(model_without_weights("hornet_base_gf"), 224, fft="exact")
    assert f"{count.macs_published / 1e9:.1f}" == "15.4"
    with pytest.raises(ValueError, match="published"):
        count_macs(model_without_weights("hornet_base_gf"), 224, fft="fast")


def test_columns_add_up_over_modules():
    model = model_without_weights("hornet_test")
    count = count_macs(model, 96)
    children = [name for name, _ in model.named_children()]
    for column, total in count.by_column.items():
        parts = sum(count.by_module[name][column] for name in children)
        assert parts == total, column
    block, C, HW = count.by_module["stages.1.0"], 16, 12 * 12
    terms = gnconv_terms(16, 3, 7, 12, 12)
    assert block["linear"] + block["convolution"] == terms.macs - terms.gates + HW * 8 * C * C
    assert block["products"] == terms.gates + 2 * HW * C, "two layer scales"
    assert block["scaling"] == terms.scale
    assert block["biases"] == terms.biases + HW * (4 * C + C)
    assert block["norms"] == 2 * HW * C
    assert count.flops == (
        2 * count.macs
        + sum(count.by_column[c] for c in ("products", "scaling", "biases"))
        + 5 * count.by_column["norms"]
    )


def test_inference_mode_counts_the_same():
    for name in ("hornet_test_gf", "deit_tiny_patch16_224"):
        model = model_without_weights(name)
        size = 224 if "deit" in name else 96
        expected = count_macs(model, size)
        with torch.inference_mode():
            assert count_macs(model, size) == expected
        assert expected.macs > 0


@pytest.mark.parametrize(
    "name", ["hornet_test", "hornet_test_gf", "hornet_test_iso", "deit_tiny_patch16_224", "convnext_atto", "test_vit"]
)
@pytest.mark.filterwarnings("ignore")
def test_fvcore_counts_the_same(name):
    """An independent counter, on the jit trace of a real forward pass."""
    from fvcore.nn import FlopCountAnalysis

    model = timm.create_model(name).eval()
    size = model.default_cfg["input_size"][1:]
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, *size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    theirs = analysis.by_operator()
    ours = count_macs(model, size)
    assert theirs["conv"] + theirs["linear"] + theirs.get("addmm", 0) == (
        ours.by_column["convolution"] + ours.by_column["linear"]
    )
    if theirs.get("matmul"):
        assert theirs["matmul"] == ours.by_column["matmul"] + ours.by_column["attention"]


def test_a_large_model_on_a_large_image_needs_no_memory():
    count = count_macs(model_without_weights("hornet_large_gf"), 4096)
    assert count.macs > 10**13


@pytest.mark.parametrize("name", list_models("hornet_*_7x7"))
def test_7x7_models_print_as_in_table_1(name, reference):
    """Without norms and FFTs the 7x7 models are a little below the printed figure, by less than 1 %."""
    rows = json.loads((reference / "paper_tables.json").read_text())["table1"]["hornet"]
    for row in rows:
        if row["model"] == name:
            macs = count_macs(meta_model(name), row["image_size"]).macs / 1e9
            assert macs == pytest.approx(row["flops_g"], abs=0.05 + 0.01 * row["flops_g"])


def test_what_is_not_counted_is_said():
    count = count_macs(meta_model("hornet_test_gf"), 96)
    assert count.not_counted == {"gelu.default": 4, "mean.dim": 1}
    assert not any("view" in op or "permute" in op for op in count.not_counted)
    assert sum(count.by_operator.values()) == count.macs
    assert "multiply-accumulates" in count.convention


def test_what_is_not_counted_is_listed_by_name():
    class Curves(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.stem(x).tanh().exp().abs().tanh()

    count = count_macs(Curves(), 4)
    assert list(count.not_counted.items()) == [("abs.default", 1), ("exp.default", 1), ("tanh.default", 2)]


def test_a_model_with_weights_counts_the_same_and_stays():
    model = timm.create_model("hornet_test")
    assert count_macs(model, (64, 96)) == count_macs(meta_model("hornet_test"), (64, 96))
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_attention_is_counted():
    count = count_macs(meta_model("deit_small_patch16_224"), 224)
    products = 12 * 2 * 197 * 197 * 384
    assert count.by_operator["bmm"] == products


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="does not take images of 0x0"):
        count_macs(meta_model("hornet_test"), 0)


class Counting(complex):
    """A complex number that counts the real operations spent on it, by the schoolbook formulas."""

    products = sums = 0

    def __mul__(self, other):  # (a + bi)(c + di) = ac - bd + (ad + bc)i
        Counting.products += 4
        Counting.sums += 2
        return Counting(complex(self) * complex(other))

    def __add__(self, other):
        Counting.sums += 2
        return Counting(complex(self) + complex(other))

    def __sub__(self, other):
        Counting.sums += 2
        return Counting(complex(self) - complex(other))


def radix_2(x: list[Counting]) -> list[Counting]:
    """Cooley and Tukey's transform, of a length that is a power of two."""
    if len(x) == 1:
        return x
    even, odd = radix_2(x[::2]), radix_2(x[1::2])
    turned = [Counting(cmath.exp(-2j * cmath.pi * k / len(x))) * value for k, value in enumerate(odd)]
    pairs = list(zip(even, turned, strict=True))
    return [a + b for a, b in pairs] + [a - b for a, b in pairs]


def operations(compute, *arguments) -> int:
    Counting.products = Counting.sums = 0
    compute(*arguments)
    return Counting.products + Counting.sums


class Spectral(nn.Module):
    """x → irfft2(rfft2(x) · weight), without anything else."""

    def __init__(self, channels: int, H: int, W: int, steps=("there", "product", "back")) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        self.weight = nn.Parameter(torch.randn(channels, H, W // 2 + 1, dtype=torch.complex64))
        self.size, self.steps = (H, W), steps

    def forward(self, x):
        x = self.stem(x)
        spectrum = torch.fft.rfft2(x) if "there" in self.steps else x[..., : self.size[1] // 2 + 1] + 0j
        spectrum = spectrum * self.weight if "product" in self.steps else spectrum
        return torch.fft.irfft2(spectrum, s=self.size) if "back" in self.steps else spectrum


def test_the_cost_of_a_transform_is_that_of_butterflies():
    """A 2-d transform is one of every row and column; on real numbers it costs half; ours is counted by element."""
    C, H, W = 3, 8, 16
    x = [complex(value) for value in torch.randn(W).tolist()]
    found = radix_2([Counting(value) for value in x])
    torch.testing.assert_close(torch.tensor([complex(v) for v in found]), torch.fft.fft(torch.tensor(x)))
    whole = H * operations(radix_2, [Counting(v) for v in x]) + W * operations(radix_2, [Counting(v) for v in x[:H]])
    with torch.device("meta"):
        there = count_macs(Spectral(C, H, W, steps=["there"]), (H, W))
        both = count_macs(Spectral(C, H, W, steps=["there", "back"]), (H, W))
    stem = 2 * C * H * W
    assert there.flops - stem == C * whole // 2
    assert there.by_column["fft"] == C * H * W * 7, "log2(8 · 16)"
    kept, slip = C * H * (W // 2 + 1), 5  # the published script takes ceil(log2(C H)) = ceil(log2(24))
    assert (there.published_ffts, both.published_ffts) == (C * H * W * slip, (C * H * W + kept) * slip)
    exact = count_macs(Spectral(C, H, W, steps=["there", "back"]), (H, W), fft="exact")
    assert exact.published_ffts == exact.by_column["fft"] == both.by_column["fft"] == (C * H * W + kept) * 7
    assert exact.macs_published == exact.macs + exact.published_ffts
    for count in (there, both, exact, count_macs(Spectral(C, 5, 7), (5, 7))):
        assert {type(number) for number in (count.flops, count.macs_published, *count.by_column.values())} == {int}
    back = Fraction(H * (W // 2 + 1), H * W) * C * whole / 2  # its input is the half of the spectrum that is kept
    assert both.flops - there.flops == back


def test_a_product_of_complex_numbers_is_four_of_real_ones():
    C, H, W = 3, 6, 9
    Counting.products = 0
    assert Counting(1 + 2j) * Counting(3 - 1j) == 5 + 5j
    with torch.device("meta"):
        count = count_macs(Spectral(C, H, W), (H, W))
        parts = count_macs(Spectral(C, H, W, steps=["there", "back"]), (H, W))
    assert count.by_column["products"] == C * H * (W // 2 + 1) * Counting.products
    assert count.flops - parts.flops == count.by_column["products"]


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "layer2d"])
def test_table_1_counts_norms_over_the_last_dimension_only(norm):
    from timm.layers import LayerNorm2d

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            kinds = {"batch": nn.BatchNorm2d(8), "group": nn.GroupNorm(2, 8), "layer": nn.LayerNorm(8)}
            self.norm = kinds.get(norm) or LayerNorm2d(8)

        def forward(self, x):
            x = self.stem(x)
            return self.norm(x.flatten(2).transpose(1, 2)) if norm == "layer" else self.norm(x)

    count = count_macs(Normed().eval(), (5, 7))
    elements = 8 * 5 * 7
    assert count.by_column["norms"] == elements
    assert count.flops == 2 * 24 * 35 + elements + 5 * elements
    assert count.published_norms == (5 * elements if norm == "layer" else 0)


C, H, W = 6, 5, 4
N = C * H * W
VECTOR, PLANES = torch.ones(W, device="meta"), torch.ones(C, 1, 1, device="meta")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (nn.Conv2d(C, 7, 3, padding=1), {"convolution": 9 * 7 * N, "biases": 7 * H * W}),
        (nn.Conv2d(C, 7, 3, padding=1, bias=False), {"convolution": 9 * 7 * N}),
        (nn.Linear(W, 9), {"linear": 9 * N, "biases": C * H * 9}),
        (nn.Linear(W, 9, bias=False), {"linear": 9 * N}),
        (nn.LayerNorm(W), {"norms": N}),
        (nn.LayerNorm((H, W), elementwise_affine=False), {"norms": N}),
        (lambda x: x @ x.transpose(-2, -1), {"matmul": N * H}),
        (lambda x: x * x, {"products": N}),
        (lambda x: x / x, {"products": N}),
        (lambda x: x * PLANES, {"products": N}),
        (lambda x: x * VECTOR, {"products": N}),
        (lambda x: x * 2.0, {"scaling": N}),
        (lambda x: x / 3, {"scaling": N}),
        (lambda x: x * torch.ones((), device="meta"), {"scaling": N}),
        (lambda x: x + VECTOR, {"biases": N}),
        (lambda x: torch.addcmul(x, x, x), {"products": N}),
        (lambda x: x + x, {}),
        (lambda x: x + 1.0, {}),
        (lambda x: x + PLANES, {}),
        (lambda x: VECTOR + x, {}),
        (lambda x: x[0, 0, 0] + VECTOR, {}),
        (nn.functional.gelu, {}),
    ],
)
def test_every_step_is_counted_in_its_own_column(step, expected):
    """By hand, to the unit; what is in no column is in `not_counted` instead."""

    class OneStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(C, C, 1, groups=C, bias=False)
            self.step = step

        def forward(self, x):
            return self.step(self.stem(x))

    with torch.device("meta"):
        count = count_macs(OneStep().to("meta"), (H, W))
    alone = {**expected, "convolution": expected.get("convolution", 0) + N}
    assert {column: amount for column, amount in count.by_column.items() if amount} == alone
    assert all(type(amount) is int for amount in count.by_column.values())
    macs = sum(amount for column, amount in alone.items() if column in ("convolution", "linear", "matmul"))
    assert count.macs == sum(count.by_operator.values()) == macs
    singles = sum(expected.get(column, 0) for column in ("products", "scaling", "biases"))
    assert count.flops == 2 * macs + singles + 5 * expected.get("norms", 0)
    assert count.macs_published == macs + 5 * expected.get("norms", 0)
    assert bool(count.not_counted) == (not expected)


def test_shapes_that_are_not_asked_of_torch_are_torchs():
    """Linear layers, GELU and LayerNorm are answered without torch's slow way; they give what torch gives."""
    seen = []  # not in the module, which a count leaves as it was

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(C, C, 1, groups=C, bias=False)

        def forward(self, x):
            x = self.stem(x).permute(0, 2, 3, 1)  # not contiguous
            weight, bias = x.new_ones(9, C), x.new_ones(9)
            norms = [torch.native_layer_norm(x, x.shape[-axes:], None, None, 1e-5) for axes in (1, 2)]
            found = [*norms[0], *norms[1], nn.functional.gelu(x), torch.addmm(bias, x[0, 0], weight.T)]
            seen[:] = [(part.shape, part.stride()) for part in found]
            return x

    with torch.device("meta"):
        counted = Watched()
    count_macs(counted, (H, W))
    on_shapes = list(seen)
    Watched()(torch.zeros(1, C, H, W))
    assert on_shapes == seen
