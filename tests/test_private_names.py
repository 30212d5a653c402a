"""Names that torch, timm and captum do not promise to keep: what we expect of them, and where it was checked."""

from importlib.metadata import version
from types import FunctionType

import pytest
import timm
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, LayerDeepLift
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn

from horinsight.attribution.captum_private import (
    DEEP_LIFTS,
    SUPPORTED_LAYERS_WITH_RULES,
    SUPPORTED_NON_LINEAR_LAYERS,
    PropagationRule,
)
from horinsight.capture import called_through
from horinsight.interaction.derivative_graph import operators_met
from horinsight.mixers.blocks import named_blocks
from horinsight.models.timm_private import SqueezeExcite, feature_take_indices
from horinsight.operators.nonlinear_functions import NONLINEAR_FUNCTIONS
from horinsight.torch_private import SET_GRAD_ENABLED, TO_COPY, DispatchMode, saved_exponent, undispatched

CHECKED = {"torch": "2.14.1", "timm": "1.0.20 and 1.0.31", "captum": "0.9.0"}


def said(package: str, file: str) -> str:
    return f"checked on {package} {CHECKED[package]}, this is {package} {version(package)}: see {file}"


def test_feature_take_indices():
    file = said("timm", "models/timm_private.py")
    assert feature_take_indices(5) == ([0, 1, 2, 3, 4], 4), file
    assert feature_take_indices(5, 2) == ([3, 4], 4), file
    assert feature_take_indices(5, [1, -2]) == ([1, 3], 3), file


def test_the_squeeze_and_excitation_of_efficientnets():
    file = said("timm", "models/timm_private.py")
    model = timm.create_model("test_efficientnet")
    names = [name for name, module in model.named_modules() if isinstance(module, SqueezeExcite)]
    assert names, file
    assert [block.name for block in named_blocks(model) if block.mixer == "squeeze_excitation"] == names, file


def test_the_attention_of_a_swin_block():
    """`_attn` is all between the norm and the residual sum."""
    file = said("timm", "interaction/model_spectra.py")
    block = SwinTransformerBlock(8, (4, 4), num_heads=2, head_dim=4, window_size=2, shift_size=1).eval()
    x = torch.randn(2, 4, 4, 8)
    z = x + block._attn(block.norm1(x))
    torch.testing.assert_close(block(x), z + block.mlp(block.norm2(z)), msg=lambda text: f"{file}\n{text}")


def test_operators_of_a_thread_are_seen():
    class Names(DispatchMode):
        names: tuple[str, ...] = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names += (str(func),)
            if func is TO_COPY:
                kwargs = {**(kwargs or {}), "dtype": torch.float64}
            return func(*args, **(kwargs or {}))

    file = said("torch", "torch_private.py")
    with Names() as mode:
        narrowed = torch.ones(2, dtype=torch.float64).mul(2).to(torch.float32)
    assert mode.names[-2:] == ("aten.mul.Tensor", "aten._to_copy.default"), file
    assert narrowed.dtype == torch.float64, file


def test_switching_gradients_off_is_one_function():
    file = said("torch", "torch_private.py")

    class Seen(torch.overrides.TorchFunctionMode):
        calls: tuple[bool, ...] = ()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is SET_GRAD_ENABLED:
                self.calls += args
            return func(*args, **(kwargs or {}))

    with Seen() as mode, torch.no_grad():
        torch.ones(1)
    assert mode.calls == (False, True), file


OPENED = {  # what `explicit_operators` and `OpenAttention` look into, and which call is to be seen there
    F.gumbel_softmax: ((torch.ones(1, 3),), {}),
    F.multi_head_attention_forward: (
        (*3 * [torch.ones(2, 1, 4)], 4, 2, torch.ones(12, 4), torch.ones(12), None, None, False, 0.0, torch.ones(4, 4),
         torch.ones(4)),
        {"need_weights": False},
    ),
}  # fmt: skip


@pytest.mark.parametrize("function", OPENED, ids=lambda function: function.__name__)
def test_functions_of_torch_run_without_their_dispatch(function):
    """Rebuilt, they never ask whether a mode wants the call, which it would get again, endlessly."""
    file = said("torch", "torch_private.py")
    args, kwargs = OPENED[function]
    calls = []

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    with Seen():
        function(*args, **kwargs)
    assert function in calls, file
    calls.clear()
    with Seen():
        undispatched(function)(*args, **kwargs)
    assert function not in calls, file
    assert calls, file


def test_what_dispatches_asks_by_the_three_names():
    """Every function of torch.nn.functional that asks, asks by a name that `undispatched` replaces."""
    asking = {name for name in vars(F) if name.startswith(("has_torch_function", "handle_torch_function"))}
    known = {"has_torch_function", "has_torch_function_unary", "has_torch_function_variadic", "handle_torch_function"}
    assert asking == known, said("torch", "torch_private.py")
    assert any(isinstance(function, FunctionType) for function in NONLINEAR_FUNCTIONS)


NODES = {  # a function of (2, 3) → the name of its node, as the table of linear and kinked names has it
    "Add": lambda z: z + z,
    "Mul": lambda z: z * z,
    "Mm": lambda z: z @ z.T,
    "Addmm": lambda z: F.linear(z, torch.ones(4, 3), torch.ones(4)),
    "Convolution": lambda z: F.conv1d(z[None], torch.ones(1, 2, 1)),
    "Sum": lambda z: z.sum(),
    "Mean": lambda z: z.mean((0, 1)),
    "Permute": lambda z: z.permute(1, 0),
    "FftR2C": torch.fft.rfft,
    "Relu": torch.relu,
    "Abs": torch.abs,
    "MaxPool2DWithIndices": lambda z: F.max_pool2d(z[None, None], 2),
    "Pow": lambda z: z**3,
    "Exp": torch.exp,
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_of_the_graph_have_their_names(name):
    z = torch.rand(2, 3, requires_grad=True)
    node = NODES[name](z).grad_fn
    assert node.name() == f"{name}Backward{node.name()[-1]}", said("torch", "interaction/derivative_graph.py")
    met = operators_met(NODES[name](z))
    expected = ((name,), ()) if name in ("Relu", "Abs", "MaxPool2DWithIndices") else ((), (name,) * (name == "Exp"))
    assert (met.kinks, met.unlisted) == expected, said("torch", "interaction/derivative_graph.py")


def test_a_power_keeps_its_exponent():
    z = torch.rand(2, requires_grad=True)
    assert saved_exponent((z**3).grad_fn) == 3, said("torch", "torch_private.py")


def test_compiled_modules_hold_what_they_compile():
    file = said("torch", "lending.py")
    inner = nn.ReLU()
    assert called_through(torch.compile(inner)) is inner, file
    inner.compile()
    assert vars(inner)["_compiled_call_impl"] is not None, file


def test_tensors_count_who_writes_into_them():
    z = torch.ones(2)
    before = z._version
    z.add_(1)
    assert z._version == before + 1, said("torch", "capture.py")


def test_layers_that_captum_has_rules_for():
    file = said("captum", "attribution/captum_private.py")
    assert {nn.Conv2d, nn.Linear} <= set(SUPPORTED_LAYERS_WITH_RULES), file
    assert nn.ReLU in SUPPORTED_NON_LINEAR_LAYERS, file
    for name in ("forward_hook", "forward_pre_hook_activations", "_manipulate_weights"):
        assert callable(getattr(PropagationRule, name)), file


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize("explainer", [lambda model: DeepLift(model), lambda model: LayerDeepLift(model, model[0])])
def test_captums_deep_lift_hooks_modules_by_apply(explainer):
    given = []

    class Applied(nn.Sequential):
        def apply(self, fn):
            given.append(fn.__module__)
            return super().apply(fn)

    explainer(Applied(nn.Linear(2, 2))).attribute(torch.ones(1, 2, requires_grad=True), target=0)
    assert given, said("captum", "attribution/captum_private.py")
    assert set(given) <= DEEP_LIFTS, said("captum", "attribution/captum_private.py")
