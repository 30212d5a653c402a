"""Speed as ratios, both sides measured alternately in one run. `python experiments/benchmark.py --help`.

Absolute times depend on the machine and on what else it does; a ratio of medians of alternating runs much less. The
ratios that we keep, with their machines, are in experiments/README.md.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from plain_hornet import PLAIN_MODELS, plain_model

from horinsight import create_model


def machine() -> str:
    """Processor, threads and torch, in one line."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((row.split(":")[1].strip() for row in rows if row.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({capability}), {torch.get_num_threads()} of {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def alternate(sides: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of each run of each side, taken in turn: A B A B …, after two runs of each to warm up."""

    def timed(side: Callable[[], object]) -> float:
        start = time.perf_counter()
        side()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for side in list(sides.values()) * 2:
        timed(side)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            seconds[name].append(timed(side))
    return seconds


def report(what: str, seconds: dict[str, list[float]], against: str) -> None:
    """Medians, and by how much each side is faster than `against`, with the quartiles of the run-by-run ratio."""
    for name, runs in seconds.items():
        if name == against:
            continue
        ratios = [a / b for a, b in zip(seconds[against], runs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{what:34} {name} {statistics.median(runs) * 1e3:8.1f} ms, {against} "
            f"{statistics.median(seconds[against]) * 1e3:8.1f} ms: {middle:5.2f} x as fast ({low:.2f} to {high:.2f})"
        )


@torch.inference_mode()
def forward(arguments: argparse.Namespace) -> None:
    """A forward pass at 224 against the plain NCHW transcription of the published code."""
    for name in arguments.models:
        model = create_model(name)
        plain = plain_model(name, model.state_dict())
        x = torch.randn(arguments.batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        model, plain, x = model.to(arguments.device), plain.to(arguments.device), x.to(arguments.device)
        expected = plain(x)
        difference = float((model(x) - expected).abs().max() / expected.abs().max())
        if difference > (1e-5 if arguments.device == "cpu" else 1e-3):
            raise SystemExit(f"{name}: outputs differ by {difference:.1e} of the largest value")
        sides: dict[str, Callable[[], object]] = {"horinsight": partial(model, x), "plain": partial(plain, x)}
        if arguments.compile:
            sides["compiled"] = partial(torch.compile(model), x)
        report(f"forward {name} x{arguments.batch}", alternate(sides, arguments.repeats, arguments.device), "plain")


def main() -> None:
    """Parse, run one benchmark, print the machine and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    command = commands.add_parser("forward", help=forward.__doc__)
    command.add_argument("--models", nargs="+", default=["hornet_tiny_7x7", "hornet_s_iso"], choices=list(PLAIN_MODELS))
    command.add_argument("--batch", type=int, default=1)
    command.add_argument("--compile", action="store_true", help="also torch.compile(model)")
    command.set_defaults(run=forward)
    command.add_argument("--repeats", type=int, default=20)
    command.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print(machine())
    arguments.run(arguments)


if __name__ == "__main__":
    main()
