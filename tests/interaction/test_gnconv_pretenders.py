"""Modules that look like a gnConv: those that are one are treated in closed form, the others never are."""

import copy

import pytest
import torch
from gnconv_look_alikes import GNCONVS, NO_GNCONVS, DetectorsGnConv
from oracles import large_weights
from torch import nn

from horinsight import GnConv, interaction_spectrum
from horinsight.interaction.gnconv_agreement import computes_its_form
from horinsight.interaction.gnconv_effect import GnConvClosedForm, closed_form_of
from horinsight.models.gnconv_parts import GnConvParts


def double(module: nn.Module) -> nn.Module:
    """In float64, a scale that is a plain tensor too."""
    if isinstance(getattr(module, "scale", None), torch.Tensor) and "scale" in vars(module):
        module.scale = module.scale.double()
    return large_weights(module).double().eval()


@pytest.mark.parametrize("name", [name for name in GNCONVS if name != "a weight norm"])
def test_gnconvs_of_other_repositories_have_a_closed_form_that_is_right(name):
    operator = double(GNCONVS[name]())
    n, dim = len(operator.dims), operator.dims[-1]
    x = torch.randn(2, dim, 5, 6, dtype=torch.float64)
    options = {"max_order": n + 1, "num_tuples": 300, "batch_size": 300}
    assert closed_form_of(copy.deepcopy(operator).float(), x.float(), explicit=True) is not None
    closed = interaction_spectrum(operator, x, method="closed_form", **options)
    nested = interaction_spectrum(operator, x, method="nested", **options)
    assert closed.location_order == closed.degree_order == nested.location_order == nested.degree_order == n
    for k in range(n + 1):  # 95 % intervals of two estimates of one number overlap but for 0.6 % of the cases
        assert closed.ci_low[k] <= nested.ci_high[k]
        assert nested.ci_low[k] <= closed.ci_high[k]


@pytest.mark.parametrize("name", [*NO_GNCONVS, "a weight norm"])
def test_what_is_no_gnconv_is_differentiated_as_it_is(name):
    operator = double({**GNCONVS, **NO_GNCONVS}[name]())
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    assert closed_form_of(operator, x, explicit=True) is None or name == "a weight norm"
    spectrum = interaction_spectrum(operator, x, max_order=4, num_tuples=8)
    assert spectrum.degree_order == 2


class Altered(GnConv):
    """A subclass that adds something to what its parent computes."""

    def __init__(self, change, dim: int = 8, order: int = 2, **options) -> None:
        super().__init__(dim, order, **options)
        self.change = change

    def forward(self, x):
        return self.change(super().forward(x))


def at_border(y):
    scaled = y.clone()
    scaled[:, :, -1] = y[:, :, -1] * (1 + 1e-9)
    return scaled


PRETENDERS = {
    "a cube": lambda y: y + 5e-4 * y**3,
    "a cube of no size": lambda y: y + 1e-100 * y**3,
    "a cube as products": lambda y: y + 1e-30 * y * y * y,
    "a row of the border": at_border,
    "a cube in one corner": lambda y: torch.cat([y[..., :-1], y[..., -1:] + 1e-6 * y[..., -1:] ** 3], dim=-1),
    "a mean": lambda y: y + 1e-9 * y.mean((2, 3), keepdim=True),
    "a gate": lambda y: y * (1 + 1e-20 * y.mean((2, 3), keepdim=True)),
    "a detached part": lambda y: 0.5 * y + 0.5 * y.detach(),
    "a detached difference": lambda y: y + 1e-3 * (y - y.detach()),
    "a mask that is open here": lambda y: y * (y.abs().amax((1, 2, 3), keepdim=True) < 3 * y[:1].abs().max().detach()),
    "another channel": lambda y: y.roll(1, dims=1),
    "a shift": lambda y: y + 1e-9,
}


@pytest.mark.parametrize("name", PRETENDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_subclasses_that_compute_something_else(name, dtype):
    operator = large_weights(Altered(PRETENDERS[name]).to(dtype))
    x = torch.randn(2, 8, 6, 5, dtype=dtype)
    assert closed_form_of(operator, x, explicit=True) is None
    assert closed_form_of(operator, x, explicit=False) is None


def test_no_cell_escapes():
    for cell in range(9 * 8):
        at = torch.zeros(9, 8).index_fill(0, torch.tensor(cell // 8), 1)
        at[:, torch.arange(8) != cell % 8] = 0
        operator = large_weights(Altered(lambda y, at=at: y + 1e-6 * at.to(y) * y.roll(1, -1)))
        assert closed_form_of(operator, torch.randn(1, 8, 9, 8), explicit=True) is None, cell


def test_no_picture_escapes():
    x = torch.randn(1, 8, 6, 5) * torch.tensor([1.0, 0.5, 4.0])[:, None, None, None]
    operator = large_weights(Altered(lambda y: y))
    largest = operator(x).detach().abs().amax((1, 2, 3)).max()
    operator.change = lambda y: y * (1 + 0.1 * (y.detach().abs().amax((1, 2, 3), keepdim=True) > 0.9 * largest))
    assert closed_form_of(operator, x[:2], explicit=True) is not None
    assert closed_form_of(operator, x, explicit=True) is None


def test_comparing_puts_no_other_weights_into_the_module():
    """Other threads may be running it."""

    class Watched(GnConv):
        def forward(self, x):
            seen.append(self.proj_in.weight is weight)
            return super().forward(x)

    seen = []
    operator = Watched(8, 2)
    weight = operator.proj_in.weight
    assert closed_form_of(operator, torch.randn(2, 8, 6, 5), explicit=True) is not None
    assert seen
    assert all(seen)


def test_a_subclass_that_computes_the_same_has_a_closed_form():
    x = torch.randn(2, 8, 6, 5)
    assert closed_form_of(large_weights(Altered(lambda y: y)), x, explicit=True) is not None


def test_a_kink_that_is_far_counts_where_its_tangent_is_not_taken():
    operator = large_weights(Altered(lambda y: y.clamp(-1e9, 1e9)))
    x = torch.randn(2, 8, 6, 5)
    assert closed_form_of(operator, x, explicit=True) is not None
    assert closed_form_of(operator, x, explicit=False) is None


def test_the_order_is_that_of_nested_derivatives():
    operator = large_weights(Altered(PRETENDERS["a cube"], dim=4, order=1).double())
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    spectrum = interaction_spectrum(operator, x, max_order=6, num_tuples=2)
    assert spectrum.convention["estimator"].startswith("nested")
    assert spectrum.degree_order == 5, "three times degree 2"


class OtherConv(nn.Conv2d):
    """A convolution whose weight is not all that it computes with."""

    def forward(self, x):
        return super().forward(x) + 1e-9 * x


class Squared(nn.Conv2d):
    """A product where a gnConv has a linear map."""

    def forward(self, x):
        y = super().forward(x)
        return y + 1e-60 * y * y


def patched(operator):
    forward = operator.forward
    operator.forward = lambda x: forward(x) + 1e-9 * x
    return operator


def with_patched_part(operator):
    forward = operator.pws[0].forward
    operator.pws[0].forward = lambda p: 1.001 * forward(p)
    return operator


def with_part(name, part):
    def change(operator):
        setattr(operator, name, part)
        return operator

    return change


def with_hook(path, register, hook):
    def change(operator):
        getattr(operator.get_submodule(path), register)(hook)
        return operator

    return change


ALTERED = {
    "forward": patched,
    "forward of a part": with_patched_part,
    "f of a subclass": with_part("dwconv", OtherConv(12, 12, 7, padding=3, groups=12)),
    "φ_out of a subclass": with_part("proj_out", Squared(8, 8, 1)),
    "another product": with_part("gate", type("Halved", (nn.Module,), {"forward": lambda _, a, b: 0.5 * a * b})()),
    "gates missing": with_part("gates", nn.ModuleList()),
    "widths changed": with_part("dims", [8, 4]),
    "forward hook": with_hook("", "register_forward_hook", lambda m, i, y: y * 1.001),
    "forward hook on a part": with_hook("dwconv", "register_forward_hook", lambda m, i, y: y * 1.001),
    "pre hook on a part": with_hook("pws.0", "register_forward_pre_hook", lambda m, i: (i[0] * i[0],)),
    "backward hook": with_hook("proj_out", "register_full_backward_hook", lambda m, gi, go: (gi[0] * 2,)),
}


@pytest.mark.parametrize("name", ALTERED)
def test_instances_that_were_altered(name):
    x = torch.randn(2, 8, 6, 5)
    operator = large_weights(GnConv(8, 2))
    assert closed_form_of(operator, x, explicit=True) is not None
    assert closed_form_of(large_weights(ALTERED[name](operator)), x, explicit=True) is None


def test_hooks_for_all_modules_are_noticed():
    operator, x = large_weights(GnConv(8, 2)), torch.randn(2, 8, 6, 5)
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, y: y * 2 if isinstance(m, nn.Conv2d) else y)
    try:
        assert closed_form_of(operator, x, explicit=True) is None
    finally:
        handle.remove()
    assert closed_form_of(operator, x, explicit=True) is not None


@pytest.mark.parametrize("kind", ["conv", "pool", "gf"])
@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("std", [None, 0.4, 1e-3])
def test_rounding_never_refuses_a_gnconv(kind, order, std):
    """What is not compared for an unaltered GnConv would agree, with weights of any size: values, gradient, degree."""
    for dtype in (torch.float32, torch.float64):
        operator = GnConv(64, order, depthwise=kind).to(dtype).requires_grad_(False)
        if std is not None:
            large_weights(operator, std=std)
        form = GnConvClosedForm(GnConvParts.of(operator))
        wide, narrow = form.to(torch.float64), form.to(torch.float32)
        x = torch.randn(1, 64, 9, 7, dtype=dtype)
        for factor in (1e-2, 1, 30):
            assert computes_its_form(operator, wide, narrow, factor * x, explicit=True)


def test_comparing_leaves_the_module_alone():
    operator = DetectorsGnConv().train()
    before = copy.deepcopy(operator.state_dict())
    state = torch.get_rng_state()
    assert closed_form_of(operator, torch.randn(1, 8, 6, 6, generator=torch.Generator()), explicit=True) is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert operator.training
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in operator.parameters())
    assert all(torch.equal(value, before[key]) for key, value in operator.state_dict().items())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in operator.modules())
