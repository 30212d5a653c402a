"""Time and memory of `horinsight mixing` and `ie` over 16, 64, 128 pictures: linear, and constant.

    python experiments/many_pictures.py mixing --model hornet_s_iso --pictures 16 64

Pictures are crops of the photographs that come along. Each command runs in a process of its own, whose user and system
CPU time and peak memory are read when it ends.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from horinsight.data.images import SAMPLES, sample_image

SIDE = 256  # of a crop, in pixels


def write_crops(folder: Path, count: int) -> None:
    """So many crops of photographs, the same at every call."""
    photographs = [sample_image(name) for name in SAMPLES]
    rng = np.random.default_rng(0)
    for number in range(count):
        image = photographs[number % len(photographs)]
        left, top = (int(rng.integers(0, side - SIDE + 1)) for side in image.size)
        image.crop((left, top, left + SIDE, top + SIDE)).save(folder / f"{number:04d}.png")


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds of CPU time, of the clock, and peak memory in MB of one command."""
    program = "import sys; from horinsight.cli.main import main; sys.exit(main())"
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said.decode())
    return used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss / 1024


def main() -> None:
    """Print a line for each number of pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["mixing", "ie"])
    parser.add_argument("--model", default="hornet_s_iso")
    parser.add_argument("--pictures", type=int, nargs="+", default=[16, 64, 128])
    options, further = parser.parse_known_args()
    for count in options.pictures:
        with tempfile.TemporaryDirectory() as folder:
            write_crops(Path(folder), count)
            seconds, clock, peak = measured(
                [options.command, "--model", options.model, "--images", folder, "--format", "json", *further]
            )
        print(
            f"{options.command} {options.model}, {count} pictures: {seconds:.1f} s CPU, {clock:.1f} s, {peak:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
