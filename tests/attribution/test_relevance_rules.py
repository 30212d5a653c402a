"""LRP through our modules with zennit's and captum's rules: by dense Jacobians in float64, and what conserves."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from zennit.composites import EpsilonPlus, LayerMapComposite, layer_map_base
from zennit.rules import Epsilon
from zennit.types import Linear

from horinsight import GnConv, create_model, image_batch
from horinsight.attribution.relevance_rules import captum_lrp_rules, zennit_layer_map
from horinsight.data.handwritten_digits import sample_digit
from horinsight.models.hornet import HorNetBlock

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
EPS = torch.finfo(torch.float64).eps


def pooled(*layers: nn.Module) -> nn.Sequential:
    """The channel means of the last layer's map, so that a channel is a class; float64."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()


def proportional(share: float = 0.5, biases: bool = False) -> LayerMapComposite:
    """LRP-0 in zennit: no stabiliser; biases take nothing unless asked for."""
    rule = Epsilon(epsilon=0.0, zero_params=None if biases else "bias")
    ours = zennit_layer_map(share=share, stabilizer=0.0)
    return LayerMapComposite([*ours, *layer_map_base(0.0), ((Linear,), rule)])


def zennit_relevance(model: nn.Module, x: Tensor, target: int, composite: LayerMapComposite) -> tuple[Tensor, float]:
    """Relevance of the pixels, and the output that it explains."""
    x = x.detach().requires_grad_()
    with composite.context(model):
        y = model(x)
        start = torch.zeros_like(y)
        start[:, target] = y[:, target].detach()
        (relevance,) = torch.autograd.grad(y, x, start)
    return relevance, float(y[:, target].sum().detach())


def without_biases() -> GammaRule:
    """LRP-0 in captum."""
    rule = GammaRule(0.0, set_bias_to_zero=True)
    rule.STABILITY_FACTOR = 0.0
    return rule


def captum_relevance(model: nn.Module, x: Tensor, target: int, share: float = 0.5, linear_rule=without_biases):
    for part in model.modules():
        if isinstance(part, nn.AdaptiveAvgPool2d | nn.AvgPool2d):
            part.rule = EpsilonRule(0.0)  # captum's own stabiliser takes relevance; captum takes the rule off again
    with captum_lrp_rules(model, share=share, stabilizer=0.0, linear_rule=linear_rule):
        return LRP(model).attribute(x.detach(), target=target)


def back(linear: Callable[[Tensor], Tensor], x: Tensor, relevance: Tensor) -> Tensor:
    """R_i = x_i Σ_j J_ji R_j / (J x)_j, with the dense Jacobian of a linear map (its bias is left out)."""
    J = torch.func.jacrev(linear)(x).reshape(relevance.numel(), x.numel())
    z = J @ x.flatten()
    return (x.flatten() * (J.T @ (relevance.flatten() / z))).reshape(x.shape)


def gnconv_by_hand(layer: GnConv, x: Tensor, relevance: Tensor, share: float) -> Tensor:
    q = layer.proj_in(x)
    f = layer.dwconv(q[:, layer.dims[0] :]) * layer.scale
    starts = [sum(layer.dims[:k]) for k in range(layer.order)]
    parts = [f[:, a : a + width] for a, width in zip(starts, layer.dims, strict=True)]
    ps = [q[:, : layer.dims[0]]]
    for k in range(layer.order):
        ps.append((layer.pws[k - 1](ps[-1]) if k else ps[-1]) * parts[k])
    R = back(layer.proj_out, ps[-1], relevance)
    R_f = [torch.empty(0)] * layer.order
    for k in reversed(range(layer.order)):
        R, R_f[k] = share * R, (1 - share) * R
        R = back(layer.pws[k - 1], ps[k], R) if k else R
    R_q = back(layer.dwconv, q[:, layer.dims[0] :], torch.cat(R_f, dim=1))
    return back(layer.proj_in, x, torch.cat([R, R_q], dim=1))


def block_by_hand(layer: HorNetBlock, x: Tensor, relevance: Tensor, share: float) -> Tensor:
    def rows(z: Tensor) -> Tensor:
        return z.permute(0, 2, 3, 1)

    mixed = rows(layer.gnconv(layer.norm1(x))) * layer.gamma1
    middle = rows(x) + mixed
    normed = layer.norm2(middle)
    hidden = layer.act(layer.pwconv1(normed))
    R = rows(relevance) / (middle + layer.pwconv2(hidden) * layer.gamma2)
    R_out = back(layer.pwconv2, hidden, R * layer.pwconv2(hidden) * layer.gamma2)
    R = R * middle + back(layer.pwconv1, normed, R_out)
    R_mixed = (R / middle * mixed).permute(0, 3, 1, 2)
    R_x = (R / middle * rows(x)).permute(0, 3, 1, 2)
    return R_x + gnconv_by_hand(layer.gnconv, layer.norm1(x), R_mixed, share)


@pytest.mark.parametrize("share", [0.5, 1.0, 0.2])
@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [(GnConv(4, 1), gnconv_by_hand), (GnConv(4, 3), gnconv_by_hand), (HorNetBlock(4, 2), block_by_hand)],
    ids=["g1Conv", "g3Conv", "block"],
)
def test_both_libraries_equal_the_rules_written_out(layer, by_hand, share):
    torch.manual_seed(0)
    model, x, target = pooled(layer), torch.randn(1, 4, 3, 4, dtype=torch.float64), 1
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        y = layer(x)
        relevance = torch.zeros_like(y)
        relevance[:, target] = y[:, target] / y[0, target].numel()  # of the mean
        expected = by_hand(layer, x, relevance, share)
    tolerance = 1e6 * EPS * float(expected.abs().max())  # the smallest denominators are about 1e-3 of their terms
    for found in (
        zennit_relevance(model, x, target, proportional(share))[0],
        captum_relevance(model, x, target, share),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@settings(max_examples=12, deadline=None)
@given(
    order=st.integers(1, 5),
    kind=st.sampled_from(["conv", "pool", "gf"]),
    share=st.floats(0, 1),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    seed=st.integers(0, 99),
)
def test_every_share_conserves(order, kind, share, size, seed):
    torch.manual_seed(seed)
    model = pooled(HorNetBlock(32, order, depthwise=kind, layer_scale_init_value=0.5))
    x = torch.randn(1, 32, *size, dtype=torch.float64)
    by_zennit, output = zennit_relevance(model, x, 3, proportional(share))
    by_captum = captum_relevance(model, x, 3, share)
    for found in (by_zennit, by_captum):
        # what is lost is rounding of relevance that comes by large amounts of both signs
        assert abs(float(found.sum()) - output) <= 1e5 * EPS * max(float(by_zennit.abs().sum()), 1)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor]:
    model = create_model("hornet_digits_iso").double().requires_grad_(False)
    return model, image_batch(model, [sample_digit(3)]).double()


def test_the_trained_model_conserves_without_biases_and_stabilisers(trained):
    model, x = trained
    by_zennit, output = zennit_relevance(model, x, 3, proportional())
    rounding = EPS * float(by_zennit.abs().sum())  # of 2e9: thirteen blocks of denominators near zero
    assert abs(float(by_zennit.sum()) - output) <= 10 * rounding < 1e-5
    by_captum = captum_relevance(model, x, 3)
    assert abs(float(by_captum.sum()) - output) <= 10 * rounding
    torch.testing.assert_close(by_captum, by_zennit, rtol=0, atol=1e-5 * float(by_zennit.abs().max()))


def test_biases_take_all_that_is_missing(trained):
    model, x = trained
    rules: list[EpsilonRule] = []

    def linear_rule() -> EpsilonRule:
        rules.append(EpsilonRule(1e-12))
        return rules[-1]

    found = captum_relevance(model, x, 3, linear_rule=linear_rule)
    output = float(model(x)[0, 3])
    size = float(found.abs().sum())
    device = x.device
    taken = [float(rule.relevance_output[device].sum() - rule.relevance_input[device].sum()) for rule in rules]
    assert len(rules) == sum(isinstance(part, nn.Conv2d | nn.Linear) for part in model.modules())
    assert abs(output - float(found.sum())) > 0.1 * output, "LRP with biases does not conserve"
    # nothing is lost anywhere else: gates, norms, GELU, layer scales and residual sums conserve
    assert output - float(found.sum()) == pytest.approx(output * sum(taken), abs=1e-6 * max(size, 1))


def test_zennits_composites_take_the_entries_and_lose_the_relevance_without(trained):
    model, x = trained
    found, output = zennit_relevance(model, x, 3, EpsilonPlus(zero_params="bias", layer_map=zennit_layer_map()))
    without, _ = zennit_relevance(model, x, 3, EpsilonPlus(zero_params="bias"))
    assert 0.8 * output < float(found.sum()) < 1.05 * output  # z+ has nothing to hand on where no term is positive
    assert abs(float(without.sum())) < 0.1 * output


def test_gelu_and_1x1_convolutions_are_what_the_libraries_know(trained):
    model, _ = trained
    kinds = {type(part) for part in model.modules()}
    assert nn.GELU in kinds
    assert not any(issubclass(kind, nn.Conv2d) and kind is not nn.Conv2d for kind in kinds)


def test_rules_are_taken_off_and_users_own_ones_stay(trained):
    model, x = trained
    mine = EpsilonRule(0.1)
    model.head.rule = mine
    with captum_lrp_rules(model):
        assert model.head.rule is mine
        assert model.blocks[0].gnconv.gate.rule is not model.blocks[1].gnconv.gate.rule
    assert [part for part in model.modules() if hasattr(part, "rule")] == [model.head]
    with pytest.raises(ValueError, match="expects images"), captum_lrp_rules(model):
        LRP(model).attribute(x[:, :2], target=0)
    model.head.rule = mine  # captum took it off, after an error as after success
    del model.head.rule
    state = {key: value.clone() for key, value in model.state_dict().items()}
    captum_relevance(model, x, 0)
    assert not any("rule" in vars(part) or "activations" in vars(part) for part in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_an_inactive_composite_leaves_the_gradient():
    model = pooled(HorNetBlock(8, 2, layer_scale_init_value=0.5))
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(model(x)[0, 0], x)[0]
    composite = proportional()
    with composite.context(model), composite.inactive():
        found = torch.autograd.grad(model(x)[0, 0], x)[0]
    torch.testing.assert_close(found, expected)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        zennit_layer_map(share=2.0)
    with pytest.raises(ValueError, match="from 0 to 1, got -1"), captum_lrp_rules(nn.Flatten(), share=-1.0):
        pass
    with (
        pytest.raises(ValueError, match=r"a rule for 0 \(PReLU\): set its attribute `rule`"),
        captum_lrp_rules(nn.Sequential(nn.PReLU())),
    ):
        pass
