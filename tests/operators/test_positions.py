import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import Attention
from torch import nn

from horinsight import interaction_spectrum
from horinsight.interaction.homes import home_cells
from horinsight.operators.positions import positions_of


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_there_and_back(batch, channels, height, width):
    shapes = {
        "channels_first": (batch, channels, height, width),
        "channels_last": (batch, height, width, channels),
        "tokens": (batch, height * width, channels),
    }
    for layout, shape in shapes.items():
        x = torch.randn(shape)
        positions = positions_of(x, layout)
        flat = positions.flat(x)
        assert flat.shape == (batch, channels, height * width)
        assert torch.equal(positions.native(flat), x)
        assert positions.shape_of(x) == positions.shape
        assert torch.equal(home_cells(nn.Identity(), x, x, positions), torch.arange(height * width))


class Gate(nn.Module):
    """x_i (W mean x) on the last dimension, whatever lies before it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x):
        return x * self.linear(x.flatten(1, -2).mean(1)).view(len(x), *[1] * (x.ndim - 2), 5)


class ChannelsFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.movedim(1, -1)).movedim(-1, 1)


def test_the_layout_does_not_change_the_spectrum():
    gate = Gate().double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    options = {"max_order": 3, "num_tuples": 5}
    first = interaction_spectrum(ChannelsFirst(gate), x.movedim(-1, 1), **options)
    last = interaction_spectrum(gate, x, layout="channels_last", **options)
    tokens = interaction_spectrum(gate, x.flatten(1, 2), grid=(3, 4), **options)
    transposed = interaction_spectrum(
        ChannelsFirst(gate), x.flatten(1, 2).movedim(-1, 1), layout="channels_first", **options
    )
    for other in (last, tokens, transposed):
        torch.testing.assert_close(torch.tensor(other.effects), torch.tensor(first.effects), rtol=1e-10, atol=0)
        assert other.location_order == first.location_order == 1


def test_prefix_tokens_are_no_locations():
    """Attention that looks at the class token alone has nothing between patches."""

    class ClassTokenGate(nn.Module):
        def forward(self, x):
            return x * x[:, :1]

    x = torch.randn(2, 10, 4, dtype=torch.float64)
    without = interaction_spectrum(ClassTokenGate(), x, max_order=2, grid=(3, 3), num_tuples=16)
    assert without.location_order == 0
    assert "the first 1 held fixed" in without.convention["layout"]
    among_all = interaction_spectrum(ClassTokenGate(), x, max_order=2, num_tuples=16)
    assert among_all.location_order == 1


def test_attention_on_tokens_with_a_class_token():
    layer = Attention(8, num_heads=2, qkv_bias=True).double()
    spectrum = interaction_spectrum(layer, torch.randn(2, 17, 8, dtype=torch.float64), max_order=4, grid=(4, 4))
    assert spectrum.location_order == spectrum.degree_order == 2


@pytest.mark.parametrize("stride", [2, 3])
def test_a_stride_reads_the_output_where_it_lies(stride):
    """A 1x1 convolution with a stride responds only to the cell that its output lies on."""
    conv = nn.Conv2d(3, 4, 1, stride=stride).double()
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    homes = home_cells(conv, x, conv(x), positions_of(x))
    assert homes.tolist() == [row * 6 + column for row in range(0, 6, stride) for column in range(0, 6, stride)]
    spectrum = interaction_spectrum(conv, x, max_order=1, num_tuples=30)
    assert spectrum.location_order == 0
    assert (spectrum.effects[0] > 0).all()
    assert spectrum.max_share[0] < 0.5, "every draw responds"


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 3, 4, 4), {"layout": "rows"}, "layout expects one of"),
        ((1, 3, 4, 4), {"layout": "tokens"}, "does not fit an x of shape"),
        ((1, 16, 4), {"layout": "channels_last"}, "does not fit an x of shape"),
        ((1, 3, 4, 4), {"grid": (4, 4)}, "says how tokens lie"),
        ((1, 16, 3), {"grid": (5, 5)}, "5x5 does not fit 16 tokens"),
        ((3,), {}, "expects x of shape"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        positions_of(torch.zeros(shape), **options)


@pytest.mark.parametrize(
    ("shape", "options", "words", "num_prefix", "num_locations"),
    [
        ((1, 3, 4, 5), {}, "a map of 4x5", 0, 20),
        ((1, 4, 5, 3), {"layout": "channels_last"}, "a map of 4x5", 0, 20),
        ((1, 20, 3), {}, "20 tokens", 0, 20),
        ((1, 3, 20), {"layout": "channels_first"}, "20 tokens", 0, 20),
        ((1, 20, 3), {"grid": (4, 5)}, "20 tokens", 0, 20),
        ((1, 20, 3), {"grid": (3, 6)}, "20 tokens, the first 2 held fixed", 2, 18),
        ((1, 3, 20), {"layout": "channels_first", "grid": (1, 1)}, "20 tokens, the first 19 held fixed", 19, 1),
    ],
)
def test_positions_in_numbers_and_words(shape, options, words, num_prefix, num_locations):
    positions = positions_of(torch.zeros(shape), **options)
    assert positions.in_words == words
    assert (positions.num_prefix, positions.num_locations, positions.num_total) == (num_prefix, num_locations, 20)


@pytest.mark.parametrize(
    ("layout", "output", "found"),
    [
        ("channels_first", (1, 9, 4, 6), (4, 6)),
        ("channels_first", (1, 9, 2, 6), (2, 6)),
        ("channels_first", (1, 9, 1, 1), (1, 1)),
        ("channels_first", (1, 9, 5, 6), None),
        ("channels_first", (1, 9, 4, 7), None),
        ("channels_first", (1, 9, 0, 6), None),
        ("channels_first", (1, 9, 24), None),
        ("channels_last", (1, 2, 3, 9), (2, 3)),
        ("tokens", (1, 24, 9), (24,)),
        ("tokens", (1, 12, 9), None),
        ("tokens", (1, 9), None),
    ],
)
def test_outputs_keep_the_positions_or_thin_a_map_out(layout, output, found):
    shapes = {"channels_first": (1, 3, 4, 6), "channels_last": (1, 4, 6, 3), "tokens": (1, 24, 3)}
    positions = positions_of(torch.zeros(shapes[layout]), layout)
    if found is None:
        with pytest.raises(ValueError, match="keeps the layout and the positions"):
            positions.shape_of(torch.zeros(output))
    else:
        assert positions.shape_of(torch.zeros(output)) == found


def test_empty_tensors_and_empty_grids_have_no_positions():
    for shape in ((0, 3, 4, 4), (1, 0, 4, 4), (1, 3, 0, 4), (1, 3, 4, 4, 4), (3, 4)):
        with pytest.raises(ValueError, match="expects x of shape"):
            positions_of(torch.zeros(shape))
    for grid in ((0, 4), (4, 5), (17, 1)):
        with pytest.raises(ValueError, match="does not fit 16 tokens"):
            positions_of(torch.zeros(1, 16, 3), grid=grid)


def test_an_operator_may_write_into_what_it_is_given():
    positions = positions_of(torch.zeros(1, 2, 3, 4))
    x = torch.randn(1, 2, 12)
    before = x.clone()
    assert torch.equal(positions.flat_operator(lambda z: z.add_(1))(x), before + 1)
    assert torch.equal(x, before)
