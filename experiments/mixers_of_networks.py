"""The mixers of many networks: kinds, orders by design and as measured, mixing weights or why there are none. A table.

    python experiments/mixers_of_networks.py [--out mixers.jsonl] [--table mixers.md] [--only PATTERN] [--again]
                                             [--found-only]

One small variant of every file of timm/models, torchvision's classifiers, transformers' vision models, and the networks
of the tests, all with random weights. Of each kind of mixer that a network has, one is measured: the one with the
smallest map. Each row is written as soon as it is there; a run that was stopped goes on where it was. The last lines
count what was found.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from small_networks import Candidate, candidates
from torch import Tensor, nn

from horinsight import model_interaction_spectra, model_mixing_weights, named_blocks
from horinsight.data.preprocess import image_channels
from horinsight.mixers.blocks import MixingBlock
from horinsight.mixers.found import FoundMixer, found_mixers

HIGHEST = 4  # order that is looked for; what has no less is open
LEAST_CELLS = 6  # of a map for chains of that order
PATIENCE = 30  # seconds for each measurement
Measurement = Callable[[nn.Module, Tensor, MixingBlock], str]


# what is found


def seconds(model: nn.Module, size: tuple[int, int]) -> float:
    """One forward pass, the fastest of three."""
    images = torch.randn(1, 3, *size)
    times = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
    return min(times)


def row_of(candidate: Candidate, *, measure: bool = True) -> dict[str, Any]:
    """What was found in one network, and measured of one mixer of each kind."""
    torch.manual_seed(0)
    name, model, size = candidate.build()
    forward = seconds(model, size)
    start = time.perf_counter()
    mixers = found_mixers(model, image_size=size)
    spent = time.perf_counter() - start
    row = {
        "source": candidate.source,
        "file": candidate.name,
        "model": name,
        "image_size": size,
        "mixers": len(mixers),
        "kinds": dict(Counter(mixer.kind for mixer in mixers)),
        "places": dict(Counter(mixer.place for mixer in mixers)),
        "design": {
            kind: sorted(
                {"open" if mixer.order is None else str(mixer.order) for mixer in mixers if mixer.kind == kind}
            )
            for kind in {mixer.kind for mixer in mixers}
        },
        "by_sight": sorted({f"{mixer.class_name}: {mixer.kind}" for mixer in mixers if not mixer.kind_known}),
        "holds_others": sorted({mixer.class_name for mixer in mixers if mixer.holds_others}),
        "unknown": sorted({way for mixer in mixers for way in mixer.seen if way.startswith("unknown")}),
        "seconds": round(spent, 3),
        "times_forward": round(spent / forward, 2),
        "list": [line_of(mixer) for mixer in mixers],
    }
    return {**row, **measured(model, size)} if measure else row


def line_of(mixer: FoundMixer) -> str:
    """All that is said of a mixer, in one line."""
    sizes = "->".join(
        "x".join(map(str, lies.size)) if lies and lies.size else "-" for lies in (mixer.input, mixer.output)
    )
    lies = "?" if mixer.input is None else f"{mixer.input.layout}+{mixer.input.prefix_tokens}"
    return (
        f"{mixer.name} {mixer.class_name} {mixer.kind} {mixer.order} {mixer.place} {mixer.stride} {sizes} "
        f"{lies} [{mixer.block_path}] {mixer.num_inputs} " + "+".join(mixer.seen)
    )


# what is measured


def measured(model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Of one mixer of each kind: its explicit orders, and its mixing weights."""
    images = torch.randn(1, image_channels(model, size), *size, generator=torch.Generator().manual_seed(1))
    orders, weights, spent = {}, {}, {}
    for kind, block in one_of_each_kind(named_blocks(model, image_size=size)).items():
        start = time.perf_counter()
        orders[kind] = answered(measured_orders, model, images, block)
        weights[kind] = answered(mixing_weights_of, model, images, block)
        spent[kind] = round(time.perf_counter() - start, 2)
    return {"orders": orders, "weights": weights, "measuring_seconds": spent}


def one_of_each_kind(blocks: list[MixingBlock]) -> dict[str, MixingBlock]:
    """Of each kind the block with the smallest map that is large enough; the largest map where none is."""

    def cells(block: MixingBlock) -> int:
        found = block.found
        size = None if found is None or found.input is None else found.input.size
        return 0 if size is None else size[0] * size[1]

    def rank(block: MixingBlock) -> tuple[bool, int]:
        return (cells(block) < LEAST_CELLS, cells(block) if cells(block) >= LEAST_CELLS else -cells(block))

    chosen: dict[str, MixingBlock] = {}
    for block in sorted(blocks, key=rank):
        chosen.setdefault(block.mixer, block)
    return chosen


def measured_orders(model: nn.Module, images: Tensor, block: MixingBlock) -> str:
    """Location and degree, "1 / 2"; "≥ K" for what is open."""
    assert block.found is not None
    size = block.found.input.size if block.found.input is not None else None
    highest = HIGHEST if size is None else min(HIGHEST, size[0] * size[1] - 1)
    (spectrum,) = model_interaction_spectra(
        model, images, blocks=[block.index], max_order=highest, num_tuples=4
    ).values()
    return " / ".join(
        f"≥ {highest}" if order is None else str(order) for order in (spectrum.location_order, spectrum.degree_order)
    )


def mixing_weights_of(model: nn.Module, images: Tensor, block: MixingBlock) -> str:
    """How well Σ_j h v + b is the mixer's own output."""
    errors = model_mixing_weights(
        model, images, blocks=[block.index], keep=lambda weights: float(weights.reconstruction_error)
    )
    return f"{next(iter(errors.values())):.0e}"


def answered(measurement: Measurement, model: nn.Module, images: Tensor, block: MixingBlock) -> str:
    """What a measurement says, or the first line of why it says nothing."""
    try:
        with patience(PATIENCE):
            return measurement(model, images, block)
    except ValueError as error:
        text = str(error).splitlines()[0].removeprefix(f"{block}: ")
        return f"none: {text}"
    except TimeoutError:
        return f"none: more than {PATIENCE} s"


@contextmanager
def patience(limit: int) -> Iterator[None]:
    """Raise TimeoutError after so many seconds."""

    def out_of_time(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# the table


def markdown(rows: list[dict[str, Any]]) -> str:
    """The tables, one a source: what was found in each network and measured of it."""
    lines = [
        "# The mixers of timm, torchvision, transformers, and of networks written by hand",
        "",
        "Made by `mixers_of_networks.py`, random weights, branches that start at zero opened. For each kind: how many;",
        "order by design; explicit order of one of them as measured, location / degree; how far Σ_j h v + b is off the",
        "mixer's own output (its spread is 1), or ✗ for no mixing weights, with the reason below. Cost: of finding, in",
        "forward passes, and in seconds.",
    ]
    reasons: Counter[str] = Counter()
    for source in dict.fromkeys(row["source"] for row in rows):
        of_source = sorted((row for row in rows if row["source"] == source), key=lambda row: row["file"])
        lines += ["", f"## {source}", "", "| file | network | pixels | mixers | by place | cost |", "|" + "---|" * 6]
        for row in of_source:
            lines.append(_table_row(row, reasons))
    lines += ["", "## Why something could not be measured", "", "| networks and kinds | reason |", "|---|---|"]
    lines += [f"| {count} | {reason} |" for reason, count in reasons.most_common()]
    return "\n".join(lines) + "\n"


def _table_row(row: dict[str, Any], reasons: Counter[str]) -> str:
    start = f"| {row['file']} | {row['model']} |"
    if "error" in row:
        return f"{start} | {row['error'].splitlines()[0]} | | |"
    places = ", ".join(f"{count} {place}" for place, count in sorted(row["places"].items()))
    kinds = "; ".join(_kind_cell(kind, row, reasons) for kind in sorted(row["kinds"]))
    height, width = row["image_size"]
    pixels = str(height) if height == width else f"{height} × {width}"
    return f"{start} {pixels} | {kinds} | {places} | {row['times_forward']:.1f} × ({row['seconds']:.2f} s) |"


def _kind_cell(kind: str, row: dict[str, Any], reasons: Counter[str]) -> str:
    said = f"{row['kinds'][kind]} {kind.replace('_', ' ')}, {' or '.join(row['design'][kind])}"
    for name, prefix in (("orders", "→ "), ("weights", "h ")):
        answer = row.get(name, {}).get(kind)
        if answer is None:
            continue
        if answer.startswith("none: "):
            reasons[answer.removeprefix("none: ")[:160]] += 1
            answer = "✗"
        said += f" {prefix}{answer}"
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mixers_of_networks.jsonl"))
    parser.add_argument("--only", default="*", help="a pattern of sources and names, such as 'timm:swin*'")
    parser.add_argument("--table", type=Path, help="write the table as Markdown")
    parser.add_argument("--again", action="store_true", help="also what is in the file already")
    parser.add_argument("--found-only", action="store_true", help="measure nothing")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.again:
        rows = [row for row in rows if not fnmatch.fnmatch(f"{row['source']}:{row['file']}", options.only)]
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = {(row["source"], row["file"]) for row in rows}
    for candidate in candidates():
        named = f"{candidate.source}:{candidate.name}"
        if (candidate.source, candidate.name) in done or not fnmatch.fnmatch(named, options.only):
            continue
        try:
            row = row_of(candidate, measure=not options.found_only)
        except Exception as error:  # a failure is a row of the table
            row = {"source": candidate.source, "file": candidate.name, "model": candidate.name}
            row["error"] = f"{type(error).__name__}: {error}"[:400]
        rows.append(row)
        with options.out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(named, row.get("error") or f"{row['kinds']} {row.get('orders')} {row.get('weights')}", flush=True)
    if options.table:
        options.table.write_text(markdown(rows))
    good = [row for row in rows if "error" not in row]
    print(f"\n{len(good)} of {len(rows)} networks without an error")
    print("none found in", [row["model"] for row in good if not row["mixers"]])
    if good:
        print("kinds", dict(sum((Counter(row["kinds"]) for row in good), Counter())))
        print("median cost in forward passes", statistics.median(row["times_forward"] for row in good))


if __name__ == "__main__":
    main()
