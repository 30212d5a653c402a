"""Networks and requests that are not what the finder expects: the right answer, or one line."""

import pytest
import timm
import torch
from foreign_networks import C, GateByHand, Network
from rare_forms import Block
from torch import Tensor, nn

from horinsight.mixers.found import found_mixers

BLOCK = [("body.conv", "convolution"), ("body.gate", "gate")]
SMALL = {"image_size": (24, 24)}


def found(model: nn.Module, **options) -> list[tuple[str, str]]:
    return [(mixer.name, mixer.kind) for mixer in found_mixers(model, **(options or SMALL))]


def refused(model: object, error: type[Exception] = ValueError, **options) -> str:
    with pytest.raises(error) as raised:
        found_mixers(model, **(options or SMALL))
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, C, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + self.conv(y)


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.two, self.second = TwoInputs(), torch.randn(1, 3, 24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(x, self.second)


class GateOfAThinnedMap(nn.Module):
    """The map changes its size inside the mixer, and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(C, C, 3, 2, 1), nn.ConvTranspose2d(C, C, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x)).sigmoid()


class Missing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return {"features": x}["logits"]


def test_networks_without_positions():
    assert found(nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5), nn.ReLU(), nn.Linear(5, 5))) == []
    assert "does not take images of 24x24 pixels" in refused(nn.Sequential(nn.Linear(10, 5), nn.Linear(5, 2)))


def test_networks_that_need_more_than_an_image():
    assert "missing 1 required positional argument: 'y'" in refused(TwoInputs())
    assert found(Held()) == [("two.conv", "convolution")]  # the second call has no position of the image


def test_maps_that_change_their_size_inside_a_mixer():
    (mixer,) = found_mixers(Network(GateOfAThinnedMap()), **SMALL)
    assert (mixer.path, mixer.kind, mixer.stride, mixer.input.size) == ("body", "gate", 1, (6, 6))


def test_train_mode():
    model = nn.Sequential(nn.Conv2d(3, C, 4, 4), nn.BatchNorm2d(C), nn.Dropout(0.5), GateByHand()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert found(model) == [("3", "gate")]
    assert all(part.training for part in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision(dtype):
    assert found(Network(Block()).to(dtype)) == BLOCK


def test_models_without_data():
    with torch.device("meta"):
        model, swin = Network(Block()), timm.create_model("swin_tiny_patch4_window7_224")
    assert found(model) == BLOCK
    assert {kind for _, kind in found(swin, image_size=(224, 224))} == {"window_attention"}


def test_one_channel():
    assert len(found(timm.create_model("test_vit", in_chans=1), image_size=(160, 160))) == 6
    assert found(nn.Sequential(nn.Conv2d(1, C, 3), nn.Conv2d(C, C, 3))) == [("0", "convolution"), ("1", "convolution")]


def test_modes_of_torch():
    with torch.inference_mode():
        assert found(Network(Block())) == BLOCK
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert found(Network(Block())) == BLOCK
    with torch.inference_mode():
        images = torch.randn(2, 3, 24, 24)
    assert found(Network(Block()), images=images) == BLOCK


@pytest.mark.filterwarnings("ignore")
def test_compiled_and_wrapped_networks():
    assert found(torch.compile(Network(Block()))) == [(f"_orig_mod.{name}", kind) for name, kind in BLOCK]
    assert found(nn.DataParallel(Network(Block()))) == [(f"module.{name}", kind) for name, kind in BLOCK]


def test_a_gate_in_the_networks_own_forward_is_not_hidden():
    """A traced graph has lost its modules: the gate is the network's own, the convolution a module of it."""
    graph = torch.fx.symbolic_trace(Network(Block()).eval())
    mixers = found_mixers(graph, **SMALL)
    assert [(mixer.path, mixer.kind, mixer.holds_others) for mixer in mixers] == [
        ("", "gate", True),
        ("body.conv", "convolution", False),
    ]


@pytest.mark.filterwarnings("ignore")
def test_scripted_and_traced_networks_are_refused():
    model = nn.Sequential(nn.Conv2d(3, C, 4, 4), nn.Conv2d(C, C, 3))
    for made in (torch.jit.script(model), torch.jit.trace(model, torch.randn(1, 3, 24, 24))):
        assert "its parts cannot be watched" in refused(made)


@pytest.mark.filterwarnings("ignore")
def test_requests_that_make_no_sense():
    model = Network(Block())
    assert "expects a module, got function" in refused(lambda x: x, TypeError)
    assert "(height, width)" in refused(model, image_size=24)
    assert "both" in refused(model, image_size=(24, 24), images=torch.randn(1, 3, 24, 24))
    assert "(B, C, H, W)" in refused(model, images=torch.randn(3, 24, 24))
    assert "0x4 pixels" in refused(model, image_size=(0, 4))
    assert "KeyError: 'logits'" in refused(Missing())
    assert "Conv3d does not take images" in refused(nn.Conv3d(3, C, 3))
