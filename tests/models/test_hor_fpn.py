import re
from collections import OrderedDict

import numpy as np
import oracles
import pytest
import torch
import torch.nn.functional as F
from oracles import large_weights
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from horinsight import GnConv, HorFpn, explicit_operators, interaction_spectrum, mixing_weights
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.nested_derivative import mixed_derivatives
from horinsight.models.dense.hor_fpn import hor_fpn_gnconv

KINDS = {"7x7": {}, "gf": {"depthwise": "gf"}}
IN_CHANNELS = [4, 6, 8]
SIZES = [(8, 12), (4, 6), (2, 3)]


def levels() -> OrderedDict[str, torch.Tensor]:
    maps = [torch.randn(2, C, *size, dtype=torch.float64) for C, size in zip(IN_CHANNELS, SIZES, strict=True)]
    return OrderedDict(zip("abc", maps, strict=True))


@pytest.mark.parametrize(("depthwise", "difference"), [("conv", 1_361_920), ("gf", 590_080)])
def test_its_parameters_are_the_published_ones(depthwise, difference):
    """A 3x3 convolution has 256·256·9 + 256; Table 3 of the paper: Mask R-CNN on HorNet-S 69.03, 67.67 and 68.44 M."""
    with torch.device("meta"):
        ours = HorFpn([96, 192, 384, 768], 256, LastLevelMaxPool(), depthwise=depthwise)
        theirs = FeaturePyramidNetwork([96, 192, 384, 768], 256, LastLevelMaxPool())
    count = [sum(p.numel() for p in one.parameters()) for one in (theirs, ours)]
    assert count[0] - count[1] == difference
    assert all(block.scale == 1 and block.order == 2 for block in ours.layer_blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_equations_written_out(kind):
    """Laterals, sums from coarse to fine by repeated cells, Eq. 3.2-3.5 without 1/α, a level of every other cell."""
    fpn = HorFpn(IN_CHANNELS, 16, LastLevelMaxPool(), order=3, **KINDS[kind]).double()
    large_weights(fpn.layer_blocks)
    entering = levels()
    found, given = fpn(entering), list(entering.values())
    assert list(found) == ["a", "b", "c", "pool"]
    assert isinstance(found, OrderedDict)
    merged = None
    for index in (2, 1, 0):
        conv = fpn.inner_blocks[index][0]
        lateral = np.einsum("oc,bchw->bohw", conv.weight.detach()[..., 0, 0].numpy(), given[index].numpy())
        lateral += conv.bias.detach().numpy()[:, None, None]
        merged = lateral if merged is None else lateral + merged.repeat(2, axis=2).repeat(2, axis=3)
        expected = oracles.gnconv(torch.from_numpy(merged), fpn.layer_blocks[index])
        output = found["abc"[index]].detach().numpy()
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    assert torch.equal(found["pool"], found["c"][:, :, ::2, ::2])


def test_all_but_its_output_convolutions_are_torchvisions():
    ours, theirs = (kind(IN_CHANNELS, 16, None, nn.BatchNorm2d).double() for kind in (HorFpn, FeaturePyramidNetwork))
    assert [type(part).__name__ for part in ours.layer_blocks[0]] == ["GnConv", "BatchNorm2d"]
    ours.layer_blocks = theirs.layer_blocks
    theirs.inner_blocks.load_state_dict(ours.inner_blocks.state_dict())
    given = levels()
    for a, b in zip(ours(given).values(), theirs(given).values(), strict=True):
        assert torch.equal(a, b)


def test_its_values_keep_the_scale_of_what_enters():
    """As torchvision draws its pyramid's convolutions: variance 1 / fan-in. The default draw leaves 1/100 of it."""
    maps = {"0": torch.randn(1, 64, 16, 16)}
    assert 0.2 < float(HorFpn([64], 64)(maps)["0"].detach().std()) < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out_channels": 15}, "divisible by 2^1 = 2"),
        ({"out_channels": 12, "order": 4}, "use dim=8 or 16"),
        ({"out_channels": 6, "depthwise": "gf"}, "divisible by 2^2 = 4"),
        ({"in_channels_list": [], "out_channels": 8}, "at least one level"),
        ({"out_channels": 8, "depthwise": "fourier"}, "fourier"),
        ({"out_channels": 8, "gf_size": (4, 3)}, "gf_size applies"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        HorFpn(**{"in_channels_list": [4, 8], **options})
    assert "\n" not in str(error.value)


# its operator, analysed: other channels enter than leave, and the scale is 1


def test_channels_that_enter_default_to_those_that_leave():
    assert GnConv(8, 2).proj_in.in_channels == 8
    assert GnConv(8, 2, in_channels=3).proj_in.weight.shape == (16, 3, 1, 1)
    with pytest.raises(ValueError, match="at least one input channel, got in_channels=0"):
        GnConv(8, 2, in_channels=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_channels", [5, 48])
def test_mixing_weights_give_back_what_entered_its_last_projection(kind, in_channels):
    gnconv = large_weights(hor_fpn_gnconv(in_channels, 16, **KINDS[kind]).double())
    x = torch.randn(2, in_channels, 5, 7, dtype=torch.float64)
    np.testing.assert_allclose(gnconv(x).detach().numpy(), oracles.gnconv(x, gnconv), rtol=1e-10, atol=1e-10)
    weights = mixing_weights(gnconv, x)
    mixed = torch.einsum("bcij,bcj->bci", weights.dense(), weights.values.flatten(2)) + weights.offset.flatten(2)
    W, b = gnconv.proj_out.weight[..., 0, 0], gnconv.proj_out.bias[:, None]
    output = torch.einsum("oc,bci->boi", W, mixed) + b
    torch.testing.assert_close(output, gnconv(x).flatten(2), rtol=1e-11, atol=1e-11)
    assert weights.reconstruction_error < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("in_channels", "order"), [(5, 2), (48, 2), (5, 3)])
def test_closed_form_equals_nested_derivatives(kind, in_channels, order):
    gnconv = large_weights(hor_fpn_gnconv(in_channels, 16, order=order, **KINDS[kind]).double())
    x = torch.randn(1, in_channels, 4, 5, dtype=torch.float64)
    K = order + 1
    cells = torch.stack([torch.randperm(20)[: K + 1] for _ in range(6)])
    directions = torch.randn(6, K + 1, in_channels, dtype=torch.float64)
    image = torch.zeros(6, dtype=torch.long)
    form = closed_form_of(gnconv, x, explicit=True)
    assert form is not None
    D = form.mixed(x, cells, directions, image=image)
    for c in (0, 15):
        u = F.one_hot(torch.full((6,), c), 16).double()
        with explicit_operators():
            nested = mixed_derivatives(gnconv, x[image], cells, directions, u)
        scale = nested[:, : order + 1].abs().amax(0)
        assert (scale > 0).all()
        assert ((D[..., c] - nested)[:, : order + 1].abs() <= 1e-11 * scale).all()
    assert (D[:, order + 1 :] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [2, 3])
def test_its_interaction_order_is_n(kind, order):
    gnconv = hor_fpn_gnconv(12, 16, order=order, **KINDS[kind]).double()
    x = torch.randn(1, 12, 6, 6, dtype=torch.float64)
    spectrum = interaction_spectrum(gnconv, x, max_order=order + 2, num_tuples=4)
    assert (spectrum.location_order, spectrum.degree_order) == (order, order)
