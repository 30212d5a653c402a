"""torch.func on gnConvs, blocks and models: equal to loops over samples and directions, in float64."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, vmap

from horinsight import GnConv
from horinsight.models.hornet import HorNetBlock

KINDS = ["conv", "pool", "gf"]


def drawn(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def per_sample_gradients_equal_the_loop(module: nn.Module, x: Tensor) -> None:
    """`x`: (N, C, H, W)."""
    parameters = dict(module.named_parameters())

    def loss(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(module, weights, (sample[None],)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, x)
    for index, sample in enumerate(x):
        one = torch.autograd.grad(loss(parameters, sample), list(parameters.values()))
        for (key, values), expected in zip(found.items(), one, strict=True):
            # sums of at most a few thousand terms; some cancel
            atol = 1e-11 * max(float(g.abs().max()) for g in one)
            torch.testing.assert_close(values[index], expected, rtol=0, atol=atol, msg=key)
    batched = vmap(module)(x[:, None])
    torch.testing.assert_close(batched, torch.stack([module(sample[None]) for sample in x]), rtol=1e-10, atol=1e-12)


@settings(max_examples=12)
@given(
    order=st.integers(1, 4),
    kind=st.sampled_from(KINDS),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    whole_block=st.booleans(),
)
def test_vmap_and_per_sample_gradients(order, kind, size, whole_block):
    make = HorNetBlock if whole_block else GnConv
    per_sample_gradients_equal_the_loop(drawn(make(16, order, depthwise=kind)), torch.randn(3, 16, *size).double())


@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_gf", "hornet_test_iso"])
def test_per_sample_gradients_of_models(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, layer_scale_init_value=0.7).double().eval()
    per_sample_gradients_equal_the_loop(model, torch.randn(2, 3, 64, 64, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_jacobians_and_hessian(order, kind):
    gnconv = drawn(GnConv(8, order, depthwise=kind, gf_size=(2, 2) if kind == "gf" else None))
    x = torch.randn(1, 8, 2, 3, dtype=torch.float64)
    n = x.numel()
    y = gnconv(x.requires_grad_())
    rows = [torch.autograd.grad(out, x, retain_graph=True)[0].flatten() for out in y.flatten()]
    jacobian = torch.stack(rows)
    for transform in (jacfwd, jacrev):
        torch.testing.assert_close(transform(gnconv)(x).reshape(n, n).detach(), jacobian, rtol=1e-9, atol=1e-10)

    def energy(z: Tensor) -> Tensor:
        return gnconv(z).square().sum()

    (first,) = torch.autograd.grad(energy(x), x, create_graph=True)
    twice = torch.stack([torch.autograd.grad(d, x, retain_graph=True)[0].flatten() for d in first.flatten()])
    atol = 1e-11 * float(twice.abs().max())
    torch.testing.assert_close(hessian(energy)(x).reshape(n, n).detach(), twice, rtol=1e-9, atol=atol)
