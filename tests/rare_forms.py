"""Networks of plain mixers in rare forms: what they return, how they are called, how they keep their parts."""

from collections import namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from foreign_networks import C, GateByHand, Network, Tokens, WrittenOut
from rare_mixers import VisionGraph
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def conv(stride: int = 1, channels: int = C) -> nn.Conv2d:
    return nn.Conv2d(channels, C, 3, stride, 1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv, self.gate = nn.GroupNorm(1, C), conv(), GateByHand()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate(F.gelu(self.conv(self.norm(x))))


class HighResolution(nn.Module):
    """Two resolutions that exchange what they have (arXiv 1908.07919), as a list."""

    def __init__(self) -> None:
        super().__init__()
        self.thin, self.fine, self.coarse = conv(2), conv(), conv()
        self.up, self.down = nn.Conv2d(C, C, 1), conv(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        a, b = self.fine(x), self.coarse(self.thin(x))
        return [
            (a + F.interpolate(self.up(b), scale_factor=2.0, mode="nearest")).relu(),
            (b + self.down(a)).relu(),
        ]


class FeaturePyramid(nn.Module):
    """Lateral 1 × 1 convolutions, sums from the top down by repetition, a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv(2)
        self.lateral = nn.ModuleList(nn.Conv2d(C, C, 1) for _ in range(2))
        self.out = nn.ModuleDict({"p1": conv(), "p2": conv()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.first(x)
        b = self.second(a)
        high = self.lateral[1](b)
        low = self.lateral[0](a) + high.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return {"p1": self.out["p1"](low), "p2": self.out["p2"](high)}


class ShuffleUNet(nn.Module):
    """Patches merged by a linear layer, a convolution, up by pixel shuffle written with einops' reshapes, a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up = nn.Linear(4 * C, C), conv(), nn.Conv2d(C, 4 * C, 1)
        self.out = conv(channels=2 * C)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        y = x.view(B, C, H // 2, 2, W // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(3)
        y = self.up(self.deep(self.down(y).permute(0, 3, 1, 2)))
        y = y.view(B, C, 2, 2, H // 2, W // 2).permute(0, 1, 4, 2, 5, 3).reshape(x.shape)
        return self.out(torch.cat((x, y), 1)) + x + y


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.expand, self.shuffle = conv(), nn.Conv2d(C, 4 * C, 3, padding=1), nn.PixelShuffle(2)
        self.last = conv()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.shuffle(self.expand(x + self.body(x))))


@dataclass
class Output:
    logits: Tensor
    maps: tuple[Tensor, ...] = ()
    loss: Tensor | None = None


Named = namedtuple("Named", "logits aux")


class Returning(nn.Module):
    """A network that wraps its results up."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.stem, self.block, self.head, self.form = nn.Conv2d(3, C, 4, 4), Block(), nn.Linear(C, 5), form

    def forward(self, x: Tensor) -> object:
        y = self.block(self.stem(x))
        logits = self.head(y.mean((2, 3)))
        forms = {
            "dataclass": Output(logits, (y,)),
            "named tuple": Named(logits, {"map": y}),
            "nested": {"out": [logits, {"features": (y, None)}], "size": 3},
            "nothing": None,
        }
        return forms[self.form]


class Shared(nn.Module):
    """One block under two names, called by the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, C, 4, 4), Block()
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.second(self.stem(x)))


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.blocks, self.reentrant = nn.Conv2d(3, C, 4, 4), nn.ModuleList((Block(), Block())), reentrant

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for block in self.blocks:
            y = checkpoint(block, y, use_reentrant=self.reentrant)
        return y


class FunctionsOnly(nn.Module):
    """One module: parameters, and everything in its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.kernel = nn.Parameter(torch.randn(C, 3, 4, 4) / 7), nn.Parameter(torch.randn(C, C, 3, 3) / 9)
        self.qkv, self.head = nn.Parameter(torch.randn(3 * C, C) / 3), nn.Parameter(torch.randn(5, C))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(F.conv2d(F.conv2d(x, self.stem, stride=4), self.kernel, padding=1))
        q, k, v = F.linear(y.flatten(2).mT, self.qkv).chunk(3, -1)
        y = y.flatten(2).mT + F.scaled_dot_product_attention(q, k, v)
        return F.linear(y.mean(1), self.head)


class Hidden(nn.Module):
    """Parts in a plain list and behind a bound method, which no container has registered."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.parts = nn.Conv2d(3, C, 4, 4), [Block()]

    def run(self, x: Tensor) -> Tensor:
        return self.parts[0](x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.stem(x))


class ByKeyword(nn.Module):
    """Mixers that are called with names alone."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(C, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(query=x, key=x, value=x, need_weights=False)[0]


class EarlyExit(nn.Module):
    """A block raises and the network goes on without it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.wrong = nn.Conv2d(3, C, 4, 4), Block(), nn.Linear(C + 1, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        try:
            y = self.wrong(y)
        except RuntimeError:
            y = self.block(y)
        return y


class Routed(nn.Module):
    """A mixture of experts: each token goes through one of two layers, by its own logits."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(C, 2), nn.ModuleList(nn.Linear(C, C) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        weights, chosen = self.router(flat).softmax(-1).max(-1)
        out = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            mine = chosen == i
            out[mine] = expert(flat[mine]) * weights[mine, None]
        return x + out.view_as(x)


class PrunedTokens(nn.Module):
    """The half of the tokens with the largest logits goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.first, self.second = nn.Linear(C, 1), WrittenOut(), WrittenOut()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        best = self.score(x).squeeze(-1).topk(x.shape[1] // 2, dim=1).indices
        kept = self.second(x.gather(1, best[..., None].expand(-1, -1, C)))
        return kept.mean(1)


class Pruned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, C, 4, 4), PrunedTokens()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x).flatten(2).mT)


def bodiless(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, C, 4, 4), *parts)


BLOCK = [("conv", "convolution"), ("gate", "gate")]


def in_block(path: str, call: str = "") -> list[tuple[str, str]]:
    return [(f"{path}.{name}{call}", kind) for name, kind in BLOCK]


torch.manual_seed(3)  # the same weights in every run
FORMS: dict[str, tuple[nn.Module, list[tuple[str, str]]]] = {
    "high resolution": (
        bodiless(HighResolution()),
        [(f"1.{name}", "convolution") for name in ("thin", "fine", "coarse", "down")],
    ),
    "feature pyramid": (
        bodiless(FeaturePyramid()),
        [(f"1.{name}", "convolution") for name in ("first", "second", "out.p1", "out.p2")],
    ),
    "shuffle unet": (Network(ShuffleUNet()), [("body.deep", "convolution"), ("body.out", "convolution")]),
    "super-resolution": (
        bodiless(SuperResolution()),
        [(f"1.{name}", "convolution") for name in ("body", "expand", "last")],
    ),
    **{form: (Returning(form), in_block("block")) for form in ("dataclass", "named tuple", "nested", "nothing")},
    "shared": (Shared(), [*in_block("first"), *in_block("first", "#2")]),
    "checkpointed": (Checkpointed(False), [*in_block("blocks.0"), *in_block("blocks.1")]),
    "checkpointed twice": (Checkpointed(True), [*in_block("blocks.0"), *in_block("blocks.1")]),
    "functions only": (FunctionsOnly(), [("", "attention")]),
    "hidden": (Hidden(), [("", "gate")]),
    "by keyword": (Network(Tokens(ByKeyword())), [("body.body.attention", "attention")]),
    "early exit": (EarlyExit(), in_block("block")),
    "routed": (Network(Tokens(Routed())), []),
    "pruned": (Pruned(), [("body.first", "attention"), ("body.second", "attention")]),
    "channels last": (Network(Block()).to(memory_format=torch.channels_last), in_block("body")),
    "graph and block": (
        Network(nn.Sequential(Block(), Tokens(VisionGraph()))),
        [*in_block("body.0"), ("body.1.body", "sampling")],
    ),
}
