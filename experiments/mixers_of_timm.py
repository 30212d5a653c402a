"""The mixers of one small variant of every file of timm/models, and of torchvision's classifiers: a table.

    python experiments/mixers_of_timm.py [--out mixers.jsonl] [--table mixers.md] [--only PATTERN] [--again]

Weights are random. Each row is written as soon as it is there; a run that was stopped goes on where it was. Seconds are
given as multiples of one forward pass. The last lines count what was found.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import pkgutil
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import timm
import timm.models
import torch
import torchvision
from torch import nn

from horinsight.mixers.found import FoundMixer, default_image_size, found_mixers

# parts of names of small variants, the smallest first
SMALL = """
    test zepto atto femto pico nano
    xxt xxs micro mini ti tiny xs s0 b0 m0 t0 x0 00 000 0 18 10 12 14 26 small s 19 32 34
    50 f0 base
"""
TORCHVISION = """
    alexnet vgg11 resnet18 densenet121 squeezenet1_1 googlenet inception_v3 shufflenet_v2_x0_5 mobilenet_v2
    mobilenet_v3_small efficientnet_b0 mnasnet0_5 regnet_y_400mf convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t
"""


def files_of_timm() -> list[str]:
    """The files of timm/models that hold models."""
    names = [module.name for module in pkgutil.iter_modules(timm.models.__path__) if not module.name.startswith("_")]
    return sorted(name for name in names if timm.list_models(module=name))


def smallest(file: str) -> str:
    """The variant with the fewest parameters among those whose names say that they are small."""

    def rank(name: str) -> tuple[int, int]:
        parts = re.split(r"[_\-.]", name)
        fits = [i for i, word in enumerate(SMALL.split()) if any(part == word or part.endswith(word) for part in parts)]
        return min(fits, default=len(SMALL.split())), len(name)

    def size(name: str) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters())

    sizes = {}
    for name in sorted(timm.list_models(module=file), key=rank)[:5]:
        try:
            sizes[name] = size(name)
        except Exception:  # a model that cannot be built on the meta device is no candidate
            continue
    return min(sizes, key=sizes.__getitem__) if sizes else sorted(timm.list_models(module=file), key=rank)[0]


def built(name: str) -> tuple[nn.Module, tuple[int, int]]:
    """A model with random weights, and images that it takes: 224 pixels where it would have larger ones."""
    model = timm.create_model(name)
    size = default_image_size(model)
    if max(size) <= 256:
        return model.eval(), size
    for side in (224, 256):
        for options in ({}, {"img_size": side}):
            try:
                model = timm.create_model(name, **options).eval()
                with torch.no_grad():
                    model(torch.zeros(1, 3, side, side))
            except (TypeError, RuntimeError, AssertionError, ValueError):
                continue
            return model, (side, side)
    return timm.create_model(name).eval(), size


def seconds(model: nn.Module, size: tuple[int, int]) -> float:
    """One forward pass, the faster of three."""
    images = torch.randn(1, 3, *size)
    times = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
    return min(times)


def row_of(file: str, name: str, model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """What was found in one network."""
    forward = seconds(model, size)
    start = time.perf_counter()
    mixers = found_mixers(model, image_size=size)
    spent = time.perf_counter() - start
    return {
        "file": file,
        "model": name,
        "image_size": size,
        "mixers": len(mixers),
        "kinds": dict(Counter(mixer.kind for mixer in mixers)),
        "places": dict(Counter(mixer.place for mixer in mixers)),
        "orders": dict(Counter(str(mixer.order) for mixer in mixers)),
        "by_sight": sorted({f"{mixer.class_name}: {mixer.kind}" for mixer in mixers if not mixer.kind_known}),
        "holds_others": sorted({mixer.class_name for mixer in mixers if mixer.holds_others}),
        "unknown": sorted({way for mixer in mixers for way in mixer.seen if way.startswith("unknown")}),
        "forward_seconds": round(forward, 4),
        "times_forward": round(spent / forward, 2),
        "list": [_line(mixer) for mixer in mixers],
    }


def _line(mixer: FoundMixer) -> str:
    sizes = "->".join(
        "x".join(map(str, lies.size)) if lies and lies.size else "-" for lies in (mixer.input, mixer.output)
    )
    return (
        f"{mixer.name} {mixer.class_name} {mixer.kind} {mixer.order} {mixer.place} {mixer.stride} {sizes} "
        f"{mixer.input.layout}+{mixer.input.prefix_tokens} [{mixer.block_path}] {mixer.num_inputs} "
        + "+".join(mixer.seen)
    )


def networks(pattern: str) -> list[tuple[str, str]]:
    """(file, "timm" or a name of torchvision's)."""
    ours = [(file, "timm") for file in files_of_timm()]
    theirs = [(f"torchvision:{name}", name) for name in TORCHVISION.split()]
    return [(file, where) for file, where in ours + theirs if fnmatch.fnmatch(file, pattern)]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table: what was found in each network, and at which cost."""

    def counted(counts: dict[str, int]) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))

    lines = [
        "# The mixers of timm and of torchvision",
        "",
        "Made by `mixers_of_timm.py`: one small variant of each file of timm/models, random weights.",
        "Cost: multiples of one forward pass.",
        "",
        "| file | network | pixels | mixers by kind | by place | told by sight | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["file"].startswith("torchvision"), row["file"])):
        if "error" in row:
            lines.append(f"| {row['file']} | {row['model']} | | {row['error'].splitlines()[0]} | | | |")
            continue
        sight = ", ".join(name.partition(":")[0] for name in row["by_sight"])
        lines.append(
            f"| {row['file']} | {row['model']} | {row['image_size'][0]} | {counted(row['kinds'])} | "
            f"{counted(row['places'])} | {sight} | {row['times_forward']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mixers_of_timm.jsonl"))
    parser.add_argument("--only", default="*", help="a pattern of file names, such as 'swin*'")
    parser.add_argument("--table", type=Path, help="write the table as Markdown")
    parser.add_argument("--again", action="store_true", help="also what is in the file already")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.again:
        rows = [row for row in rows if not fnmatch.fnmatch(row["file"], options.only)]
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = {row["file"] for row in rows}
    for file, where in networks(options.only):
        if file in done:
            continue
        torch.manual_seed(0)
        name = where
        try:
            if where == "timm":
                name = smallest(file)
                model, size = built(name)
            else:
                model, size = torchvision.models.get_model(where).eval(), (224, 224)
            row = row_of(file, name, model, size)
        except Exception as error:  # a failure is a row of the table
            row = {"file": file, "model": name, "error": f"{type(error).__name__}: {error}"[:400]}
        rows.append(row)
        with options.out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(
            row["file"],
            row["model"],
            row.get("error") or f"{row['mixers']} {row['kinds']} {row['places']} {row['times_forward']}x",
            flush=True,
        )
    if options.table:
        options.table.write_text(markdown(rows))
    good = [row for row in rows if "error" not in row]
    print(
        f"\n{len(good)} of {len(rows)} networks without an error; none found in",
        [r["model"] for r in good if not r["mixers"]],
    )
    if good:
        print("kinds", dict(sum((Counter(row["kinds"]) for row in good), Counter())))
        print("places", dict(sum((Counter(row["places"]) for row in good), Counter())))
        print("median cost in forward passes", statistics.median(row["times_forward"] for row in good))


if __name__ == "__main__":
    main()
