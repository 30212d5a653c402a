"""What timm's own tests ask of a model, and how torch traces, scripts, exports and differentiates ours."""

import io
from collections import Counter

import pytest
import timm
import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from horinsight import count_macs, create_model, model_interaction_spectra, model_mixing_weights

NAMES = ["hornet_test", "hornet_test_gf", "hornet_test_iso"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning"),
]
SHALLOW = [*NAMES, ("hornet_digits_iso", 3), ("dwconv_digits_iso", 3)]
EPS = torch.finfo(torch.float32).eps


def drawn(name: str | tuple[str, int], **options) -> nn.Module:
    """A model whose branches weigh as much as its residual path, so that nothing can go wrong unseen."""
    if isinstance(name, tuple):
        name, options["depth"] = name
    model = timm.create_model(name, **{"num_classes": 7, **options}).eval()
    for key, parameter in model.named_parameters():
        if "gamma" in key:
            nn.init.uniform_(parameter, 0.5, 1.0)
    return model


def close(found: Tensor, expected: Tensor) -> None:
    """Equal up to the rounding of another order of sums, of which there are some hundred in a row."""
    torch.testing.assert_close(found, expected, rtol=0, atol=100 * EPS * float(expected.detach().abs().max()))


@pytest.mark.parametrize("name", SHALLOW, ids=str)
def test_every_parameter_has_a_gradient(name):
    model = drawn(name).train()
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize("name", SHALLOW, ids=str)
def test_default_cfg_names_the_layers_and_the_sizes(name):
    model = drawn(name, num_classes=5)
    cfg = model.default_cfg
    assert {"num_classes", "input_size", "pool_size", "mean", "std", "first_conv", "classifier"} <= set(cfg)
    assert model.get_submodule(cfg["first_conv"]).weight.shape[1] == cfg["input_size"][0]
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    features = model.forward_features(torch.zeros(1, *cfg["input_size"]))
    assert features.shape == (1, model.num_features, *cfg["pool_size"])
    assert (
        drawn(name, num_classes=0, global_pool="").forward(torch.zeros(1, *cfg["input_size"])).shape == features.shape
    )


@pytest.mark.parametrize("name", SHALLOW, ids=str)
def test_feature_levels_are_what_feature_info_says(name):
    model = drawn(name, features_only=True, in_chans=1)
    channels, reductions = model.feature_info.channels(), model.feature_info.reduction()
    assert len(channels) >= 3, "timm asks for three levels"
    maps = model(torch.randn(1, 1, 96, 64))
    assert [m.shape for m in maps] == [(1, c, 96 // r, 64 // r) for c, r in zip(channels, reductions, strict=True)]
    whole = drawn(name)
    x = torch.randn(1, 3, 64, 64)
    some = drawn(name, features_only=True, out_indices=(0, 2))
    some.model.load_state_dict(whole.state_dict(), strict=False)
    for found, expected in zip(some(x), whole.forward_intermediates(x, [0, 2], intermediates_only=True), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def traced(model: nn.Module) -> nn.Module:
    """As timm's tests trace a model with torch.fx: through torchvision's extractor, with timm's list of leaves."""
    options = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    train, evaluation = get_graph_node_names(model, tracer_kwargs=options)
    return create_feature_extractor(
        model, train_return_nodes=[train[-1]], eval_return_nodes=[evaluation[-1]], tracer_kwargs=options
    )


@pytest.mark.parametrize("name", NAMES)
def test_fx_forward_and_backward(name):
    model = drawn(name)
    graphs = [torch.fx.symbolic_trace(model), traced(model)]
    for size in [(64, 64), (33, 72)]:
        x = torch.randn(2, 3, *size)
        expected = model(x)
        for graph in graphs:
            found = graph(x)
            found = found if isinstance(found, Tensor) else next(iter(found.values()))
            assert torch.equal(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    for graph in graphs:
        graph.zero_grad()
        found = graph(x)
        (found if isinstance(found, Tensor) else next(iter(found.values()))).square().sum().backward()
        gradients = {key: p.grad for key, p in graph.named_parameters()}
        for (key, _), gradient in zip(model.named_parameters(), wanted, strict=True):
            torch.testing.assert_close(gradients[key], gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    with pytest.raises(ValueError, match="at least 32 pixels"):
        graphs[0](torch.zeros(1, 3, 31, 64))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["script", "trace", "script of fx"])
def test_torchscript_saved_and_loaded_at_other_sizes(name, how):
    model = drawn(name)
    with torch.no_grad():
        if how == "trace":
            scripted = torch.jit.trace(model, torch.randn(2, 3, 64, 64))
        else:
            scripted = torch.jit.script(model if how == "script" else torch.fx.symbolic_trace(model))
        file = io.BytesIO()
        torch.jit.save(scripted, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        for shape in [(2, 3, 64, 64), (1, 3, 96, 64), (3, 3, 33, 70)]:
            x = torch.randn(shape)
            close(loaded(x), model(x))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hornet_test_iso", {}),
        ("hornet_test_iso", {"depthwise": "gf", "gf_size": (4, 3)}),
        pytest.param("hornet_test_gf", {}, marks=pytest.mark.slow),
    ],
)
def test_export_with_named_dimensions(name, options):
    # a map of one cell is a size of its own for torch.export (0 and 1 are never symbols): 64 pixels are two cells
    model = drawn(name, **options)
    pixels = {axis: torch.export.Dim(axis, min=64, max=512) for axis in ("height", "width")}
    shapes = ({0: torch.export.Dim("batch"), 2: pixels["height"], 3: pixels["width"]},)
    exported = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=shapes).module()
    for shape in [(1, 3, 96, 96), (3, 3, 64, 67), (2, 3, 97, 128)]:
        x = torch.randn(shape)
        close(exported(x), model(x))


def channels_last(model: nn.Module) -> nn.Module:
    return model.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_memory_changes_no_number(name):
    model = drawn(name)
    x = torch.randn(2, 3, 80, 96)
    last = x.contiguous(memory_format=torch.channels_last)
    expected, weights = model(x), model_mixing_weights(model, x)
    spectra = model_interaction_spectra(model, x, num_tuples=1, max_order=2, blocks=[3])
    macs = count_macs(model, 96).macs
    other = drawn(name)
    channels_last(other).load_state_dict(model.state_dict())
    for found in (other(x), other(last), channels_last(model)(last)):
        close(found, expected)
    for key, found in model_mixing_weights(other, last).items():
        close(found.at(0, 1), weights[key].at(0, 1))
    for key, found in model_interaction_spectra(other, last, num_tuples=1, max_order=2, blocks=[3]).items():
        assert found.effects.tolist() == pytest.approx(spectra[key].effects.tolist(), rel=1e-3)
    assert count_macs(other, 96).macs == macs
    fresh = drawn(name)
    fresh.load_state_dict(other.state_dict())
    close(fresh(x), expected)


@pytest.mark.parametrize("name", SHALLOW, ids=str)
def test_every_module_is_called_once(name):
    # captum's LRP refuses a module that is called twice, DeepLIFT and hooks see the last call only
    model = drawn(name)
    calls = Counter[str]()
    for key, part in model.named_modules():
        part.register_forward_hook(lambda *_, key=key: calls.update([key]))
    model(torch.randn(1, 3, 64, 64))
    silent = [part for key, part in model.named_modules() if not calls[key]]
    assert all(isinstance(part, nn.ModuleList | nn.Sequential) for part in silent), "lists of modules are not called"
    assert max(calls.values()) == 1
    assert len({id(part) for part in model.modules()}) == len(list(model.named_modules(remove_duplicate=False)))


def test_whole_graph_compiles():
    model = create_model("hornet_test_gf")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.randn(1, 3, 64, 64)
    close(compiled(x), model(x))
