"""Labels move like data. The oracle is the data: each pixel has the number of its cell as its value."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from horinsight.mixers.labels import Grids
from horinsight.mixers.watch import watched

CHANNELS, SIDE = 4, 6


class Moves(nn.Module):
    def __init__(self, *moves: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.moves = moves
        self.seen = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        for move in self.moves:
            x = move(x)
        self.seen = x
        return x


def write_slices(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, 1:] = x[:, :, :-1]
    y[:, 1, :, ::2] = x[:, 0, :, 1::2]
    return y


def write_into_a_view(x: Tensor) -> Tensor:
    y = x.clone(memory_format=torch.contiguous_format)
    rows = y.view(1, CHANNELS, -1)
    rows[:, :, 3:9] = x.flatten(2)[:, :, -6:]
    return y


def write_twice(x: Tensor) -> Tensor:
    y = x.new_empty(x.shape).zero_()
    y.copy_(x)
    y[:, :2].copy_(x[:, 2:].flip(3))
    y[:, 3].zero_()
    return y


def in_place(x: Tensor) -> Tensor:
    return x.clone().transpose_(2, 3).unsqueeze_(1).squeeze_(1)


def put(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, torch.tensor([4, 1, 0]), 2] = x[:, :, 0, :3]
    return y


def scattered(x: Tensor) -> Tensor:
    index = torch.arange(SIDE).flip(0)[None, None, :, None].expand(1, CHANNELS, SIDE, SIDE)
    return torch.zeros_like(x).scatter(2, index, x)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "flip": lambda x: x.flip(3),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "windows": lambda x: x.reshape(CHANNELS, 2, 3, 2, 3).permute(1, 3, 2, 4, 0).reshape(4, 9, CHANNELS),
    "cat": lambda x: torch.cat((x[:, :2].roll(1, 2), x[:, 2:].roll(-1, 3)), 1),
    "stack": lambda x: torch.stack((x, torch.zeros_like(x), x.mT)),
    "split": lambda x: torch.cat(x.split((1, 3), 1)[::-1], 1),
    "unbind": lambda x: torch.stack(x.unbind(2)[::-1], 2),
    "chunk": lambda x: x.chunk(2, 3)[1],
    "zeros": lambda x: F.pad(x, (1, 2, 0, 1)),
    "crop": lambda x: F.pad(x, (-1, 1, -2, 0)),
    "reflection": lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"),
    "replication": lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"),
    "circular": lambda x: F.pad(x, (2, 1, 1, 2), mode="circular"),
    "im2col": lambda x: F.unfold(x, 3, padding=1, dilation=1),
    "col2im": lambda x: F.fold(F.unfold(x, 2, stride=2), (SIDE, SIDE), 2, stride=2),
    "sliding view": lambda x: x.unfold(2, 3, 1).unfold(3, 2, 2),
    "unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "shuffle": lambda x: F.pixel_shuffle(x, 2),
    "shuffled channels": lambda x: F.channel_shuffle(x, 2),
    "index": lambda x: x[:, :, torch.tensor([5, 0, 0]), :][..., torch.tensor([1, 3])],
    "mask": lambda x: x.flatten(2)[:, :, torch.arange(36) % 3 == 0],
    "index_select": lambda x: x.index_select(3, torch.tensor([4, 4, 0])),
    "gather": lambda x: x.gather(3, torch.arange(SIDE).flip(0).expand(1, CHANNELS, SIDE, SIDE)),
    "take_along": lambda x: torch.take_along_dim(x, torch.zeros(1, 1, 1, 1, dtype=torch.long), 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 2),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1).contiguous(),
    "as_strided": lambda x: x.as_strided((1, CHANNELS, 2, 3), (0, 36, 12, 2), 7),
    "tril": lambda x: x.tril(),
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3),
    "half": lambda x: x.double().float(),
    "complex": lambda x: torch.view_as_real(torch.complex(x, x)),
    "write slices": write_slices,
    "write into a view": write_into_a_view,
    "write twice": write_twice,
    "in place": in_place,
    "put": put,
    "scatter": scattered,
}
KEEP_THE_SHAPE = (
    "roll flip cat split unbind col2im tril in_place write_slices write_into_a_view write_twice put scatter"
)


def check(*moves: Callable[[Tensor], Tensor]) -> None:
    cells = Grids().cells(SIDE, SIDE).expand(1, CHANNELS, SIDE, SIDE).contiguous()
    model = Moves(*moves)
    root, _ = watched(model, cells)
    assert not root.events
    if root.output is None:  # nothing of the image is left
        assert not model.seen.any()
        return
    assert root.output.shape == model.seen.shape
    assert torch.equal(root.output.cells.expand(model.seen.shape), model.seen)


@pytest.mark.parametrize("name", MOVES)
def test_labels_move_like_data(name):
    check(MOVES[name])


@given(st.lists(st.sampled_from([name.replace("_", " ") for name in KEEP_THE_SHAPE.split()]), min_size=2, max_size=5))
def test_one_after_the_other(names):
    check(*(MOVES[name] for name in names))
