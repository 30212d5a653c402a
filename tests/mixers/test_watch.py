"""Looking leaves no trace, and what it sees depends on the network alone."""

import copy
import threading

import pytest
import timm
import torch
import torch.nn.functional as F
from foreign_networks import FOREIGN, Network, Tokens, Twice
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from horinsight.mixers.found import found_mixers


def names(model: nn.Module, **options) -> list[tuple[str, str]]:
    return [(mixer.name, mixer.kind) for mixer in found_mixers(model, **({"image_size": (24, 24)} | options))]


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not today")


@pytest.mark.parametrize("body", [nn.Sequential(nn.Dropout(), Twice()), nn.Sequential(Twice(), Raises())])
def test_the_model_is_given_back_as_it_was(body):
    model = Network(body).train()
    model.stem.eval()
    model.head.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [part.training for part in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    attributes = [set(part.__dict__) for part in model.modules()]
    hooks = len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)
    state, path = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    if isinstance(body[-1], Raises):
        with pytest.raises(
            ValueError, match="does not take images of 24x24 pixels, one by one and alone: RuntimeError: not today"
        ):
            found_mixers(model, image_size=(24, 24))
    else:
        found_mixers(model, image_size=(24, 24))
    assert [part.training for part in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [set(part.__dict__) for part in model.modules()] == attributes
    assert (len(torch_module._global_forward_hooks), len(torch_module._global_forward_pre_hooks)) == hooks
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() == path
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_other_threads_may_run_the_same_network():
    """Their calls are neither seen nor disturbed."""
    model, expected = FOREIGN["axial"]
    stop, failures = threading.Event(), []

    def others() -> None:
        while not stop.is_set():
            with torch.no_grad():
                if not bool(model(torch.zeros(1, 3, 24, 24)).isfinite().all()):
                    failures.append("not finite")

    thread = threading.Thread(target=others)
    thread.start()
    try:
        found = [sorted(names(model)) for _ in range(3)]
    finally:
        stop.set()
        thread.join()
    assert found == [sorted(expected)] * 3
    assert not failures


class Fused(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.qkv, self.fused = nn.Linear(8, 24), fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.mT).softmax(-1) @ v
        return x + y[:, 0]


def test_fused_or_written_out_is_the_same():
    fused, plain = (found_mixers(Network(Tokens(Fused(on))), image_size=(24, 24)) for on in (True, False))
    assert [(m.path, m.kind, m.order) for m in fused] == [(m.path, m.kind, m.order) for m in plain]
    assert fused[0].kind == "attention"


@pytest.mark.parametrize("fast", [True, False])
def test_torchs_transformers_show_their_attention_whatever_path_they_would_take(fast):
    body = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=fast)
    assert names(Network(Tokens(body)).eval()) == [
        ("body.body.layers.0.self_attn", "attention"),
        ("body.body.layers.1.self_attn", "attention"),
    ]


def test_train_mode_and_bfloat16_change_nothing():
    model, expected = FOREIGN["conv and excitation"]
    assert names(copy.deepcopy(model).train()) == expected
    assert names(copy.deepcopy(model).bfloat16()) == expected
    assert names(copy.deepcopy(model).double(), image_size=None, images=torch.zeros(2, 3, 24, 24).double()) == expected


@pytest.mark.parametrize("name", ["hornet_test", "test_vit", "test_coatnet", "test_mambaout"])
def test_a_model_without_data_has_the_same_mixers(name):
    """On the meta device there are shapes and no values: what reads values is all that can differ."""
    with torch.device("meta"):
        empty = timm.create_model(name)
    full = timm.create_model(name)
    assert names(empty, image_size=None) == names(full, image_size=None)


class Pyramid(nn.Module):
    """Returns a dictionary of lists."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 4, 4), body

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        return {"maps": [self.body(self.stem(x))]}


def test_networks_may_return_what_they_like():
    assert names(Pyramid(Twice())) == [("body.conv", "convolution"), ("body.conv#2", "convolution")]


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_what_cannot_be_run_on_images_alone_is_said_in_one_line():
    with pytest.raises(
        ValueError, match="TwoInputs does not take images of 24x24 pixels, one by one and alone: TypeError"
    ) as error:
        found_mixers(TwoInputs(), image_size=(24, 24))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"images of shape \(B, C, H, W\), got \(3, 24, 24\)"):
        found_mixers(TwoInputs(), images=torch.zeros(3, 24, 24))
    with pytest.raises(ValueError, match="image_size or images, got both"):
        found_mixers(TwoInputs(), images=torch.zeros(1, 3, 24, 24), image_size=(24, 24))


def test_a_network_without_positions_has_no_mixers():
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 4))
    assert found_mixers(mlp, image_size=(8, 8)) == []


def test_a_network_in_one_forward_is_its_own_mixer():
    (mixer,) = found_mixers(nn.Conv2d(3, 3, 3, padding=1), image_size=(6, 6))
    assert (mixer.path, mixer.name, mixer.block_path) == ("", "", "")
