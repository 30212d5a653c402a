"""Mixers with their gates held: their weights against matrices that are written down by hand, entry by entry."""

import pytest
import torch
import torch.nn.functional as F
from oracles import large_weights
from timm.layers import EcaModule, Mlp, SelectiveKernel, SEModule
from timm.layers.grn import GlobalResponseNorm
from timm.models.davit import ChannelAttention
from timm.models.efficientvit_mit import LiteMLA
from timm.models.focalnet import FocalModulation
from timm.models.mambaout import GatedConvBlock
from timm.models.metaformer import Pooling
from timm.models.mlp_mixer import SpatialGatingUnit
from torch import Tensor, nn

from horinsight import model_adaptivity, model_mixing_weights, named_blocks
from horinsight.mixing.factored_weights import ConvolutionWeights
from horinsight.mixing.held_weights import HeldWeights

C, H, W = 6, 4, 5
N = H * W


class On(nn.Module):
    """A mixer behind a stem: on maps, channels-last maps, tokens (B, N, C) or (B, C, N)."""

    def __init__(self, mixer: nn.Module, lies: str) -> None:
        super().__init__()
        self.stem, self.mixer, self.lies = nn.Conv2d(3, C, 2, 2), mixer, lies

    def entry(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        if self.lies == "last":
            return x.permute(0, 2, 3, 1)
        if self.lies == "tokens":
            return x.flatten(2).transpose(1, 2)
        return x.flatten(2) if self.lies == "tokens last" else x

    def forward(self, image: Tensor) -> Tensor:
        return self.mixer(self.entry(image))


class LinearAttention(nn.Module):
    """φ(q) (φ(k)ᵀ v) / (φ(q) Σ φ(k)), φ = elu + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(C, C) for _ in range(3))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        return (q @ (k.mT @ v)) / (q @ k.sum(1, keepdim=True).mT)


class Star(nn.Module):
    """act(f1(x)) · f2(x) after a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1, groups=C)
        self.f1, self.f2 = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.relu6(self.f1(x)) * self.f2(x)


class Gated(nn.Module):
    """g(x) · conv(x), without an activation: the convolution is the value."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.conv = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 3, padding=1, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * self.conv(x)


class SpatialGate(nn.Module):
    """CBAM's: one gate a position, from the mean and the largest channel around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


def kernels(conv: nn.Conv2d) -> Tensor:
    """(C, N, N) of a depthwise convolution that keeps its map."""
    eye = torch.eye(N, dtype=torch.float64).reshape(N, 1, H, W).expand(N, conv.out_channels, H, W)
    return F.conv2d(eye, conv.weight, None, 1, conv.padding, 1, conv.groups).flatten(2).permute(1, 2, 0)


def diagonal(gates: Tensor) -> Tensor:
    """(C, N, N) of gates (C, N)."""
    return torch.diag_embed(gates)


def se(m: SEModule, x: Tensor) -> Tensor:
    gate = torch.sigmoid(m.fc2(F.relu(m.fc1(x.mean((2, 3), keepdim=True)))))
    return diagonal(gate[0].flatten(1).expand(C, N))


def eca(m: EcaModule, x: Tensor) -> Tensor:
    gate = torch.sigmoid(m.conv(x.mean((2, 3))[:, None]))[0, 0]
    return diagonal(gate[:, None].expand(C, N))


def grn(m: GlobalResponseNorm, x: Tensor) -> Tensor:
    norms = x.square().sum((1, 2)).sqrt()[0]  # channels last
    return diagonal((1 + m.weight * norms / (norms.mean() + m.eps))[:, None].expand(C, N))


def token_mlp(m: Mlp, x: Tensor) -> Tensor:
    a = m.fc1(x)[0]  # (C, hidden)
    Phi = 0.5 * (1 + torch.erf(a / 2**0.5))
    return m.fc2.weight @ (Phi[:, :, None] * m.fc1.weight)


def star(m: Star, x: Tensor) -> Tensor:
    gate = F.relu6(m.f1(m.conv(x)))[0].flatten(1) * m.f2.weight.flatten()[:, None]
    return gate[:, :, None] * kernels(m.conv)


def gated(m: Gated, x: Tensor) -> Tensor:
    return m.gate(x)[0].flatten(1)[:, :, None] * kernels(m.conv)


def spatial_gate(m: SpatialGate, x: Tensor) -> Tensor:
    gate = torch.sigmoid(m.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))
    return diagonal(gate[0].flatten(1).expand(C, N))


def max_pool(m: nn.MaxPool2d, x: Tensor) -> Tensor:
    _, places = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    return F.one_hot(places[0].flatten(1), N).double()


def pooling(m: Pooling, x: Tensor) -> Tensor:
    eye = torch.eye(N, dtype=torch.float64).reshape(N, 1, H, W)
    return m.pool(eye).flatten(1).T.expand(C, N, N) - torch.eye(N, dtype=torch.float64)


APART = {
    "squeeze and excitation": (lambda: SEModule(C, rd_channels=3), "map", se),
    "eca": (lambda: EcaModule(C), "map", eca),
    "response norm": (lambda: GlobalResponseNorm(C), "last", grn),
    "token mlp": (lambda: Mlp(N, 7), "tokens last", token_mlp),
    "star": (Star, "map", star),
    "gated": (Gated, "map", gated),
    "spatial gate": (SpatialGate, "map", spatial_gate),
    "max pooling": (lambda: nn.MaxPool2d(3, 2, 1), "map", max_pool),
    "mean pooling": (Pooling, "map", pooling),
}


def weights_of(model: nn.Module, image: Tensor) -> HeldWeights:
    (weights,) = model_mixing_weights(model, image).values()
    single = image.dtype == torch.float32 or any(isinstance(m, LiteMLA) for m in model.modules())  # computes in float32
    assert weights.reconstruction_error < (1e-5 if single else 1e-12)
    return weights


def image_of(dtype: torch.dtype = torch.float64, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 2 * H, 2 * W, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("name", APART)
def test_channels_that_are_kept_apart(name):
    make, lies, expected = APART[name]
    model = large_weights(On(make(), lies).double(), 0.5).eval()
    image = image_of()
    weights = weights_of(model, image)
    with torch.no_grad():
        h = expected(model.mixer, model.entry(image))
    assert weights.apart
    torch.testing.assert_close(weights.dense()[0], h.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights.channel_mean()[0], h.mean(0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights.absolute()[0], h.abs().sum(0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights.at(1, 1)[0].flatten(1), h[:, weights.width + 1], rtol=1e-9, atol=1e-12)
    whole = (weights.dense()[0] @ weights.values[0].flatten(1)[:, :, None])[..., 0].unflatten(
        1, weights.mixed.shape[2:]
    )
    torch.testing.assert_close(whole + weights.offset[0], weights.mixed[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights.apply(), weights.mixed)


def test_linear_attention_is_its_implicit_matrix():
    model = large_weights(On(LinearAttention(), "tokens").double(), 0.5).eval()
    image = image_of()
    weights = weights_of(model, image)
    q, k, _ = model.mixer.parts(model.entry(image))
    A = (q @ k.mT / (q @ k.sum(1, keepdim=True).mT))[0]
    strength = model.mixer.v.weight.square().sum(1).sqrt()  # of W_v's rows: over the input channels
    assert not weights.apart
    torch.testing.assert_close(weights.dense()[0], A * strength[:, None, None], rtol=1e-9, atol=1e-12)


MIXED = {
    "lite mla": (lambda: LiteMLA(C, C, heads=1, dim=C, scales=()), "map"),
    "channel attention": (lambda: ChannelAttention(C, num_heads=2), "tokens"),
    "focal modulation": (lambda: FocalModulation(C, focal_window=3, focal_level=2), "map"),
    "gated convolution": (lambda: GatedConvBlock(C), "last"),
    "spatial gating": (lambda: SpatialGatingUnit(C, N), "tokens"),
    "selective kernel": (lambda: SelectiveKernel(C, C), "map"),
    "strided": (lambda: nn.Conv2d(C, 4, 3, 2, 1), "map"),
    "even": (lambda: nn.Conv2d(C, C, 2, padding="same", dilation=2), "map"),
    "reflected": (lambda: nn.Conv2d(C, C, 3, padding=1, padding_mode="reflect"), "map"),
    "transposed": (lambda: nn.ConvTranspose2d(C, C, 3, padding=1), "map"),
}


@pytest.mark.parametrize("name", MIXED)
def test_whatever_it_is_the_identity_holds(name):
    """Σ_j J_ij v_j + b is what the module put out, at every position, in float64 and float32."""
    make, lies = MIXED[name]
    model = large_weights(On(make(), lies).double(), 0.4).eval()
    weights = weights_of(model, image_of())
    atol = 1e-4 if name == "lite mla" else 1e-11  # computes in float32
    for row in range(weights.height):
        for col in range(weights.width):
            query = weights.held[0] + weights.query(row, col)
            J = weights.images[0].rows([query], channels=True)[0]
            found = (J * weights.images[0].leaf[0].T).sum((1, 2)) + weights.offset[0, :, row, col]
            torch.testing.assert_close(found, weights.mixed[0, :, row, col], rtol=1e-9, atol=atol)
    found, expected = weights.at_middle()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=atol)
    assert weights_of(model.float(), image_of(torch.float32)).reconstruction_error < 1e-5


@pytest.mark.parametrize("name", ["squeeze and excitation", "token mlp", "star"])
def test_a_batch_is_its_images_one_by_one(name):
    make, lies, _ = APART[name]
    model = large_weights(On(make(), lies), 0.5).eval()
    images = image_of(torch.float32, 3)
    together = weights_of(model, images)
    for image in range(3):
        alone = weights_of(model, images[image : image + 1])
        torch.testing.assert_close(together.channel_mean()[image], alone.channel_mean()[0])
    (found,) = model_adaptivity(model, images).values()
    assert 0 < found.input_adaptivity.value < 1


@pytest.mark.parametrize(("kernel", "groups", "dilation"), [(3, 1, 1), (5, 2, 1), (3, 3, 2)])
def test_full_convolutions_are_read_by_output_channel(kernel, groups, dilation):
    conv = nn.Conv2d(C, C, kernel, padding=dilation * (kernel // 2), groups=groups, dilation=dilation)
    model = large_weights(On(conv, "map").double(), 0.5).eval()
    weights = weights_of(model, image_of())
    assert isinstance(weights, ConvolutionWeights)
    J = torch.autograd.functional.jacobian(lambda z: conv(z[None])[0].flatten(1), torch.zeros(C, H, W).double())
    expected = J.flatten(3).square().sum(2).sqrt()  # (C', N, M)
    torch.testing.assert_close(weights.dense()[0], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights.apply(), weights.mixed)


def test_what_overwrites_its_output_is_read_before():
    """A residual network adds in place to what its gate put out."""

    class InPlace(On):
        def forward(self, image: Tensor) -> Tensor:
            x = self.entry(image)
            return self.mixer(x).add_(x).relu_()

    model = large_weights(InPlace(SEModule(C, rd_channels=3), "map").double(), 0.5).eval()
    image = image_of()
    torch.testing.assert_close(weights_of(model, image).dense()[0], se(model.mixer, model.entry(image)).detach())


def test_gates_that_cannot_be_told_are_refused_in_one_line():
    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            both = F.conv2d(x, torch.cat([self.one.weight, self.two.weight]), padding=1)
            return both[:, :C] * both[:, C:]

    with pytest.raises(ValueError, match=r"block 1 \(mixer, .*neither has mixed more.*--influence") as error:
        model_mixing_weights(On(Squared(), "map"), torch.randn(1, 3, 8, 8))
    assert "\n" not in str(error.value)


def test_a_recurrence_is_refused():
    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(C, C, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0]

    model = large_weights(On(Lstm(), "tokens"), 0.5)
    model.pretrained_cfg = {"input_size": (3, 8, 10)}  # else it is looked at with 224 pixels, 50 176 steps
    assert [block.mixer for block in named_blocks(model, image_size=(8, 10))] == ["recurrence"]
    with pytest.raises(ValueError, match="do not reproduce what the module computes"):
        model_mixing_weights(model, torch.randn(1, 3, 8, 10))


def test_channels_that_meet_at_one_place_alone_are_not_apart():
    """A gate that is 0 but at one position, in the second image: what is mixed there must not be lost."""

    class Spot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(C, C, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            gate = F.pad(x.amax((2, 3), keepdim=True)[..., :1, :1] * 0 + 1, (1, W - 2, 1, H - 2))
            return x + gate * self.conv(x)

    model = large_weights(On(Spot(), "map").double(), 0.5).eval()
    weights = weights_of(model, image_of(batch=2))
    assert not weights.apart
    conv = model.mixer.conv.weight.square().sum(1).sqrt()
    assert weights.at(1, 1)[1, :, 0, 0].tolist() == pytest.approx(conv[:, 0, 0].tolist())
