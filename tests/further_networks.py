"""More networks that nobody listed: ways to write attention, gates, windows and recurrences by hand."""

import torch
import torch.nn.functional as F
from foreign_networks import C, GateByHand, Network, Tokens, WrittenOut
from torch import Tensor, nn


class SlidingViews(nn.Module):
    """Neighbourhood attention on strided views of a padded map."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        k = F.pad(self.k(x), (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
        weights = torch.einsum("bchw,bchwk->bhwk", self.q(x), k).softmax(-1)
        return x + torch.einsum("bhwk,bchwk->bchw", weights, k)


class Scan(nn.Module):
    """A gated recurrence, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.keep, self.write = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        state, states = torch.zeros(x.shape[0], C), []
        keep, write = self.keep(x).sigmoid(), self.write(x)
        for step in range(x.shape[1]):
            state = keep[:, step] * state + write[:, step]
            states.append(state)
        return torch.stack(states, 1)


class Mamba(nn.Module):
    """A causal convolution, a scan, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.out = nn.Linear(C, 2 * C), nn.Linear(C, C)
        self.conv = nn.Conv1d(C, C, 3, padding=2, groups=C)
        self.scan = Scan()

    def forward(self, x: Tensor) -> Tensor:
        a, gate = self.expand(x).chunk(2, -1)
        a = self.conv(a.mT)[..., : x.shape[1]].mT
        return self.out(self.scan(F.silu(a)) * F.silu(gate))


class MambaBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mixer = nn.LayerNorm(C), Mamba()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.norm(x))


class Involution(nn.Module):
    """Each position makes the kernel that is laid on its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(C, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, C_, H, W = x.shape
        return (self.kernel(x).view(B, 1, 9, H, W) * F.unfold(x, 3, padding=1).view(B, C_, 9, H, W)).sum(2)


class DynamicKernel(nn.Module):
    """A convolution whose weights come from the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.route = nn.Linear(C, 2)
        self.kernels = nn.Parameter(torch.randn(2, C * C * 9))

    def forward(self, x: Tensor) -> Tensor:
        kernel = (self.route(x.mean((2, 3))).softmax(-1) @ self.kernels).view(C, C, 3, 3)
        return F.conv2d(x, kernel, padding=1)


class Latents(nn.Module):
    """Attention to a few latents and back."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, 4, C))
        self.gather, self.spread = (nn.MultiheadAttention(C, 1, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        latents = self.gather(self.latents, x, x)[0]
        return x + self.spread(x, latents, latents)[0]


class WindowLoop(nn.Module):
    """Attention in one window after the other, written into a new map."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = WrittenOut()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        for i in range(0, 6, 3):
            window = x[:, :, i : i + 3].flatten(2).mT
            y[:, :, i : i + 3] = self.attention(window).mT.reshape(1, C, 3, 6)
        return x + y


class AttentionGate(nn.Module):
    """A gate from a coarser map, resized."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.gate = nn.Conv2d(C, C, 3, 2, 1), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.interpolate(self.gate(self.down(x)), size=x.shape[-2:]).sigmoid()


class CoarseGate(nn.Module):
    """The same with nothing but reshapes and repetition."""

    def forward(self, x: Tensor) -> Tensor:
        B, C_, H, W = x.shape
        coarse = x.reshape(B, C_, H // 2, 2, W // 2, 2).amax((3, 5))
        return x * coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)


class LocalMlp(nn.Module):
    """A linear map of each 3 × 3 patch, summed where they overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(9 * C, 9 * C)

    def forward(self, x: Tensor) -> Tensor:
        return F.fold(self.mix(F.unfold(x, 3, padding=1).mT).mT, x.shape[-2:], 3, padding=1)


class Permutator(nn.Module):
    """Linear maps along rows and along columns."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns, self.channels = nn.Linear(6, 6), nn.Linear(6, 6), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.channels(self.rows(x) + self.columns(x.mT).mT + x)


class Recurrence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(C, C, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


class Cropped(nn.Module):
    """A convolution without padding, and a shortcut that is cropped to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:-1, 1:-1] + self.conv(x)


class Slices(nn.Module):
    """A convolution as a sum of shifted slices."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(9))

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        padded = F.pad(x, (1, 1, 1, 1))
        return sum(w * padded[:, :, i // 3 : i // 3 + H, i % 3 : i % 3 + W] for i, w in enumerate(self.weight))


class CrossCovariance(nn.Module):
    """Attention between channels, normalised over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).mT.chunk(3, 1)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(-1)
        return x + (weights @ v).mT


class Distances(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (-torch.cdist(x, x)).softmax(-1) @ x


class Context(nn.Module):
    """Something pooled is added."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x.mean((2, 3)))[:, :, None, None]


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(C, C, 3, padding=1, padding_mode="circular"), GateByHand()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu_()
        y.mul_(0.5).add_(x)
        return self.gate(y)


torch.manual_seed(1)  # the same weights in every run
FURTHER: dict[str, tuple[nn.Module, list[tuple[str, str]]]] = {
    "sliding views": (Network(SlidingViews()), [("body", "window_attention")]),
    "mamba": (Network(Tokens(MambaBlock())), [("body.body.mixer", "recurrence")]),
    "involution": (Network(Involution()), [("body", "gate")]),
    "dynamic kernel": (Network(DynamicKernel()), [("body", "gate")]),
    "latents": (Network(Tokens(Latents())), [("body.body.gather", "attention"), ("body.body.spread", "attention")]),
    "window loop": (Network(WindowLoop()), [("body.attention", "attention"), ("body.attention#2", "attention")]),
    "attention gate": (Network(AttentionGate()), [("body", "gate")]),
    "coarse gate": (Network(CoarseGate()), [("body", "gate")]),
    "local mlp": (Network(LocalMlp()), [("body", "shift")]),
    "permutator": (Network(Permutator()), [("body.rows", "token_mlp"), ("body.columns", "token_mlp")]),
    "recurrence": (Network(Tokens(Recurrence())), [("body.body.gru", "recurrence")]),
    "cropped": (Network(Cropped()), [("body.conv", "convolution")]),
    "slices": (Network(Slices()), [("body", "shift")]),
    "cross covariance": (Network(Tokens(CrossCovariance())), [("body.body", "linear_attention")]),
    "distances": (Network(Tokens(Distances())), [("body.body", "attention")]),
    "context": (Network(Context()), [("body", "context")]),
    "in place": (Network(InPlace()), [("body.conv", "convolution"), ("body.gate", "gate")]),
}
