"""How often the 95 % intervals of interaction effects hold the truth, by operator, pictures and order k.

python experiments/coverage.py --output coverage.jsonl             # goes on where it was stopped
python experiments/coverage.py --output coverage.jsonl --quick     # few repetitions, one and eight pictures

The truth is the effect at the same pictures from at least 50 times as many draws and from all repetitions together (a
sum over draws that stop early, over their number, has no bias by Wald's identity; one repetition is a 400th of it).
Each repetition draws anew, with the seed 1, 2, … of its number; weights and pictures have seed 0, the truth has 10 000.
As many chains are drawn as the package draws where nobody says how many. Beside the draws and the interval of the
package stand those of before (the first 100 repetitions): single neighbours, 32 draws a picture, percentile bootstrap
by draw.
"""

if __name__ == "coverage":
    # numba and others look for the package of this name, and find whatever lies on the path
    raise ImportError("experiments/coverage.py is a script, not the package coverage")

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers.squeeze_excite import SEModule
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from horinsight import GnConv, create_model
from horinsight.capture import capture
from horinsight.data.datasets import digits
from horinsight.data.preprocess import preprocessing
from horinsight.interaction.chains import Chains
from horinsight.interaction.draw_schedule import draw_plan, scheduled_draws
from horinsight.interaction.effect_interval import effect_intervals
from horinsight.interaction.expected_squares import expected_squares, is_cheap
from horinsight.interaction.gnconv_effect import GnConvClosedForm, closed_form_of
from horinsight.interaction.locations import location_shares
from horinsight.interaction.nested_derivative import mixed_derivatives, receptive_field
from horinsight.interaction.order import Draws, effect_sizes
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.operators.open_attention import OpenAttention
from horinsight.operators.positions import positions_of
from horinsight.operators.tangent import explicit_operators

PICTURES = (1, 2, 8, 16)
DRAWS_BEFORE = 32  # a picture
REPETITIONS_BEFORE = 100
TRUTH_TIMES = 50
LEAST_TRUTH_DRAWS = {"closed form": 2**14, "nested": 3200}  # a picture
TRUTH_SEED = 10_000
SIDE = 10  # of the maps
NUM_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Setting:
    """An operator with pictures.

    Attributes:
        operator: a module.
        points: number of pictures → what enters it; more pictures begin with the fewer.
        order: the highest k that is not zero.
        nested: without the closed form.
    """

    operator: nn.Module
    points: Callable[[int], Tensor]
    order: int
    nested: bool = False


class SelfAttention(nn.Module):
    """Plain self-attention of one head on tokens; logits are multiplied by `sharpness`."""

    def __init__(self, dim: int, sharpness: float = 1.0) -> None:
        super().__init__()
        self.qkv, self.sharpness = nn.Linear(dim, 3 * dim), sharpness

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mixed: Tensor = (self.sharpness * q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return mixed


class LinearAttention(nn.Module):
    """Attention without softmax."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mixed: Tensor = q @ (k.transpose(-2, -1) @ v) / x.shape[1]
        return mixed


class SpatialGating(nn.Module):
    """gMLP's unit: one half of the channels times a linear map over the positions of the other."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.over_positions, self.halves = nn.Linear(num_tokens, num_tokens), nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.halves(x).chunk(2, dim=-1)
        gated: Tensor = u * self.over_positions(v.transpose(1, 2)).transpose(1, 2)
        return gated


class FourConvolutions(nn.Module):
    """x times four depthwise convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        product = x
        for conv in self.convs:
            product = product * conv(x)
        return product


class TokenMLP(nn.Module):
    """MLP-Mixer's mixer: two linear maps over positions with a GELU between, on (B, C, N)."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_tokens, 2 * num_tokens), nn.GELU(), nn.Linear(2 * num_tokens, 16))
        self.back = nn.Linear(16, num_tokens)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.back(self.layers(x.transpose(1, 2))).transpose(1, 2)
        return mixed


class LogNormalTaps(nn.Module):
    """x times two depthwise convolutions whose taps spread over orders of magnitude."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False) for _ in range(2)
        )
        for conv in self.convs:
            conv.weight.data = torch.exp(1.5 * torch.randn_like(conv.weight)) * torch.randn_like(conv.weight).sign()

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = x * self.convs[0](x) * self.convs[1](x)
        return product


def drawn_weights(module: nn.Module) -> nn.Module:
    """Weights so large that no order is small by accident."""
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        nn.init.normal_(parameter, std=fan_in**-0.5)
    return module


def drawn_points(shape: tuple[int, ...]) -> Callable[[int], Tensor]:
    """Pictures of noise, of somewhat different scale."""
    generator = torch.Generator().manual_seed(0)
    every = torch.randn(max(PICTURES), *shape, generator=generator)
    scale = torch.exp(0.3 * torch.randn(max(PICTURES), *[1] * len(shape), generator=generator))
    return lambda num: (every * scale)[:num]


def sparse_points(shape: tuple[int, ...]) -> Callable[[int], Tensor]:
    """Pictures of noise in a tenth of the places, zero elsewhere."""
    points = drawn_points(shape)
    there = torch.rand(max(PICTURES), 1, *shape[1:], generator=torch.Generator().manual_seed(3)) < 0.1
    return lambda num: points(num) * there[:num]


def digit_points(model: nn.Module, block: nn.Module) -> Callable[[int], Tensor]:
    """What enters a block of the trained network for held-out digits."""
    held_out = digits()[1]
    prepare = preprocessing(model)
    images = torch.stack([prepare(picture) for picture in held_out.pictures[: max(PICTURES)]])
    with torch.no_grad(), capture({"": block}, keep=lambda _, call: call.input.detach().clone()) as calls:
        model(images)
    (points,) = calls[""]
    return lambda num: points[:num]


def settings() -> Iterator[tuple[str, Callable[[], Setting]]]:
    """By name, each made when it is asked for."""

    def gnconv(channels: int, order: int, *, nested: bool = False, **kind: Any) -> Setting:
        shape = (channels, SIDE, SIDE)
        return Setting(drawn_weights(GnConv(channels, order, **kind)), drawn_points(shape), order, nested)

    for order in range(1, 6):
        for channels in (16, 64):
            yield f"g{order}Conv C={channels}", lambda c=channels, n=order: gnconv(c, n)
    kinds: dict[str, dict[str, Any]] = {
        "3x3": {"kernel_size": 3},
        "pool": {"depthwise": "pool", "kernel_size": 3},
        "GF": {"depthwise": "gf", "gf_size": (SIDE, SIDE // 2 + 1)},
    }
    for kind, options in kinds.items():
        for order in (3, 5):
            channels = 64 if order == 5 else 16
            yield f"g{order}Conv C={channels} {kind}", lambda c=channels, n=order, o=options: gnconv(c, n, **o)
    yield "g3Conv C=16, nested", lambda: gnconv(16, 3, nested=True)
    tokens, side = drawn_points((49, 32)), 7
    yield "attention C=32", lambda: Setting(drawn_weights(SelfAttention(32)), tokens, 2)
    yield "timm attention C=32", lambda: Setting(drawn_weights(Attention(32, num_heads=4, qkv_bias=True)), tokens, 2)
    maps = drawn_points((16, side, side))
    yield "SE C=16", lambda: Setting(drawn_weights(SEModule(16)), maps, 1)
    yield "MLP-Mixer C=16", lambda: Setting(drawn_weights(TokenMLP(49)), drawn_points((49, 16)), 0)
    yield "log-normal taps C=16", lambda: Setting(LogNormalTaps(16), maps, 2)

    def trained(index: int) -> Setting:
        model = create_model("hornet_digits_iso").eval()
        block = model.blocks[index].gnconv
        return Setting(block, digit_points(model, block), block.order)

    for index in (0, 3, 10):
        yield f"hornet_digits_iso, block {index + 1}", lambda b=index: trained(b)


def further_settings() -> Iterator[tuple[str, Callable[[], Setting]]]:
    """Operators that were not looked at while the draws and the intervals were made."""
    drawn, points, tokens = drawn_weights, drawn_points, drawn_points((36, 16))
    yield "further: g3Conv C=8 5x5", lambda: Setting(drawn(GnConv(8, 3, kernel_size=5)), points((8, 6, 6)), 3)
    yield (
        "further: g3Conv C=8 5x5, nested",
        lambda: Setting(drawn(GnConv(8, 3, kernel_size=5)), points((8, 6, 6)), 3, True),
    )
    yield "further: g4Conv C=32", lambda: Setting(drawn(GnConv(32, 4)), points((32, SIDE, SIDE)), 4)
    yield "further: g3Conv C=16, sparse", lambda: Setting(drawn(GnConv(16, 3)), sparse_points((16, SIDE, SIDE)), 3)
    for order, channels, side in ((2, 24, 8), (4, 32, SIDE)):
        name, size = f"further: g{order}Conv C={channels} GF", (side, side // 2 + 1)
        yield (
            name,
            lambda n=order, c=channels, s=side, z=size: Setting(  # type: ignore[misc]
                drawn(GnConv(c, n, depthwise="gf", gf_size=z)), points((c, s, s)), n
            ),
        )
    yield "further: linear attention C=16", lambda: Setting(drawn(LinearAttention(16)), tokens, 2)
    yield "further: sharp attention C=16", lambda: Setting(drawn(SelfAttention(16, 3.0)), tokens, 2)
    yield "further: spatial gating C=12", lambda: Setting(drawn(SpatialGating(36, 12)), points((36, 12)), 1)
    yield "further: x times four convolutions", lambda: Setting(drawn(FourConvolutions(8)), points((8, 8, 8)), 4)


@contextmanager
def chains_at(setting: Setting, num_pictures: int) -> Iterator[tuple[Chains, GnConvClosedForm | None]]:
    """Explicit derivatives of a setting's operator, as `interaction_spectrum` takes them."""
    x = setting.points(num_pictures)
    operator = setting.operator.eval().requires_grad_(False)
    positions = positions_of(x)
    flat = positions.flat_operator(operator)
    points = positions.flat(x)
    with torch.no_grad():
        output = flat(points)
    sigma = points.transpose(0, 1).flatten(1).std(1, correction=0)
    form = None if setting.nested else closed_form_of(operator, x, explicit=True)
    homes, spread = torch.arange(positions.num_total), float(output.double().std(correction=0))
    with ExitStack() as stack:
        if form is None:
            stack.enter_context(OpenAttention())
        stack.enter_context(explicit_operators(operator))
        cheap = form is not None and is_cheap(x)
        expected = expected_squares(form, x, sigma, setting.order) if cheap else None
        shares = location_shares(output, expected)
        yield Chains(flat, x, positions, homes, sigma, spread, output, 0, setting.order, 64, shares), form


def single_neighbours(chains: Chains, form: GnConvClosedForm | None, num_draws: int, seed: int) -> np.ndarray:
    """Draws as they were before: one cell a direction. (B · num_draws, K + 1)."""
    generator = torch.Generator().manual_seed(seed)
    B, K = len(chains.x), chains.max_order
    image = torch.arange(B).repeat_interleave(num_draws)
    i = torch.randint(chains.positions.num_total, image.shape, generator=generator)
    u = (torch.randint(0, 2, (len(i), chains.num_channels), generator=generator) * 2 - 1).to(chains.x)
    u /= chains.spread * chains.num_channels**0.5
    points = chains.positions.flat(chains.x[image])
    field = receptive_field(chains.operator, points, i, u) if form is None else form.field(i, chains.positions.shape)
    key = torch.rand(field.shape, generator=generator) + field
    key[torch.arange(len(i)), i] = 3.0
    cells = key.argsort(dim=1, descending=True)[:, : K + 1]
    directions = torch.randn(len(i), K + 1, len(chains.sigma), generator=generator) * chains.sigma
    if form is not None:
        D = form.mixed(chains.x, cells, directions, image=image)
        return (D.double().norm(dim=-1) / (chains.spread * chains.num_channels**0.5)).numpy()
    parts = torch.arange(len(i)).split(chains.batch_size)
    D = torch.cat([mixed_derivatives(chains.operator, points[p], cells[p], directions[p], u[p]) for p in parts])
    return D.numpy()


def bootstrap_interval(draws: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The percentile bootstrap by draw that there was before (Efron 1979)."""
    N = len(draws)
    times = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), size=NUM_RESAMPLES)
    low, high = np.quantile(times @ np.square(draws) / N, [0.025, 0.975], axis=0)
    return np.sqrt(low), np.sqrt(high)


def measured(setting: Setting, num_pictures: int, repetitions: int) -> dict[str, Any]:
    """Coverage, misses, width, bias and cost for k = 0..order, now and before."""
    with chains_at(setting, num_pictures) as (chains, form):
        kind = "nested" if form is None else "closed form"
        num_channels = len(chains.sigma)
        plan = draw_plan(
            SpectrumOptions(), closed_form=form is not None, num_images=num_pictures, num_channels=num_channels
        )

        def drawn(num: int, generator: torch.Generator) -> Draws:
            return chains.derivatives(form, num, generator, dense=False)

        truth_draws = max(TRUTH_TIMES * plan.start, LEAST_TRUTH_DRAWS[kind])
        truth_squares, parts = np.zeros(chains.max_order + 1), -(-truth_draws // 2**12)
        generator = torch.Generator().manual_seed(TRUTH_SEED)
        for _ in range(parts):
            truth_squares += np.square(drawn(-(-truth_draws // parts), generator).values).mean(0) / parts
        all_draws = float(truth_draws * num_pictures)
        all_squares = truth_squares * all_draws
        found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {"now": [], "before": []}
        seconds, num_draws = {"now": 0.0, "before": 0.0}, 0
        for seed in range(1, repetitions + 1):
            start = time.process_time()
            generator = torch.Generator().manual_seed(seed)
            scheduled = scheduled_draws(lambda num, generator=generator: drawn(num, generator), plan)
            draws, num_draws = scheduled.draws, num_draws + scheduled.num_draws
            all_squares, all_draws = all_squares + np.square(draws.values).sum(0), all_draws + len(draws.values)
            found["now"].append((effect_sizes(draws.values), *effect_intervals(draws.values, draws.images)))
            seconds["now"] += (time.process_time() - start) / repetitions
            if seed > REPETITIONS_BEFORE:
                continue
            start = time.process_time()
            values = single_neighbours(chains, form, DRAWS_BEFORE, seed)
            found["before"].append((effect_sizes(values), *bootstrap_interval(values, seed)))
            seconds["before"] += (time.process_time() - start) / min(repetitions, REPETITIONS_BEFORE)
    truth = np.sqrt(all_squares / all_draws)
    row: dict[str, Any] = {"repetitions": repetitions, "truth": truth.tolist(), "draws": num_draws / repetitions}
    row["truth_apart"] = np.sqrt(truth_squares).tolist()
    for name, all_of_it in found.items():
        effects, low, high = (np.stack(part) for part in zip(*all_of_it, strict=True))
        row[name] = {
            "covered": ((low <= truth) & (truth <= high)).mean(0).tolist(),
            "above": (truth < low).mean(0).tolist(),  # the interval lies above the truth
            "below": (truth > high).mean(0).tolist(),
            "width": np.median(high / np.maximum(low, 1e-300), axis=0).tolist(),
            "bias": (effects.mean(0) / truth - 1).tolist(),
            "median_bias": (np.median(effects, axis=0) / truth - 1).tolist(),
            "seconds": seconds[name],
        }
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """A line per setting and number of pictures."""
    head = (
        "| operator | pictures | rep. | covered, by k | misses low, high | high / low | bias | "
        "before: covered | high / low | bias | cost |"
    )
    lines = [head, "|" + "---|" * 11]
    for row in rows:
        now, before = row["now"], row["before"]

        def shown(values: list[float], form: str = ".2f") -> str:
            return " ".join(f"{value:{form}}".lstrip("0") for value in values)

        worst = max(now["bias"], key=abs)
        worst_before = max(before["bias"], key=abs)
        lines.append(
            f"| {row['setting']} | {row['pictures']} | {row['repetitions']} | {shown(now['covered'])} | "
            f"{max(now['below']):.2f}, {max(now['above']):.2f} | {shown(now['width'], '.1f')} | {worst:+.0%} | "
            f"{shown(before['covered'])} | {shown(before['width'], '.1f')} | {worst_before:+.0%} | "
            f"{now['seconds'] / before['seconds']:.1f} |"
        )
    return "\n".join(lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """A line per setting: the worst k for each number of pictures, then and now."""
    head = (
        "| operator | pictures | rep. | chains a picture | covered | before | misses below, above | high / low | "
        "before | bias | before | cost |"
    )
    lines = [head, "|" + "---|" * 12]
    for name in dict.fromkeys(row["setting"] for row in rows):
        group = sorted((row for row in rows if row["setting"] == name), key=lambda row: row["pictures"])

        def each(which: str, what: str, worst: Callable[..., float], form: str, group: Any = group) -> str:
            return ", ".join(f"{worst(row[which][what]):{form}}" for row in group)

        cells = [
            name,
            ", ".join(str(row["pictures"]) for row in group),
            ", ".join(dict.fromkeys(str(row["repetitions"]) for row in group)),
            ", ".join(f"{row['draws']:.0f}" for row in group),
            each("now", "covered", min, ".2f"),
            each("before", "covered", min, ".2f"),
            ", ".join(f"{max(max(row['now'][side]) for row in group):.2f}" for side in ("below", "above")),
            each("now", "width", max, ".3g"),
            each("before", "width", max, ".3g"),
            each("now", "bias", _furthest, "+.0%"),
            each("before", "bias", _furthest, "+.0%"),
            ", ".join(f"{row['now']['seconds'] / row['before']['seconds']:.1f}" for row in group),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _furthest(values: list[float]) -> float:
    return max(values, key=abs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, required=True, help="a JSON line for each setting and number of pictures"
    )
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--pictures", type=int, nargs="+", default=list(PICTURES))
    parser.add_argument("--settings", nargs="+", help="names that start so; all when not given")
    parser.add_argument("--quick", action="store_true", help="60 repetitions, one and eight pictures")
    arguments = parser.parse_args()
    repetitions, pictures = (60, [1, 8]) if arguments.quick else (arguments.repetitions, arguments.pictures)
    rows = []
    if arguments.output.exists():
        rows = [json.loads(line) for line in arguments.output.read_text(encoding="utf-8").splitlines()]
    done = {(row["setting"], row["pictures"], row["repetitions"]) for row in rows}
    for name, make in chain(settings(), further_settings()):
        if arguments.settings and not name.startswith(tuple(arguments.settings)):
            continue
        for num_pictures in pictures:
            if (name, num_pictures, repetitions) in done:
                continue
            torch.manual_seed(0)
            row = {"setting": name, "pictures": num_pictures, **measured(make(), num_pictures, repetitions)}
            rows.append(row)
            with arguments.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(table([row]).splitlines()[-1], flush=True)
    print(summary(rows))


if __name__ == "__main__":
    main()
