"""What measurements are predicted to cost beside what they take: memory and time over models, scopes, orders, budgets.

python experiments/measurement_cost.py [WORD ...]

Each case is predicted in one process and measured in another, whose address space is bounded by `LIMIT` and whose peak
of resident memory is counted from just before the measurement on. Printed, as a table in Markdown: predicted and
measured memory and seconds, and their ratios. Words choose the cases whose names hold all of them. One core; six
gigabytes and some ten minutes suffice.
"""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LIMIT = 6_000_000_000  # bytes beyond what libraries map


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        model: its name.
        scope: "mixer" or "block".
        kind: "explicit" or "functional".
        order: K.
        memory: budget in gigabytes.
        chains: an image.
        block: its index.
    """

    model: str
    scope: str
    kind: str
    order: int
    memory: float
    chains: int = 17
    block: int = 1

    def __str__(self) -> str:
        return f"{self.model} {self.scope} {self.kind} K={self.order} {self.memory:g}GB"


DEIT, SWIN, CONVNEXT = "deit_small_patch16_224", "swin_tiny_patch4_window7_224", "convnext_tiny"
CASES = (
    Case(DEIT, "mixer", "functional", 1, 1.0),
    Case(DEIT, "mixer", "functional", 3, 4.0),
    Case(DEIT, "mixer", "functional", 5, 1.0, chains=3),
    Case(DEIT, "mixer", "functional", 7, 1.0, chains=3),
    Case(DEIT, "mixer", "explicit", 4, 1.0),
    Case(DEIT, "block", "functional", 2, 0.2, chains=3),
    Case(DEIT, "block", "functional", 3, 4.0, chains=5),
    Case(DEIT, "block", "functional", 5, 1.5, chains=2),
    Case(SWIN, "block", "functional", 1, 1.0, chains=5),
    Case(SWIN, "block", "functional", 3, 1.0, chains=3),
    Case(CONVNEXT, "block", "functional", 3, 1.0, chains=3),
    Case(CONVNEXT, "block", "functional", 4, 4.0, chains=2),
    Case("hornet_tiny_7x7", "block", "functional", 3, 1.0, chains=3),
    Case("hornet_tiny_7x7", "mixer", "explicit", 7, 1.0, chains=512),
    Case("hornet_digits_iso", "block", "functional", 5, 0.5, chains=5),
)


def status_bytes(name: str) -> float:
    """A line of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def one(case: Case, what: str) -> None:
    """Predict or measure in this process, and print two numbers: bytes and seconds."""
    import torch

    import horinsight
    from horinsight.data.images import sample_image

    torch.set_num_threads(1)
    model = horinsight.create_model(case.model)
    batch = horinsight.image_batch(model, [sample_image("chelsea")])
    options = horinsight.SpectrumOptions(
        scope=case.scope,
        explicit=case.kind == "explicit",
        max_order=case.order,
        num_tuples=case.chains,
        memory=case.memory,
    )
    if what == "predicted":
        (cost,) = horinsight.model_measurement_costs(model, batch, blocks=[case.block], options=options).values()
        print(cost.memory_bytes[-1], cost.seconds[-1], cost.highest_order)
        return
    mapped = status_bytes("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (int(mapped + LIMIT), resource.RLIM_INFINITY))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before, start = status_bytes("VmRSS"), time.thread_time()
    horinsight.model_interaction_spectra(model, batch, blocks=[case.block], options=options)
    print(status_bytes("VmHWM") - before, time.thread_time() - start, case.order)


def numbers(case: Case, what: str) -> tuple[float, float]:
    """What a process of its own says."""
    command = [sys.executable, __file__, "--one", str(CASES.index(case)), what]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout.split()
    return float(said[-3]), float(said[-2])


def main(words: list[str]) -> None:
    """The table."""
    print("| measured | memory predicted (MB) | measured | ratio | time predicted (s) | measured | ratio |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for case in CASES:
        if not all(word in str(case) for word in words):
            continue
        (memory, seconds), (taken, spent) = numbers(case, "predicted"), numbers(case, "measured")
        ratios.append(taken / memory)
        sizes = f"{memory / 1e6:.0f} | {taken / 1e6:.0f} | {taken / memory:.2f}"
        print(f"| {case} | {sizes} | {seconds:.1f} | {spent:.1f} | {spent / seconds:.2f} |", flush=True)
    print(f"\nmeasured / predicted memory: {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(CASES[int(sys.argv[2])], sys.argv[3])
    else:
        main(sys.argv[1:])
