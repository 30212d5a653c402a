"""Branches that start at zero are opened where weights are random, and only there."""

import pytest
import timm
import torch
from torch import nn

from horinsight import create_model, model_interaction_spectra, named_blocks
from horinsight.models.origin import weights_origin
from horinsight.models.zero_branches import opened_branches


class Rezero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))
        self.pos_embed = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.last = nn.Conv2d(3, 3, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)


def test_what_multiplies_is_drawn_and_what_adds_is_left():
    model = Rezero()
    words = opened_branches(model, seed=3)
    assert words == ", 2 parameters of 0 drawn that hold branches shut"
    assert model.alpha.any()
    assert model.last.weight.std() > 0
    assert not model.bias.any()
    assert not model.pos_embed.any()
    assert not model.last.bias.any()
    again = Rezero()
    opened_branches(again, seed=3)
    assert torch.equal(model.last.weight, again.last.weight), "by seed"
    assert opened_branches(model) == "", "nothing is zero any more"


@pytest.mark.parametrize(
    ("name", "kind", "orders"),
    [("convnextv2_atto", "response_norm", (2, 2)), ("gcresnet33ts", "global_context", (1, 1))],
)
def test_designs_that_were_hidden(name, kind, orders):
    """A response norm with a weight of 0, a global context whose last layer is 0: order 0 as they are built.

    This global context adds a softmax's mean of features, a product of two; where it multiplies, it has order 2.
    """
    images = torch.randn(1, 3, 96, 96)
    found = []
    for model in (timm.create_model(name).eval(), create_model(name)):
        index = next(block.index for block in named_blocks(model, image_size=(96, 96)) if block.mixer == kind)
        (spectrum,) = model_interaction_spectra(model, images, blocks=[index], max_order=4, num_tuples=2).values()
        found.append((spectrum.location_order, spectrum.degree_order))
    assert found[0] == (0, 0)
    assert found[1] == orders
    assert "drawn that hold branches shut" in weights_origin(model).source


def test_trained_weights_are_left_as_they_are():
    model = create_model("hornet_digits_iso")
    assert "drawn" not in weights_origin(model).source
