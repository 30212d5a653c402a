"""Every method of captum's about positions: where they must agree they do, to rounding."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from horinsight import create_model, influence, load_result, mixing_rollout, model_mixing_weights
from horinsight.attribution.attribution_methods import ATTRIBUTION_METHODS
from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.attribution.attribution_results import PositionAttributions
from horinsight.attribution.explained_block import explained_block, explained_point
from horinsight.attribution.interaction_places import interaction_places
from horinsight.attribution.position_attribution import position_attribution
from horinsight.attribution.position_forward import model_at_positions
from horinsight.capture import evaluation
from horinsight.models.elementwise import ScaledSum

EPS, SINGLE = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps


class LinearBlock(nn.Module):
    """x + W * x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        # which relevance needs: a rule for the sum, and another tensor for the convolution than for the residual path,
        # because captum's rules hook tensors, and see all users of one
        self.norm, self.sum = nn.Identity(), ScaledSum()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sum(x, self.conv(self.norm(x)))
        return out


class LinearNetwork(nn.Module):
    """Convolutions and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.blocks = nn.Sequential(LinearBlock(4), LinearBlock(4))
        self.head = nn.Linear(4, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


@pytest.fixture(scope="module")
def linear() -> nn.Module:
    torch.manual_seed(0)
    return LinearNetwork().double()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(1)).double()


WHOLE = ("input_x_gradient", "integrated_gradients", "deep_lift")
PATCHES = ("feature_ablation", "occlusion", "shapley_value_sampling", "kernel_shap")
QUERIES = [(0, 0), (2, 3), (4, 4)]


def expected_in_block(linear: nn.Module, images: Tensor, of: str) -> Tensor:
    """x_j · dF_c(x)_i/dx_j of channel 2 of the second block, by dense Jacobians: (B, Q, C, H, W)."""
    found = []
    for image in images:
        x = image[None] if of == "image" else linear.blocks[0](linear.stem(image[None]))

        def tail(z: Tensor) -> Tensor:
            return linear.blocks[1](linear.blocks[0](linear.stem(z)) if of == "image" else z)[0, 2]

        jacobian = torch.autograd.functional.jacobian(tail, x.detach())[:, :, 0]
        found.append(torch.stack([jacobian[row, col] * x[0] for row, col in QUERIES]))
    return torch.stack(found).detach()


@pytest.mark.parametrize("of", ["block_input", "image"])
@pytest.mark.parametrize("method", [*WHOLE, "deep_lift_shap", "gradient_shap", "lrp"])
def test_of_a_linear_network_they_agree_channel_by_channel(linear, images, of, method):
    several = "baselines" in ATTRIBUTION_METHODS[method].needs
    shape = (3, 20, 20) if of == "image" else (4, 5, 5)
    baselines = torch.zeros(2, *shape) if several else 0.0
    found = position_attribution(
        linear, images, block=2, queries=QUERIES, method=method, of=of, baselines=baselines, channel=2
    )
    expected = expected_in_block(linear, images, of)
    # captum's epsilon rule adds 1e-9 to what it divides by, some of which are as small as 1e-3
    loose = {"rtol": 1e-5, "atol": 1e-6} if method == "lrp" else {"rtol": SINGLE, "atol": 1e-11}
    torch.testing.assert_close(torch.from_numpy(found.attributions).movedim(-1, 2), expected, **loose)
    np.testing.assert_allclose(found.outputs, expected.sum((2, 3, 4)), rtol=1e-9)
    if found.gaps is not None:
        # captum's weights of Gauss's rule are in single precision, and add up to 1 to within that
        rounding = {"integrated_gradients": SINGLE, "lrp": 1e-6}.get(method, 1e4 * EPS)
        assert np.abs(found.gaps).max() < rounding * float(expected.abs().sum((2, 3, 4)).max())


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("method", PATCHES)
def test_of_a_linear_network_what_covers_squares_agrees(linear, images, method, window):
    found = position_attribution(
        linear, images, block=2, queries=QUERIES, method=method, baselines=0.0, channel=2, window=window, samples=60
    )
    effects = expected_in_block(linear, images, "block_input").sum(2)  # channels are covered together
    if method == "occlusion" and window == 2:  # overlapping: means over windows, checked by what they are
        padded = effects.unfold(2, 2, 1).unfold(3, 2, 1).sum((4, 5))  # (B, Q, 4, 4) effects of windows
        expected = torch.zeros_like(effects)
        count = torch.zeros(5, 5)
        for row in range(4):
            for col in range(4):
                expected[:, :, row : row + 2, col : col + 2] += padded[:, :, row, col, None, None] / 4
                count[row : row + 2, col : col + 2] += 1
        expected /= count
    else:
        expected = torch.zeros_like(effects)
        for row in range(0, 5, window):
            for col in range(0, 5, window):
                part = (..., slice(row, row + window), slice(col, col + window))
                expected[part] = effects[part].mean((2, 3), keepdim=True)
    # captum adds up in single precision; KernelSHAP weighs both ends by 1e6 instead of infinitely
    loose = {"rtol": 1e-4 if method == "kernel_shap" else 20 * SINGLE, "atol": 1e-6}
    torch.testing.assert_close(torch.from_numpy(found.maps), expected, **loose)


def test_saliency_is_the_slope_and_layers_tell_the_same(linear, images):
    expected = expected_in_block(linear, images, "image")
    slope = position_attribution(
        linear, images, block=2, queries=QUERIES, method="saliency", of="image", channel=2
    ).attributions
    x = images[:, None].movedim(2, -1).numpy()
    np.testing.assert_allclose(slope * np.abs(x), expected.movedim(2, -1).abs().numpy(), rtol=1e-9, atol=1e-12)
    inside = expected_in_block(linear, images, "block_input").movedim(2, -1)
    for method in ("layer_gradient_x_activation", "layer_integrated_gradients", "layer_conductance", "layer_deep_lift"):
        found = position_attribution(
            linear, images, block=2, queries=QUERIES, method=method, of="image", channel=2, layer="1", baselines=0.0
        )
        np.testing.assert_allclose(found.attributions, inside, rtol=SINGLE, atol=1e-11, err_msg=method)


def test_all_positions_are_the_default_and_batches_do_not_matter(linear, images):
    asked = {"block": 1, "method": "integrated_gradients", "baselines": 0.1, "steps": 5}
    whole = position_attribution(linear, images, **asked)
    assert whole.maps.shape == (2, 25, 5, 5)
    assert whole.queries.tolist() == [[row, col] for row in range(5) for col in range(5)]
    small = position_attribution(linear, images, **asked, memory=1)
    np.testing.assert_allclose(small.attributions, whole.attributions, rtol=1e-9, atol=1e-12)
    # a sum of squares is a parabola on a straight path, which Gauss's rule integrates exactly
    assert np.abs(whole.gaps).max() < 1e-10 * np.abs(whole.outputs).max()


def test_a_sum_of_squares_of_a_gated_network_adds_up():
    torch.manual_seed(0)
    model = create_model("hornet_test_iso").double()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or "gamma" in name:
            nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 3, 48, 48).double()
    base = torch.randn(2, 3, 48, 48)
    for method, limit in (("deep_lift", 1e-9), ("integrated_gradients", 0.01), ("shapley_value_sampling", 20 * SINGLE)):
        for of, baselines in (("mixer_input", 0.3), ("block_input", 0.0), ("image", base)):
            found = position_attribution(
                model, x, block=2, queries=[(1, 1)], method=method, of=of, baselines=baselines, samples=2
            )
            assert np.abs(found.gaps).max() < limit * np.abs(found.attributions).sum((2, 3, 4)).min(), (method, of)
    assert found.maps.shape == (2, 1, 48, 48)
    relevance = position_attribution(model, x, block=2, queries=[(1, 1)], method="lrp", of="mixer_input")
    assert np.isfinite(relevance.maps).all()
    assert relevance.maps.any()


def test_tokens_before_the_map_are_held():
    torch.manual_seed(0)
    vit = create_model("test_vit").eval().double()
    x = torch.randn(2, 3, 160, 160).double()
    found = model_at_positions(vit, x, block=2, of="block_input", channel=3)
    assert found.inputs.shape == (2, 64, 10, 10)
    assert found.held.shape == (2, 1, 64)
    with evaluation(found.forward), torch.no_grad():
        outputs = found.forward(found.inputs, found.held)
    tokens = torch.cat([found.held, found.inputs.flatten(2).transpose(1, 2)], 1)
    with evaluation(vit), torch.no_grad():
        expected = vit.blocks[1](tokens)[:, 1:, 3]
    torch.testing.assert_close(outputs, expected)
    zero = torch.cat([found.held, 0 * tokens[:, 1:]], 1)
    with evaluation(vit), torch.no_grad():
        nothing = vit.blocks[1](zero)[:, 1:, 3]
    methods = "integrated_gradients", "feature_ablation", "gradient_shap", "deep_lift_shap", "lime", "kernel_shap"
    for method in methods:
        baselines = torch.zeros(2, 64, 10, 10) if method in ("gradient_shap", "deep_lift_shap") else 0.0
        parts = position_attribution(
            vit,
            x,
            block=2,
            queries=[(0, 9)],
            channel=3,
            method=method,
            baselines=baselines,
            window=10 - 5 * (method in ("lime", "kernel_shap")),
        )
        if method == "integrated_gradients":
            assert np.abs(parts.gaps).max() < 1e-3 * np.abs(parts.attributions).sum((2, 3, 4)).min()
        assert parts.maps.shape == (2, 1, 10, 10)
        if method == "deep_lift_shap":  # all but the softmax exactly
            assert np.abs(parts.gaps).max() < 0.1 * np.abs(parts.attributions).sum((2, 3, 4)).min()
        if method == "kernel_shap":
            assert np.abs(parts.gaps).max() < 1e-4 * np.abs(parts.outputs).min()
        if method == "feature_ablation":
            np.testing.assert_allclose(parts.maps.sum((2, 3))[:, 0], (expected - nothing)[:, 9], rtol=1e-9)


def test_ours_by_name(linear):
    torch.manual_seed(0)
    model, x = create_model("hornet_test_iso"), torch.randn(2, 3, 48, 48)
    asked = {"block": 2, "queries": [(1, 2), (0, 0)]}
    h = model_mixing_weights(model, x, blocks=[2])["blocks.1.gnconv"]
    weights = position_attribution(model, x, **asked, method="mixing_weights", of="mixer_input")
    torch.testing.assert_close(torch.from_numpy(weights.maps[:, 0]), h.at(1, 2).mean(1))
    one = position_attribution(model, x, **asked, method="mixing_weights", of="mixer_input", channel=3)
    torch.testing.assert_close(torch.from_numpy(one.maps[:, 1]), h.at(0, 0)[:, 3])
    rows = mixing_rollout(model, x, blocks=[1, 2]).weights.reshape(2, 3, 3, 3, 3)
    rolled = position_attribution(model, x, **asked, method="mixing_rollout", of="image")
    np.testing.assert_allclose(rolled.maps[:, 0], rows[:, 1, 2], rtol=1e-5)
    point = explained_point(model, x, explained_block(model, 2, image_size=(48, 48)), "block_input")
    found = position_attribution(model, x, **asked, method="influence", samples=3, seed=5)
    expected = influence(point.operator, point.x, queries=[(1, 2), (0, 0)], probes=3, seed=5).maps
    np.testing.assert_allclose(found.maps, expected, rtol=1e-6)
    places = position_attribution(model, x, **asked, method="interaction", samples=1, order=2, of="mixer_input")
    point = explained_point(model, x, explained_block(model, 2, image_size=(48, 48)), "mixer_input")
    by_hand = interaction_places(point.operator, point.x, (0, 0), order=2, num_orderings=1).maps
    np.testing.assert_allclose(places.maps[:, 1], by_hand, rtol=1e-6)
    assert position_attribution(model, x, **asked, method="influence_rollout", of="image", samples=1).maps.shape[1] == 2


def test_what_is_drawn_is_drawn_by_seed_and_random_numbers_go_on(linear, images):
    torch.manual_seed(3)
    state, before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (captum draws from it)
    asked = {"block": 1, "queries": [(1, 1)], "samples": 3}
    several = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    for method, baselines in (("shapley_value_sampling", 0.0), ("lime", 0.0), ("gradient_shap", several)):
        first, again, other = (
            position_attribution(linear, images, **asked, method=method, baselines=baselines, seed=seed)
            for seed in (1, 1, 2)
        )
        assert first == again, method
        assert not np.array_equal(first.maps, other.maps), method
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_results_are_kept_and_tables(linear, images, tmp_path):
    found = position_attribution(linear, images, block=1, queries=[(1, 1)], baselines=0.0)
    for suffix in (".json", ".npz"):
        found.save(tmp_path / f"found{suffix}")
        assert load_result(PositionAttributions, tmp_path / f"found{suffix}") == found
    frame = found.to_frame()
    assert len(frame) == 2 * 25
    assert frame["value"].sum() == pytest.approx(found.maps.sum())
    assert found.convention["explained"] == "sum over c of F_c(x)_i^2"


def test_a_network_is_left_as_it_was(linear, images):
    before = {name: value.clone() for name, value in linear.state_dict().items()}
    linear.train()
    for method in ("deep_lift", "lrp", "saliency", "occlusion"):
        position_attribution(linear, images, block=1, queries=[(1, 1)], method=method, baselines=0.0)
    assert linear.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in linear.parameters())
    assert all(torch.equal(before[name], value) for name, value in linear.state_dict().items())
    assert not any(part._forward_hooks or part._backward_hooks for part in linear.modules())
    assert images.requires_grad is False


class Cut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.conv(x).detach())
        return out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "integrated"}, "did you mean integrated_gradients"),
        (
            {"method": "deep_lift"},
            "deep_lift compares with a baseline and got none: give baselines, a number or a map 4x5x5",
        ),
        ({"method": "occlusion"}, "occlusion compares with a baseline and got none"),
        ({"method": "deep_lift_shap"}, "several maps (M, 4, 5, 5)"),
        ({"method": "deep_lift_shap", "baselines": torch.zeros(1, 4, 5, 5)}, "baselines of at least 2 maps"),
        (
            {"method": "deep_lift", "baselines": torch.zeros(3, 4, 5, 5)},
            "baselines of 1 or 2 maps 4x5x5, got (3, 4, 5, 5)",
        ),
        ({"method": "deep_lift", "baselines": torch.zeros(2, 3, 20, 20)}, "got (2, 3, 20, 20)"),
        ({"method": "grad_cam"}, "grad_cam tells of a layer and got none: give layer, such as"),
        ({"method": "grad_cam", "layer": "nowhere"}, "or the path of a module, got 'nowhere'"),
        ({"method": "grad_cam", "layer": "stem"}, "layer stem does not run in what is explained"),
        ({"method": "guided_backprop"}, "nn.ReLU modules, of which the network has none"),
        ({"queries": [(5, 0)]}, "on the output's map of 5x5, counted from 0, got (5, 0)"),
        ({"queries": [(-1, 0)]}, "got (-1, 0)"),
        ({"queries": []}, "at least one query"),
        ({"channel": 4}, "channel expects a number from 0 to 3, got 4"),
        ({"channel": -1}, "channel expects a whole number of at least 0, got -1"),
        ({"block": 9}, "got 9"),
        ({"of": "everything"}, "of expects one of mixer_input, block_input, image, got 'everything'"),
        ({"steps": 0}, "steps expects a whole number of at least 1"),
        (
            {"method": "mixing_weights"},
            "mixing_weights expects of mixer_input, got 'block_input'",
        ),
        ({"method": "mixing_rollout"}, "mixing_rollout expects of image, got 'block_input'"),
        ({"method": "kernel_shap", "baselines": 0.0, "window": 5}, "needs two squares and more, got a window of 5"),
        ({"method": "influence", "channel": 1}, "influence is of all channels together"),
    ],
)
def test_bad_input_is_one_line(linear, images, asked, said):
    asked = {"block": 2, "queries": [(1, 1)], "method": "saliency"} | asked
    with pytest.raises(ValueError) as error:  # noqa: PT011 (what is said is looked at below)
        position_attribution(linear, images, **asked)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_network_without_a_gradient_says_so():
    asked = {"block": 2, "of": "image", "queries": [(1, 1)]}
    model, x = Cut(), torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match="saliency: The output carries no gradient to what is explained"):
        position_attribution(model, x, **asked, method="saliency")
    found = position_attribution(model, x, **asked, method="occlusion", baselines=0.0)
    assert found.maps.any()


def test_options_are_values():
    assert AttributionOptions(steps=3) == AttributionOptions(steps=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stride'"):
        position_attribution(Cut(), torch.randn(1, 3, 8, 8), block=1, stride=3)
