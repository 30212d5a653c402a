"""Which factor of a product mixes: matrices written down by hand, and Jacobians with the gates detached by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles import large_weights
from timm.layers import SelectiveKernel
from timm.models.focalnet import FocalModulation
from timm.models.mambaout import GatedConvBlock
from timm.models.mlp_mixer import SpatialGatingUnit
from torch import Tensor, nn

from horinsight import MixerFamily, mixing_weights, register_mixer
from horinsight.mixers.mixer_registry import unregister_mixer
from horinsight.mixing.held_weights import HeldWeights

C, H, W, S = 4, 4, 4, 3
N = H * W


class SelectiveScan(nn.Module):
    """h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t, y_t = C_t h_t + D x_t, with Δ, B and C made of x (Mamba's S6)."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.write, self.read = nn.Linear(C, C), nn.Linear(C, S), nn.Linear(C, S)
        self.log_decay, self.skip = nn.Parameter(torch.randn(C, S)), nn.Parameter(torch.randn(C))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        delta = F.softplus(self.step(x))
        return delta, -torch.exp(self.log_decay), self.write(x), self.read(x)

    def forward(self, x: Tensor) -> Tensor:
        delta, A, B, read = self.parts(x)
        kept = torch.exp(delta[..., None] * A)
        written = delta[..., None] * B[:, :, None] * x[..., None]
        state, states = torch.zeros_like(written[:, 0]), []
        for t in range(x.shape[1]):
            state = kept[:, t] * state + written[:, t]
            states.append(state)
        return (torch.stack(states, 1) @ read[..., None])[..., 0] + self.skip * x


def scan_matrix(m: SelectiveScan, x: Tensor) -> Tensor:
    """(C, N, N): C_i Π_{j < t <= i} exp(Δ_t A) Δ_j B_j, and D on the diagonal (Ali et al. 2024, Eq. 11)."""
    delta, A, B, read = m.parts(x)
    found = torch.zeros(C, N, N, dtype=x.dtype)
    for i in range(N):
        for j in range(i + 1):
            product = torch.exp(delta[0, j + 1 : i + 1].sum(0)[:, None] * A)  # (C, S)
            found[:, i, j] = (read[0, i] * product * B[0, j]).sum(1) * delta[0, j]
    return found + torch.diag_embed(m.skip[:, None].expand(C, N))


class Involution(nn.Module):
    """Each position makes the kernel that is laid on its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(C, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        around = F.unfold(x, 3, padding=1).view(len(x), C, 9, H, W)
        return (self.kernel(x).view(len(x), 1, 9, H, W) * around).sum(2)


def involution_matrix(m: Involution, x: Tensor) -> Tensor:
    kernel = m.kernel(x)[0].flatten(1)  # (9, N)
    found = torch.zeros(N, N, dtype=x.dtype)
    for i in range(N):
        for tap in range(9):
            row, col = i // W + tap // 3 - 1, i % W + tap % 3 - 1
            if 0 <= row < H and 0 <= col < W:
                found[i, row * W + col] = kernel[tap, i]
    return found.expand(C, N, N)


class Neighbourhood(nn.Module):
    """Softmax attention of each position to the 9 around it, without a matrix over positions; values as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        k, v = (F.unfold(z, 3, padding=1).view(len(x), C, 9, H, W) for z in (self.k(x), x))
        scores = (self.q(x)[:, :, None] * k).sum(1)
        return (scores.softmax(1)[:, None] * v).sum(2)


def neighbourhood_matrix(m: Neighbourhood, x: Tensor) -> Tensor:
    k = F.unfold(m.k(x), 3, padding=1).view(C, 9, N)
    weights = (m.q(x)[0].flatten(1)[:, None] * k).sum(0).softmax(0)
    found = torch.zeros(N, N, dtype=x.dtype)
    for i in range(N):
        for tap in range(9):
            row, col = i // W + tap // 3 - 1, i % W + tap % 3 - 1
            if 0 <= row < H and 0 <= col < W:
                found[i, row * W + col] = weights[tap, i]
    return found.expand(C, N, N)


class ThreeFactors(nn.Module):
    """Linear attention and its normaliser in one einsum of three features."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1
        norm = 1 / torch.einsum("bnd,bd->bn", q, k.sum(1))
        return torch.einsum("bnd,bde,bn->bne", q, torch.einsum("bnd,bne->bde", k, x), norm)


def three_factors_matrix(m: ThreeFactors, x: Tensor) -> Tensor:
    q, k = F.elu(m.q(x))[0] + 1, F.elu(m.k(x))[0] + 1
    scores = q @ k.T
    return (scores / scores.sum(1, keepdim=True)).expand(C, N, N)


class Wave(nn.Module):
    """An amplitude turned by a phase, then mixed: the amplitude is the value."""

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.amplitude = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1, groups=C)
        self.mix = nn.Conv2d(C, C, 3, padding=1, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.amplitude(x) * torch.cos(self.phase(x)))


def wave_matrix(m: Wave, x: Tensor) -> Tensor:
    eye = torch.eye(N, dtype=x.dtype).reshape(N, 1, H, W).expand(N, C, H, W)
    kernels = F.conv2d(eye, m.mix.weight, None, 1, 1, 1, C).flatten(2).permute(1, 2, 0)
    turned = torch.cos(m.phase(x))[0].flatten(1) * m.amplitude.weight.flatten()[:, None]
    return kernels * turned[:, None]


Matrix = Callable[[nn.Module, Tensor], Tensor]
APART: dict[str, tuple[Callable[[], nn.Module], str, Matrix]] = {
    "selective scan": (SelectiveScan, "tokens", scan_matrix),
    "involution": (Involution, "map", involution_matrix),
    "neighbourhood": (Neighbourhood, "map", neighbourhood_matrix),
    "three factors": (ThreeFactors, "tokens", three_factors_matrix),
    "wave": (Wave, "map", wave_matrix),
}


def entered(lies: str) -> Tensor:
    shape = {"map": (1, C, H, W), "tokens": (1, N, C)}[lies]
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", APART)
def test_the_matrix_that_is_written_down(name):
    make, lies, matrix = APART[name]
    module, x = large_weights(make().double(), 0.5).eval(), entered(lies)
    weights = mixing_weights(module, x)
    with torch.no_grad():
        expected = matrix(module, x)
    assert isinstance(weights, HeldWeights)
    assert weights.apart
    torch.testing.assert_close(weights.dense()[0], expected, rtol=1e-9, atol=1e-12)


# the same module with its gates detached by hand


def held(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """x · (f(x) / x), the factor detached."""
    return x * (f(x) / x).detach()


def focal(m: FocalModulation, x: Tensor) -> Tensor:
    q, ctx, gates = torch.split(m.f(x), m.input_split, 1)
    q, gates, mixed = q.detach(), gates.detach(), 0
    for level, layer in enumerate(m.focal_layers):
        ctx = held(F.gelu, layer[0](ctx))
        mixed = mixed + ctx * gates[:, level : level + 1]
    mixed = mixed + held(F.gelu, ctx.mean((2, 3), keepdim=True)) * gates[:, m.focal_level :]
    return m.proj(q * m.h(mixed))


class OnMaps(nn.Module):
    """A channels-last mixer of maps (B, C, H, W)."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def gated_convolution(wrapped: OnMaps, x: Tensor) -> Tensor:
    m, x = wrapped.mixer, x.permute(0, 2, 3, 1)
    spread = (x.var(-1, correction=0, keepdim=True) + m.norm.eps).rsqrt().detach()
    z = (x - x.mean(-1, keepdim=True).detach()) * spread * m.norm.weight + m.norm.bias
    g, i, c = torch.split(m.fc1(z), m.split_indices, dim=-1)
    c = m.conv(c.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return (m.fc2(F.gelu(g).detach() * torch.cat((i, c), -1)) + x).permute(0, 3, 1, 2)


def spatial_gating(m: SpatialGatingUnit, x: Tensor) -> Tensor:
    u, v = x.chunk(2, -1)
    spread = (v.var(-1, correction=0, keepdim=True) + m.norm.eps).rsqrt().detach()
    v = (v - v.mean(-1, keepdim=True).detach()) * spread * m.norm.weight + m.norm.bias
    return u.detach() * m.proj(v.transpose(-1, -2)).transpose(-1, -2)


def selective_kernel(m: SelectiveKernel, x: Tensor) -> Tensor:
    paths = torch.stack([held(F.relu, path.bn(path.conv(x))) for path in m.paths], 1)
    return (paths * m.attn(paths).detach()).sum(1)


DETACHED: dict[str, tuple[Callable[[], nn.Module], str, Matrix]] = {
    "focal modulation": (lambda: FocalModulation(C, focal_window=3, focal_level=2), "map", focal),
    "gated convolution": (lambda: OnMaps(GatedConvBlock(C)), "map", gated_convolution),
    "spatial gating": (lambda: SpatialGatingUnit(C, N), "tokens", spatial_gating),
    "strided": (lambda: nn.Conv2d(C, 3, 3, 2, 1), "map", lambda m, x: m(x)),
    "reflected": (lambda: nn.Conv2d(C, C, 3, padding=1, padding_mode="reflect"), "map", lambda m, x: m(x)),
    "transposed": (lambda: nn.ConvTranspose2d(C, C, 3, padding=1), "map", lambda m, x: m(x)),
}


def by_position(J: Tensor, lies: str) -> Tensor:
    """(C', N', C, N) of a Jacobian from one sample to one."""
    half = (J.ndim) // 2
    J = J.squeeze(half).squeeze(0)
    if lies == "map":
        return J.flatten(1, 2).flatten(3, 4)
    return J.permute(1, 0, 3, 2)


@pytest.mark.parametrize("name", DETACHED)
def test_the_jacobian_with_the_gates_detached(name):
    make, lies, detached = DETACHED[name]
    module, x = large_weights(make().double(), 0.4).eval(), entered(lies)
    weights = mixing_weights(module, x)
    torch.testing.assert_close(detached(module, x), module(x), rtol=1e-12, atol=1e-12)  # the same module
    J = by_position(torch.autograd.functional.jacobian(lambda z: detached(module, z), x), lies)
    if J.shape[0] == J.shape[2] and not (J * (1 - torch.eye(len(J)))[:, None, :, None]).any():
        expected = J.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    else:
        expected = J.square().sum(2).sqrt()
    torch.testing.assert_close(weights.dense()[0], expected, rtol=1e-9, atol=1e-12)


class WithoutRule(torch.autograd.Function):
    """Twice its input; numpy takes no batch of backward passes."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return torch.from_numpy(2 * g.numpy())


def test_functions_of_their_own_are_differentiated_one_by_one():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(N, N)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(WithoutRule.apply(x).mT).mT

    module, x = large_weights(Own().double(), 0.5), entered("tokens")
    expected = 2 * module.mix.weight.detach().expand(C, N, N)
    torch.testing.assert_close(mixing_weights(module, x).dense()[0], expected, rtol=1e-9, atol=1e-12)


class Equals(nn.Module):
    """Two features of which neither looks like a gate, mixed after their product."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1, groups=C)
        self.mix = nn.Conv2d(C, C, 3, padding=1, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.a(x) * self.b(x))


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="which is the gate and which the value cannot be told"):
        mixing_weights(Equals(), torch.randn(1, C, H, W))


def test_a_family_tells_which_part_is_a_gate_and_says_so():
    family = MixerFamily(
        "equals", lambda m: isinstance(m, Equals), lambda m: 1, gates=lambda m: (m.a,), value="b", held="a"
    )
    module, x = large_weights(Equals().double(), 0.5).eval(), entered("map")
    register_mixer(family)
    try:
        weights = mixing_weights(module, x)
        eye = torch.eye(N, dtype=x.dtype).reshape(N, 1, H, W).expand(N, C, H, W)
        kernels = F.conv2d(eye, module.mix.weight, None, 1, 1, 1, C).flatten(2).permute(1, 2, 0)
        gates = module.a(x)[0].flatten(1) * module.b.weight.flatten()[:, None]
        torch.testing.assert_close(weights.dense()[0], (kernels * gates[:, None]).detach(), rtol=1e-9, atol=1e-12)
        assert weights.declared() == {"value": "b", "held": "a"}
        assert weights.reconstruction_error < 1e-14
    finally:
        unregister_mixer("equals")
