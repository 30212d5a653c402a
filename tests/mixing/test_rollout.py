import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import large_weights
from timm.layers import LayerNorm2d
from torch import nn

from horinsight import mixing_rollout, mixing_weights
from horinsight.capture import capture
from horinsight.mixing.downsampling import downsampling, even_windows, stride_windows
from horinsight.mixing.rollout import absolute_mixing, rolled_out
from horinsight.models.hornet import HorNetBlock


def test_plain_convolutions_give_their_theoretical_receptive_field():
    """k convolutions of size 3, 5, 3 reach 1 + 2 + 1 = 4 cells to each side."""
    x = torch.randn(1, 4, 15, 15)
    transitions = []
    for size in (3, 5, 3):
        conv = nn.Conv2d(4, 4, size, padding=size // 2, groups=4)
        transitions.append(absolute_mixing(mixing_weights(conv, x)))
        x = conv(x)
    field = rolled_out(transitions)[0, 7 * 15 + 7].reshape(15, 15) > 0
    assert int(field.sum()) == 9 * 9
    assert field[3:12, 3:12].all()


def test_convnext_has_the_receptive_field_of_its_kernels():
    """Stage 3 of ConvNeXt: six 7x7 blocks on one map reach 6·3 = 18 cells to each side."""
    model = timm.create_model("convnext_atto", ls_init_value=1.0)
    rollout = mixing_rollout(model, torch.randn(1, 3, 768, 768), blocks=range(5, 11))
    assert rollout.in_size == rollout.out_size == (48, 48)
    field = rollout.weights[0, 24 * 48 + 24].reshape(48, 48) > 0
    rows, columns = field.nonzero()
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (6, 42, 6, 42)


@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_gf", "hornet_test_iso", "test_vit", "convnext_atto"])
def test_rows_sum_to_one_through_downsampling(name):
    model = timm.create_model(name)
    size = model.pretrained_cfg["input_size"][-1]
    rollout = mixing_rollout(model, torch.randn(2, 3, size, size))
    np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-5)
    assert (rollout.weights >= 0).all()
    prefix = getattr(model, "num_prefix_tokens", 0)
    assert rollout.weights.shape[1] == rollout.out_size[0] * rollout.out_size[1] + prefix
    assert rollout.weights.shape[2] == rollout.in_size[0] * rollout.in_size[1] + prefix


@pytest.mark.parametrize("gamma", [1e-6, 1.0])
def test_the_residual_path_and_the_layer_scale_come_in_their_true_proportions(gamma):
    model = timm.create_model("hornet_test_iso", layer_scale_init_value=gamma).eval()
    with torch.no_grad():
        for block in model.blocks:
            nn.init.normal_(block.gnconv.proj_out.weight)
    images = torch.randn(1, 3, 96, 96)
    rollout = mixing_rollout(model, images)
    with torch.no_grad(), capture({str(i): b for i, b in enumerate(model.blocks)}) as calls:
        model(images)
    T = torch.eye(36)
    for i, block in enumerate(model.blocks):
        x = calls[str(i)][0].input
        with torch.no_grad():
            branch = block.gamma1[:, None, None] * block.gnconv(block.norm1(x))
        a = branch.norm(dim=1) / (branch.norm(dim=1) + x.norm(dim=1))
        a = a.flatten(1)[0, :, None]
        h = mixing_weights(block.gnconv, block.norm1(x)).dense()[0].abs().sum(0)
        T = ((1 - a) * torch.eye(36) + a * h / h.sum(-1, keepdim=True)) @ T
        assert rollout.branch_shares[f"blocks.{i}.gnconv"] == pytest.approx(float(a.mean()), rel=1e-4)
    np.testing.assert_allclose(rollout.weights[0], T, rtol=1e-4, atol=1e-6)


def test_swin_hierarchy():
    model = timm.create_model("swin_tiny_patch4_window7_224")
    rollout = mixing_rollout(model, torch.randn(1, 3, 224, 224))
    assert (rollout.out_size, rollout.in_size) == ((7, 7), (56, 56))
    np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-4)


def test_odd_maps_drop_what_the_stride_drops():
    D = downsampling((5, 7), (2, 3), like=torch.zeros(1))[0]
    assert D.shape == (6, 35)
    torch.testing.assert_close(D.sum(1), torch.ones(6))
    assert D.reshape(6, 5, 7)[:, 4].sum() == 0


def test_networks_whose_residual_path_is_not_known():
    from horinsight import GnConv

    with pytest.raises(
        ValueError, match=r"knows the residual path of HorNet, ViT, Swin and ConvNeXt .*influence_rollout"
    ):
        mixing_rollout(nn.Sequential(nn.Conv2d(3, 8, 4, 4), GnConv(8, 2)), torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("fine", "coarse", "last"), [(25, 13, [24]), (50, 25, [48, 49]), (25, 12, [22, 23]), (7, 4, [6])]
)
def test_the_last_coarse_cell_lies_at_the_end_of_the_fine_map(fine, coarse, last):
    D = downsampling((fine, 1), (coarse, 1), like=torch.zeros(1))[0]
    assert D[-1].nonzero().flatten().tolist() == last
    torch.testing.assert_close(D.sum(1), torch.ones(coarse))


def test_sizes_that_no_whole_stride_joins_are_shared_evenly():
    assert stride_windows(7, 5) is None
    D = downsampling((7, 1), (5, 1), like=torch.zeros(1))[0]
    pooled = torch.nn.functional.adaptive_avg_pool1d(torch.eye(7)[None], 5)[0].T
    torch.testing.assert_close(D, pooled)


def dense_windows(layer, fine, coarse, channels_last=False):
    """(N_coarse, N_fine): each coarse cell's fine cells in equal parts, by the dense Jacobian of what lies between."""
    shape = (1, *fine, 6) if channels_last else (1, 6, *fine)
    x = torch.randn(shape, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(layer.double(), x)
    summed = J.abs().sum((0, 3, 4, 7) if channels_last else (0, 1, 4, 5))
    seen = (summed > 0).double().reshape(coarse[0] * coarse[1], fine[0] * fine[1])
    return seen / seen.sum(1, keepdim=True)


class Overlapping(nn.Module):
    """A stage of gnConv blocks, a downsampling, another stage: what the rollout sees between the two."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.first, self.second = HorNetBlock(6, 2), HorNetBlock(6, 2)
        self.layer = layer

    def forward(self, x):
        return self.second(self.layer(self.first(self.stem(x))))


@pytest.mark.parametrize("size", [(13, 10), (8, 9), (7, 7)])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 6, 2, stride=2),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.Conv2d(6, 6, 5, stride=3, padding=2),
        nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
        nn.Sequential(LayerNorm2d(6), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(6, 6, 2, stride=2)),
    ],
    ids=["2/2", "3/2", "5/3", "ceil", "padded"],
)
def test_downsampling_is_what_the_network_computes(layer, size):
    torch.manual_seed(0)
    model = Overlapping(layer).eval()
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        model.second.gamma1.zero_()
        model.first.gamma1.zero_()  # both blocks pass their map on as it is
    rollout = mixing_rollout(model, image)
    expected = dense_windows(layer, size, rollout.out_size)
    layer.float()
    np.testing.assert_allclose(rollout.weights[0], expected, atol=1e-6)


def test_swin_at_a_size_that_is_padded_looks_at_the_end_of_the_map_too():
    """200 pixels: maps of 50, 25, 13 and 7. Mean weight on the first and the last 8 of 50 rows."""
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=200, depths=(1, 1, 1, 1))
    torch.manual_seed(0)
    rollout = mixing_rollout(model, torch.randn(1, 3, 200, 200))
    assert (rollout.out_size, rollout.in_size) == ((7, 7), (50, 50))
    np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-4)
    by_row = rollout.weights[0].reshape(7, 7, 50, 50).sum((1, 3)).mean(0) / 7
    # cells of the last coarse row see the last 2 rows only and see nothing else, so they count for more: 1/7 at least
    assert by_row[-8:].sum() > 0.1
    assert by_row[:8].sum() > 0.1
    last = rollout.weights[0].reshape(7, 7, 50, 50)[6].sum((0, 2)) / 7
    assert last[48:].sum() > 0.5


def test_a_rollout_that_skips_stages_passes_through_their_downsampling():
    model = timm.create_model("hornet_test").eval()
    rollout = mixing_rollout(model, torch.randn(1, 3, 104, 104), blocks=[1, 4])  # maps of 26, 13, 6 and 3
    assert (rollout.in_size, rollout.out_size) == ((26, 26), (3, 3))
    by_row = rollout.weights[0].reshape(9, 26, 26).sum(2)
    assert (by_row[:, 24:] < 1e-3).all(), "the strides leave out the last rows"
    np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_one_block_is_its_residual_path_and_its_branch(name):
    """T = diag(1 - a) + diag(a) A with the branch computed by hand: what the mixer's half of the block adds to x."""
    options = {"swin_tiny_patch4_window7_224": {"depths": (2, 1, 1, 1), "img_size": 56}}.get(name, {})
    model = timm.create_model(name, **options).eval()
    block = model.blocks[1] if name == "test_vit" else (model.layers if "swin" in name else model.stages)[0].blocks[1]
    large_weights(block, std=0.2)
    size = 160 if name == "test_vit" else 56
    images = torch.randn(2, 3, size, size)
    with torch.no_grad(), capture({"block": block}) as calls:
        model(images)
    x = calls["block"][0].input
    with torch.no_grad():
        if name == "test_vit":
            branch, weights = block.ls1(block.attn(block.norm1(x))), None
        elif "swin" in name:
            branch, weights = block._attn(block.norm1(x)), mixing_weights(block, x)
        else:
            branch, weights = block(x) - x, mixing_weights(block.conv_dw, x)
        channels = 1 if name == "convnext_atto" else -1
        x_norm, branch_norm = (part.norm(dim=channels).flatten(1) for part in (x, branch))
        a = (branch_norm / (x_norm + branch_norm))[..., None]
        if weights is None:
            B, N, _ = x.shape
            q, k, _ = block.attn.qkv(block.norm1(x)).reshape(B, N, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
            A = (q @ k.transpose(-2, -1) * block.attn.scale).softmax(-1).mean(1)
        else:
            h = weights.dense().abs().sum(1)
            A = h / h.sum(-1, keepdim=True)
    rollout = mixing_rollout(model, images, blocks=[2])
    np.testing.assert_allclose(rollout.weights, (1 - a) * torch.eye(A.shape[-1]) + a * A, rtol=1e-3, atol=1e-6)
    assert list(rollout.branch_shares.values()) == [pytest.approx(float(a.mean()), rel=1e-4)]
    assert all(type(share) is float for share in rollout.branch_shares.values())
    assert 0.05 < a.mean() < 0.95


def test_transitions_are_multiplied_last_block_first():
    rng = np.random.default_rng(0)
    sizes = [(6, 5), (3, 6), (4, 3)]
    steps = [torch.from_numpy(rng.dirichlet(np.ones(n), size=(2, m))) for m, n in sizes]
    expected = [steps[2][b] @ steps[1][b] @ steps[0][b] for b in range(2)]
    torch.testing.assert_close(rolled_out(steps), torch.stack(expected))


def test_rows_of_absolute_mixing_sum_to_one_also_where_weights_are_negative_or_none():
    conv = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    nn.init.normal_(conv.weight)
    weights = mixing_weights(conv, torch.randn(2, 3, 4, 5))
    h = weights.dense().abs().sum(1)
    torch.testing.assert_close(absolute_mixing(weights), h / h.sum(-1, keepdim=True))
    nn.init.zeros_(conv.weight)
    assert (absolute_mixing(mixing_weights(conv, torch.randn(1, 3, 4, 5))) == 0).all(), "nothing is no NaN"


@given(st.integers(1, 40), st.integers(1, 40))
def test_even_windows_are_those_of_adaptive_pooling(fine, coarse):
    pooled = nn.functional.adaptive_avg_pool1d(torch.eye(fine)[None], coarse)[0].T
    assert even_windows(fine, coarse) == tuple(tuple(row.nonzero().flatten().tolist()) for row in pooled)


@given(st.integers(1, 80), st.integers(1, 40))
def test_stride_windows_tile_the_fine_axis(stride, coarse):
    """Whatever the leftover at the end: windows follow on each other, all of one stride but for the last."""
    for leftover in range(-stride + 1, stride):
        fine = coarse * stride + leftover
        windows = stride_windows(fine, coarse)
        flat = [cell for window in windows for cell in window]
        assert len(windows) == coarse
        assert flat == list(range(len(flat)))
        found = max(len(window) for window in windows)
        assert {len(window) for window in windows[:-1]} <= {found}
        assert coarse in (fine // found, -(-fine // found))
        powers = [power for power in (1, 2, 4, 8, 16, 32) if coarse in (fine // power, -(-fine // power))]
        assert not powers or found == min(powers[0], fine), "powers of two before any other, small ones first"
