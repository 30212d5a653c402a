"""Networks that nobody listed, each with what there is to find: path of each mixer and its kind."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

C = 8


class Network(nn.Module):
    """A stem of 4 × 4 patches, one body, a head over the mean."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, C, 4, 4)
        self.body = body
        self.head = nn.Linear(C, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Tokens(nn.Module):
    """A body that works on (B, N, C)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).reshape(x.shape)


class WrittenOut(nn.Module):
    """Attention in a block's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(C, C) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2) / C**0.5
        return x + self.out(scores.softmax(-1) @ self.v(x))


class Einsum(nn.Module):
    """Attention by einsum, softmax by hand, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, C // 2)).unbind(2)
        weights = torch.einsum("bnhd,bmhd->bhnm", q, k).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        return x + torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2)


class GateByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]


class Shift(nn.Module):
    """Channels roll, a 1 × 1 convolution reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return x + self.mix(torch.cat((a.roll(1, 2), b.roll(-1, 3)), 1))


class ShiftOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat((a.roll(1, 2), b.roll(-1, 3)), 1)


class ShiftElsewhere(nn.Module):
    """A shift and its reader in two modules: the shift mixes, the linear map reads."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = ShiftOnly()
        self.mix = nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.shift(x))


class SliceShift(nn.Module):
    """A shift written into slices of a new tensor."""

    def forward(self, x: Tensor) -> Tensor:
        shifted = torch.zeros_like(x)
        shifted[:, :, 1:] = x[:, :, :-1]
        return x - shifted


class Fourier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(C)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(self.norm(x), dim=(1, 2)).real  # over tokens and channels


class FourierBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = Fourier()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(x)


class FilterByHand(nn.Module):
    """A global filter: pooled by one transform, spread by the other."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(C, 6, 4, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.filter)
        return torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho")


class Rows(nn.Module):
    """A recurrent network over each row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(C, C // 2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        B, C_, H, W = x.shape
        y, _ = self.lstm(x.permute(0, 2, 3, 1).reshape(B * H, W, C_))
        return x + y.reshape(B, H, W, C_).permute(0, 3, 1, 2)


class Axial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.MultiheadAttention(C, 2, batch_first=True)
        self.columns = nn.MultiheadAttention(C, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        B, C_, H, W = x.shape
        y = x.permute(0, 2, 3, 1).reshape(B * H, W, C_)
        y = y + self.rows(y, y, y, need_weights=False)[0]
        z = y.reshape(B, H, W, C_).transpose(1, 2).reshape(B * W, H, C_)
        z = z + self.columns(z, z, z)[0]
        return z.reshape(B, W, H, C_).permute(0, 3, 2, 1)


class PooledKeys(nn.Module):
    """Keys and values of a map of half the resolution; fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Conv2d(C, C, 1), nn.Conv2d(C, 2 * C, 1)
        self.reduce = nn.Conv2d(C, C, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).flatten(2).transpose(1, 2)[:, None]
        k, v = self.kv(self.reduce(x)).flatten(2).transpose(1, 2)[:, None].chunk(2, -1)
        return x + F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(C, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        y, z = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
        grid = torch.stack((z, y), -1) + 0.3 * self.offset(x).permute(0, 2, 3, 1)
        return F.grid_sample(x, grid, align_corners=True)


class ConvAndExcitation(nn.Module):
    """A residual block: a convolution, then a squeeze-and-excitation as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1)
        self.excite = GateByHand()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.excite(self.conv(x).relu_())


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(C, C, 3, 2, 1), nn.Conv2d(C, C, 3, padding=1)
        self.up = nn.ConvTranspose2d(C, C, 2, 2)
        self.fuse = nn.Conv2d(2 * C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.deep(self.down(x).relu())
        y = self.up(y) + F.interpolate(y, scale_factor=2, mode="bilinear")
        return self.fuse(torch.cat((x, y), 1))


class Neighbourhood(nn.Module):
    """Attention over the 3 × 3 neighbours by unfold."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(C, C, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        B, C_, H, W = x.shape
        k, v = (F.unfold(f(x), 3, padding=1).view(B, C_, 9, H * W) for f in (self.k, self.v))
        scores = (self.q(x).view(B, C_, 1, H * W) * k).sum(1, keepdim=True)
        return x + (scores.softmax(2) * v).sum(2).view(B, C_, H, W)


class DepthToSpace(nn.Module):
    """Patches go into channels and come back: nothing but a linear map of patches of 2 × 2."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4 * C, 4 * C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.mix(F.pixel_unshuffle(x, 2)), 2)


class InlineTokenMlp(nn.Module):
    """MLP-Mixer's two halves in one forward."""

    def __init__(self, tokens: int = 36) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(C)
        self.tokens = nn.Sequential(nn.Linear(tokens, 20), nn.GELU(), nn.Linear(20, tokens))
        self.channels = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(x)


class LinearAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(C, C) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.q(x) @ (self.k(x).transpose(1, 2) @ self.v(x))


class Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class GatedConvolution(nn.Module):
    """The gate is a module of its own, the convolution another."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, C)
        self.proj = nn.Conv2d(C, 2 * C, 1)
        self.conv = nn.Conv2d(C, C, 3, padding=1, groups=C)
        self.product = Product()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.proj(self.norm(x)).chunk(2, 1)
        return self.product(a, self.conv(b))


class GatedBlock(nn.Module):
    """A residual block with a gated convolution, and a gated MLP that is no gate of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = GatedConvolution()
        self.fc, self.out = nn.Conv2d(C, 4 * C, 1), nn.Conv2d(2 * C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(x)
        a, b = self.fc(x).chunk(2, 1)
        return x + self.out(F.silu(a) * b)


class Running(nn.Module):
    """A running mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


class Coordinate(nn.Module):
    """Gates from rows and from columns."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.rows(x.mean(3, keepdim=True)).sigmoid() * self.columns(x.mean(2, keepdim=True)).sigmoid()


class Branches(nn.Module):
    """A container that pools in its own forward beside a branch with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one = nn.Conv2d(C, C // 2, 3, padding=1), nn.Conv2d(C, C // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.conv(x), self.one(F.avg_pool2d(x, 3, 1, 1))), 1)


class Twice(nn.Module):
    """One convolution, called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1)
        self.never = nn.Conv2d(C, C, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.silu(self.conv(x)))


class Windows(nn.Module):
    """Shifted windows around attention: the roll is undone, the windows are the attention's."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.attention = WrittenOut()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        B, C_, H, W = x.shape
        y = x.roll((-self.shift, -self.shift), (2, 3)).permute(0, 2, 3, 1).reshape(B, H // 3, 3, W // 3, 3, C_)
        y = self.attention(y.transpose(2, 3).reshape(-1, 9, C_)).reshape(B, H // 3, W // 3, 3, 3, C_)
        y = y.transpose(2, 3).reshape(B, H, W, C_).permute(0, 3, 1, 2)
        return x + y.roll((self.shift, self.shift), (2, 3))


class Pointwise(nn.Module):
    """Nothing meets: an activation by hand, a norm over channels by hand, a 1 × 1 convolution, a flip and back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.flip(2)).flip(2)
        y = (y - y.mean(1, keepdim=True)) * torch.rsqrt(y.var(1, keepdim=True) + 1e-5)
        return x + y * torch.sigmoid(y)


# name → (network, what there is to find)
FOREIGN: dict[str, tuple[nn.Module, list[tuple[str, str]]]] = {}
torch.manual_seed(0)  # the same weights in every run


def _enter(name: str, body: nn.Module, *mixers: tuple[str, str], tokens: bool = False) -> None:
    prefix = "body.body" if tokens else "body"
    found = [(f"{prefix}.{path}".rstrip("."), kind) for path, kind in mixers]
    FOREIGN[name] = (Network(Tokens(body) if tokens else body), found)


_enter("written out", WrittenOut(), ("", "attention"), tokens=True)
_enter("einsum", Einsum(), ("", "attention"), tokens=True)
_enter("gate by hand", GateByHand(), ("", "gate"))
_enter("shift", Shift(), ("", "shift"))
_enter("shift elsewhere", ShiftElsewhere(), ("shift", "shift"))
_enter("slice shift", SliceShift(), ("", "shift"))
_enter("fourier", nn.Sequential(FourierBlock()), ("0.mixer", "fft"), tokens=True)
_enter("filter by hand", FilterByHand(), ("", "fft"))
_enter("rows", Rows(), ("lstm", "recurrence"))
_enter("axial", Axial(), ("rows", "attention"), ("columns", "attention"))
_enter("pooled keys", PooledKeys(), ("", "attention"))
_enter("deformable", Deformable(), ("", "sampling"))
_enter("conv and excitation", ConvAndExcitation(), ("conv", "convolution"), ("excite", "gate"))
_enter("unet", UNet(), ("down", "convolution"), ("deep", "convolution"))
_enter("neighbourhood", Neighbourhood(), ("", "window_attention"))
_enter("depth to space", DepthToSpace(), ("", "shift"))
_enter("inline token mlp", InlineTokenMlp(), ("tokens", "token_mlp"), tokens=True)
_enter("linear attention", LinearAttention(), ("", "linear_attention"), tokens=True)
_enter("gated block", GatedBlock(), ("mixer", "gate"))
_enter("running", Running(), ("", "recurrence"), tokens=True)
_enter("coordinate", Coordinate(), ("", "gate"))
_enter("branches", Branches(), ("", "pooling"), ("conv", "convolution"))
_enter("twice", Twice(), ("conv", "convolution"), ("conv#2", "convolution"))
_enter("windows", Windows(0), ("attention", "window_attention"))
_enter("shifted windows", Windows(1), ("attention", "window_attention"))
_enter("pointwise", Pointwise())
_enter(
    "encoder layer",
    nn.TransformerEncoderLayer(C, 2, 16, batch_first=True),
    ("self_attn", "attention"),
    tokens=True,
)
