"""The home of an output cell, against the geometry of windows written out and against dense Jacobians."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import PatchMerging
from torch import nn

from horinsight import interaction_spectrum, model_interaction_spectra
from horinsight.interaction.homes import home_cells
from horinsight.operators.positions import positions_of


def homes_of(operator, x, layout=None):
    """Rows and columns of the homes, (H', W') each."""
    with torch.no_grad():
        output = operator(x)
    positions = positions_of(x, layout)
    homes = home_cells(operator, x, output, positions).reshape(positions.shape_of(output))
    return homes // positions.shape[1], homes % positions.shape[1]


def middles(num_outputs, extent, kernel, stride, padding, dilation):
    """First and last of the two (or one) middle cells of each window, as they are on the endless line."""
    taps = [[o * stride - padding + dilation * k for k in range(kernel)] for o in range(num_outputs)]
    return [(window[(kernel - 1) // 2], window[kernel // 2]) for window in taps]


geometries = st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.integers(1, 2), st.integers(5, 17))


@settings(max_examples=60, deadline=None)
@given(geometries, geometries, st.sampled_from([1, 4]))
def test_any_convolution_centres_its_windows_on_the_homes(rows, columns, groups):
    extents = []
    for kernel, stride, padding, dilation, extent in (rows, columns):
        n = (extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        assume(1 <= n <= extent)
        extents.append((n, extent))
    assume(any(n != extent for n, extent in extents))
    options = {
        "kernel_size": (rows[0], columns[0]),
        "stride": (rows[1], columns[1]),
        "padding": (rows[2], columns[2]),
        "dilation": (rows[3], columns[3]),
    }
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, groups=groups, **options)
    found = homes_of(conv, torch.randn(1, 4, rows[4], columns[4]))
    for axis, (kernel, stride, padding, dilation, extent) in enumerate((rows, columns)):
        n = extents[axis][0]
        along = found[axis][:, 0] if axis == 0 else found[axis][0]
        assert torch.equal(found[axis], (along[:, None] if axis == 0 else along[None]).expand_as(found[axis]))
        if n == extent:
            assert along.tolist() == list(range(n))
            continue
        for home, (first, last) in zip(
            along.tolist(), middles(n, extent, kernel, stride, padding, dilation), strict=True
        ):
            if 0 <= first < extent:
                assert home == first or (home == last and kernel % 2 == 0)
            elif 0 <= last < extent:
                assert home == last
            elif last < 0:  # centred in the padding before the map
                assert home <= middles(n, extent, kernel, stride, padding, dilation)[-1][1]
                assert home < extent / 2 or n == 1
            assert 0 <= home < extent


def strided(x):
    return x[:, :, 1::2, ::3]


def padded_by_hand(x):
    return F.conv2d(F.pad(x, (0, 2, 1, 1)), torch.ones(4, 4, 3, 3), stride=2)


def space_to_depth(x):
    return F.pixel_unshuffle(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), 2)


THINNING = {
    "max pooling": (nn.MaxPool2d(3, 2, 1), lambda o: (2 * o, 2 * o)),
    "max pooling, ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), lambda o: (2 * o + 1, 2 * o + 1)),
    "mean pooling, ceil": (nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), lambda o: (2 * o, 2 * o)),
    "slices": (strided, lambda o: (1 + 2 * o, 3 * o)),
    "padded on one side": (padded_by_hand, lambda o: (2 * o, 2 * o + 1)),
    "space to depth": (space_to_depth, lambda o: (2 * o, 2 * o)),
}  # fmt: skip


@pytest.mark.parametrize("extent", [9, 12, 13, 14])
@pytest.mark.parametrize("name", THINNING)
def test_what_thins_a_map_out_is_followed(name, extent):
    operator, home = THINNING[name]
    torch.manual_seed(0)
    x = torch.randn(1, 4, extent, extent)
    rows, columns = homes_of(operator, x)
    row, column = home(torch.arange(rows.shape[0])), home(torch.arange(rows.shape[1]))
    assert rows[:, 0].tolist() == row[0].clamp(max=extent - 1).tolist()
    assert columns[0].tolist() == column[1].clamp(max=extent - 1).tolist()


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.ReLU(inplace=True), nn.Hardswish(), torch.relu_])
def test_units_that_are_dead_at_some_cells_hide_no_home(activation):
    class Stem(nn.Sequential):
        def forward(self, x):
            return F.max_pool2d(activation(self[0](x)), 3, 2, 1)

    for seed in range(20):
        torch.manual_seed(seed)
        rows, columns = homes_of(Stem(nn.Conv2d(4, 4, 7, 2, 3)), torch.randn(2, 4, 9, 13))
        assert (rows[:, 0].tolist(), columns[0].tolist()) == ([0, 4, 8], [0, 4, 8, 12]), seed


def test_patch_merging_on_channels_last_maps():
    for extent in (7, 8, 13):
        torch.manual_seed(0)
        rows, _ = homes_of(PatchMerging(6).eval(), torch.randn(1, extent, extent, 6), "channels_last")
        assert rows[:, 0].tolist() == list(range(0, extent, 2))


@pytest.mark.parametrize("extent", [7, 12, 13, 14, 25])
@pytest.mark.parametrize(
    ("model", "path", "channels"),
    [
        ("seresnet18", "layer4.0", 256),  # global pooling beside strided branches
        ("resnet26d", "layer3.0", 512),  # a shortcut that pools
        ("efficientnet_b0", "blocks.2.0", 24),
        ("regnety_002", "s2.b1", 24),
    ],
)
def test_strided_residual_blocks(model, path, channels, extent):
    """Every branch of these is centred on every second cell, on odd maps as on even ones."""
    block = timm.create_model(model).get_submodule(path).eval()
    rows, columns = homes_of(block, torch.randn(1, channels, extent, extent))
    expected = list(range(0, extent, 2))
    assert rows[:, 0].tolist() == columns[0].tolist() == expected


def test_padding_as_tensorflow_has_it_on_even_maps():
    """Even maps are padded at the end only: windows of 5 and stride 2 are centred on odd cells."""
    block = timm.create_model("tf_efficientnet_b0").blocks[2][0].eval()
    for extent, start in ((12, 1), (13, 0)):
        rows, _ = homes_of(block, torch.randn(1, 24, extent, extent))
        assert rows[:, 0].tolist() == list(range(start, extent, 2))


def test_all_positions_alike_are_spread_evenly():
    mean = nn.Sequential(nn.Flatten(2), nn.Linear(36, 4, bias=False), nn.Unflatten(2, (2, 2)))
    nn.init.ones_(mean[1].weight)
    rows, columns = homes_of(mean, torch.randn(1, 3, 6, 6))
    assert rows.tolist() == [[1, 1], [4, 4]]
    assert columns.tolist() == [[1, 4], [1, 4]]


@settings(max_examples=12, deadline=None)
@given(st.integers(5, 17), st.integers(1, 4), st.sampled_from([1, 3, 5]), st.integers(0, 2))
def test_the_plain_response_is_the_dense_jacobian_at_the_home(extent, stride, kernel, padding):
    """effect_0² std(F)² = E_i Σ_c' Σ_c J_(i c'),(home(i) c)² σ_c² / C', by the dense Jacobian, every location once."""
    n = (extent + 2 * padding - kernel) // stride + 1
    assume(2 <= n <= extent and padding <= kernel // 2)
    torch.manual_seed(extent)
    conv = nn.Conv2d(2, 3, (kernel, 1), stride=(stride, 1), padding=(padding, 0), padding_mode="zeros").double()
    x = torch.randn(1, 2, extent, 2, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(conv, x)[0, :, :, :, 0]  # (C', n, 2, C, extent, 2)
    sigma = x[0].flatten(1).std(1, correction=0)
    expected = []
    for o in range(n):
        home = min(max(o * stride - padding + kernel // 2, 0), extent - 1)
        at = J[:, o, 0, :, home, 0] * sigma
        expected.append(float(at.square().sum()) / 3)
    expected = np.sqrt(np.mean(expected)) / float(conv(x).detach().std(correction=0))
    spectrum = interaction_spectrum(conv, x, max_order=0, num_tuples=3000, batch_size=1000)
    # (u J v)² of normal v and signs u has a relative variance of 2 to 8: of 3000 its root is known within 1 to 3 %
    assert spectrum.effects[0] == pytest.approx(expected, rel=0.15)
    assert not spectrum.exact_zero[0]


def test_a_strided_convolution_of_one_cell_responds_on_odd_maps():
    conv = nn.Conv2d(3, 4, 1, stride=2).double()
    spectrum = interaction_spectrum(conv, torch.randn(1, 3, 13, 13, dtype=torch.float64), max_order=1, num_tuples=40)
    assert not spectrum.exact_zero[0]
    assert spectrum.max_share[0] < 0.5, "every draw responds"


@pytest.mark.slow
def test_a_strided_block_is_the_same_on_odd_and_even_maps():
    """The plain response of a block does not depend on whether its map is 12 or 13 wide (192 or 200 pixels)."""
    model = timm.create_model("seresnet18").eval()
    torch.manual_seed(0)
    noise = torch.randn(2, 3, 200, 200)
    effects = []
    for size in (192, 200):
        spectra = model_interaction_spectra(
            model, noise[:, :, :size, :size], scope="block", blocks=[7], max_order=1, num_tuples=48
        )
        effects.append(next(iter(spectra.values())).effects[0])
    assert effects[1] == pytest.approx(effects[0], rel=0.3)


@pytest.mark.parametrize(("extent", "n"), [(7, 5), (9, 4), (10, 4), (11, 7)])
@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_uneven_windows_have_their_homes_in_their_middle(pool, extent, n):
    """Adaptive pooling has windows of several sizes, which overlap: no stride leads from one to the next."""
    operator, x = pool((n, extent)), torch.randn(2, 3, extent, extent, dtype=torch.float64)
    windows = [range(o * extent // n, -(-(o + 1) * extent // n)) for o in range(n)]
    found = home_cells(operator, x, operator(x), positions_of(x)).reshape(n, extent)
    middles = found[:, 0] // extent
    assert all(home in window for home, window in zip(middles.tolist(), windows, strict=True))
    assert all(abs(home - np.mean(window)) <= 0.5 for home, window in zip(middles.tolist(), windows, strict=True))
    assert (found % extent == torch.arange(extent)).all()


@pytest.mark.parametrize("pool", [F.avg_pool2d, F.max_pool2d])
def test_poolings_called_as_functions(pool):
    x = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    for call in (lambda z: pool(z, 3), lambda z: pool(z, 3, 2), lambda z: pool(z, kernel_size=3, stride=2)):
        step = 3 if call(x).shape[2] == 3 else 2
        places = [1 + step * o for o in range(call(x).shape[2])]
        homes = home_cells(call, x, call(x), positions_of(x))
        assert homes.tolist() == [row * 9 + column for row in places for column in places]


@pytest.mark.parametrize(
    ("operator", "places"),
    [
        (nn.AvgPool1d(3, 2), [1, 3, 5, 7, 9]),
        (nn.MaxPool1d(3, 2, 1), [0, 2, 4, 6, 8, 10]),
        (nn.MaxPool1d(2, dilation=2, stride=3), [0, 3, 6]),
        (nn.Conv1d(2, 2, 5, stride=4, padding=2), [0, 4, 8]),
        (nn.AdaptiveMaxPool1d(5), [1, 3, 5, 7, 9]),
    ],
    ids=str,
)
def test_rows_of_positions_have_homes_too(operator, places):
    x = torch.randn(2, 2, 11)
    homes = home_cells(operator, x, operator(x), positions_of(x, "channels_first")).tolist()
    assert all(abs(home - place) <= 1 for home, place in zip(homes, places, strict=True))
    if not isinstance(operator, nn.AdaptiveMaxPool1d):
        assert homes == places
