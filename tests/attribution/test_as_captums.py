"""Our classes as strangers meet them: whatever takes one of captum's attributions takes these."""

import captum
import matplotlib
import numpy as np
import pytest
import torch
from captum.attr import Attribution, LayerAttribution, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from horinsight import GnConv, create_model, influence_rollout, mixing_rollout, mixing_weights, model_mixing_weights
from horinsight.attribution.influence_attribution import InfluenceAttribution
from horinsight.attribution.interaction_attribution import InteractionAttribution
from horinsight.attribution.mixing_attribution import MixingWeightsAttribution
from horinsight.attribution.rollout_attribution import RolloutAttribution

matplotlib.use("agg")
assert captum.__version__

SIZE = 48  # a map of 3x3

MAKERS = {
    "mixing": lambda model: MixingWeightsAttribution(model, 2, channels="mean"),
    "influence": lambda model: InfluenceAttribution(model, 2, of="image", probes=2),
    "influence_of_block": lambda model: InfluenceAttribution(model, 2, of="block_input", probes=2),
    "interaction": lambda model: InteractionAttribution(model, 2, order=1, num_orderings=1),
    "rollout": lambda model: RolloutAttribution(model),
    "influence_rollout": lambda model: RolloutAttribution(model, [1, 2], rolled="influence", probes=1),
}
SHAPES = {"influence": (1, SIZE, SIZE)}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    network = create_model("hornet_test_iso").eval().double()
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 or "gamma" in name:
            nn.init.normal_(parameter, std=0.3)  # so that nothing is too small to tell
    return network


@pytest.fixture(params=MAKERS)
def named(request, model) -> tuple[str, Attribution]:
    return request.param, MAKERS[request.param](model)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()


def shape_of(name: str) -> tuple[int, ...]:
    return SHAPES.get(name, (1, 3, 3))


def test_bases_and_declarations(named):
    _, attribution = named
    assert isinstance(attribution, Attribution)
    assert attribution.multiplies_by_inputs is False
    assert attribution.has_convergence_delta() is False
    assert attribution.get_name().endswith("Attribution")


def test_targets_of_every_form_agree_and_examples_are_apart(named, images):
    name, attribution = named
    both = attribution.attribute(images, target=[4, 2])
    assert both.shape == (2, *shape_of(name))
    forms = [[(1, 1), (0, 2)], torch.tensor([4, 2])]
    for target in forms:
        torch.testing.assert_close(attribution.attribute(images, target=target), both)
    for form in (4, (1, 1), torch.tensor(4), torch.tensor([4])):
        one = attribution.attribute(images[:1], target=form)
        assert one.shape == (1, *shape_of(name))
        torch.testing.assert_close(one, both[:1], rtol=1e-9, atol=1e-12)
    last = attribution.attribute(images[1:], target=2)
    torch.testing.assert_close(last, both[1:], rtol=1e-9, atol=1e-12)
    first, second = attribution.attribute(images[:1].expand(2, -1, -1, -1), target=[4, 2])
    assert float((first - second).abs().max()) > 1e-3 * float(first.abs().max())


def test_a_tuple_for_a_tuple(named, images):
    _, attribution = named
    (found,) = attribution.attribute((images,), target=4)
    torch.testing.assert_close(found, attribution.attribute(images, target=4))


def test_bad_targets_are_one_line(named, images):
    _, attribution = named
    for target in (9, -1, (3, 0), [0], "a"):
        with pytest.raises(ValueError, match=r"target expects") as error:
            attribution.attribute(images, target=target)
        assert "\n" not in str(error.value)


def test_a_model_stays_as_it_was(named, images, model):
    _, attribution = named
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attribution.attribute(images, target=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_noise_tunnel(named, images):
    name, attribution = named
    tunnel = NoiseTunnel(attribution)
    for target in (4, [4, 2], torch.tensor([4, 2])):
        found = tunnel.attribute(images, nt_type="smoothgrad", nt_samples=2, stdevs=0.0, target=target)
        assert found.shape == (2, *shape_of(name))
        torch.testing.assert_close(found, attribution.attribute(images, target=target), rtol=1e-9, atol=1e-12)
    spread = tunnel.attribute(images, nt_type="vargrad", nt_samples=3, stdevs=0.5, target=4)
    assert float(spread.max()) > 0


def test_interpolation_pictures_and_metrics(named, images, model):
    _, attribution = named
    found = attribution.attribute(images, target=4)
    large = LayerAttribution.interpolate(found, (SIZE, SIZE))
    assert large.shape == (2, 1, SIZE, SIZE)
    picture, original = (x[0].permute(1, 2, 0).detach().numpy() for x in (large, images))
    figure, _ = viz.visualize_image_attr(picture, original, "heat_map", sign="all", use_pyplot=False)
    assert figure.axes
    unchanged = sensitivity_max(attribution.attribute, images, perturb_func=lambda x: x, n_perturb_samples=1, target=4)
    assert unchanged.shape == (2,)
    assert float(unchanged.max()) < 1e-9
    moved = sensitivity_max(attribution.attribute, images, perturb_radius=0.3, n_perturb_samples=2, target=[4, 2])
    assert moved.shape == (2,)
    assert bool((moved > 0).all())

    def noise(x: Tensor) -> tuple[Tensor, Tensor]:
        change = 0.1 * torch.randn_like(x)
        return change, x - change

    missed = infidelity(model, noise, images, large.expand_as(images), target=3, n_perturb_samples=2)
    assert missed.shape == (2,)
    assert bool(missed.isfinite().all())


class Several(nn.Module):
    """Two inputs and a further argument; with 0 and 1 the network itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, other: Tensor, factor: Tensor, name: str) -> Tensor:
        assert name == "said"
        out: Tensor = self.network(images + other * factor.view(-1, 1, 1, 1))
        return out


@pytest.mark.parametrize("name", MAKERS)
def test_several_inputs_and_further_arguments(name, images, model):
    whole = MAKERS[name](Several(model))
    other, factor = torch.randn_like(images), torch.tensor([2.0, -1.0]).double()
    plain = MAKERS[name](model)
    sums = images + other * factor.view(-1, 1, 1, 1)
    expected = [plain.attribute(sums[index : index + 1], target=target) for index, target in enumerate((4, 2))]
    found = whole.attribute((images, other), target=[4, 2], additional_forward_args=(factor, "said"))
    assert len(found) == (2 if name == "influence" else 1)
    torch.testing.assert_close(found[0], torch.cat(expected), rtol=1e-9, atol=1e-12)
    if name == "influence":  # of a sum: as strong as the factor
        torch.testing.assert_close(found[1], found[0] * factor.abs().view(-1, 1, 1, 1), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"one batch, got \[1, 2\] examples"):
        whole.attribute((images, other[:1]), target=4, additional_forward_args=(factor, "said"))


def test_mixing_weights_are_those(model, images):
    h = model_mixing_weights(model, images, blocks=[2])["blocks.1.gnconv"]
    each = MixingWeightsAttribution(model, "blocks.1.gnconv")
    torch.testing.assert_close(each.attribute(images, target=(1, 2)), h.at(1, 2))
    torch.testing.assert_close(each.attribute(images, target=(5, 1, 2)), h.at(1, 2)[:, 5:6])
    absolute = MixingWeightsAttribution(model, 2, channels="absolute_mean").attribute(images, target=5)
    torch.testing.assert_close(absolute, h.at(1, 2).abs().mean(1, keepdim=True))
    mean = MixingWeightsAttribution(model, 2, channels="mean").attribute(images, target=5)
    torch.testing.assert_close(mean[:, 0].flatten(1), h.channel_mean()[:, 5])
    with pytest.raises(ValueError, match="channel from 0 to"):
        each.attribute(images, target=(h.num_channels, 0, 0))
    with pytest.raises(ValueError, match="for all examples or for none"):
        each.attribute(images, target=[(0, 0), (1, 0, 0)])
    with pytest.raises(ValueError, match="channels expects"):
        MixingWeightsAttribution(model, 2, channels="sum")
    with pytest.raises(ValueError, match=r"1 to 3 or a name such as 'blocks\.0\.gnconv', got 4"):
        MixingWeightsAttribution(model, 4).attribute(images, target=0)


def test_a_mixer_by_itself_and_a_step():
    layer, x = GnConv(8, 3, kernel_size=3).double(), torch.randn(2, 8, 4, 5, dtype=torch.float64)
    found = MixingWeightsAttribution(layer, step=1).attribute(x, target=[(3, 4), (0, 0)])
    h = mixing_weights(layer, x, step=1)
    torch.testing.assert_close(found, torch.stack([h.at(3, 4)[0], h.at(0, 0)[1]]))


def test_influence_is_the_dense_jacobian():
    layer, x = GnConv(4, 2, kernel_size=3).double(), torch.randn(1, 4, 4, 5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, x)[0, :, 2, 3, 0]  # (C', C, H, W)
    expected = jacobian.square().mean((0, 1)).sqrt()
    found = InfluenceAttribution(layer, probes=None).attribute(x, target=(2, 3))
    torch.testing.assert_close(found[0, 0], expected)
    assert InfluenceAttribution(layer).options.probes == 16
    with pytest.raises(ValueError, match="needs an output with a map"):
        InfluenceAttribution(nn.Flatten()).attribute(x, target=0)


def test_rollouts_are_rows_and_their_mean(model, images):
    rows = torch.from_numpy(mixing_rollout(model, images).weights).unflatten(2, (3, 3))
    attribution = RolloutAttribution(model)
    torch.testing.assert_close(attribution.attribute(images, target=[8, (0, 1)])[:, 0], rows[[0, 1], [8, 1]])
    torch.testing.assert_close(attribution.attribute(images)[:, 0], rows.mean(1))
    for probes in (1, None):
        rolled = influence_rollout(model, images[1:], blocks=[1, 2], probes=probes).weights
        found = RolloutAttribution(model, [1, 2], rolled="influence", probes=probes).attribute(images, target=3)
        np.testing.assert_allclose(found[1:, 0].flatten(1), rolled[:, 3], rtol=1e-6)
    with pytest.raises(ValueError, match="rolled expects"):
        RolloutAttribution(model, rolled="attention")


def test_tokens_before_the_map_are_no_positions():
    torch.manual_seed(0)
    vit = create_model("test_vit").eval()
    x = torch.randn(1, 3, 160, 160)
    found = RolloutAttribution(vit).attribute(x, target=(9, 9))
    rollout = mixing_rollout(vit, x)
    np.testing.assert_allclose(found.flatten(), rollout.weights[0, -1, 1:], rtol=1e-5)
    looked = MixingWeightsAttribution(vit, 1).attribute(x, target=(0, 3))
    assert looked.shape[2:] == (10, 10)
