"""Time and memory of commands over 16, 64, 128 pictures: linear, and constant.

python experiments/many_pictures.py mixing --model hornet_s_iso --pictures 16 64
python experiments/many_pictures.py reach --model hornet_test_iso --pictures 16 128 --scope mixer
python experiments/many_pictures.py faithfulness --model hornet_test_iso --pictures 16 128
python experiments/many_pictures.py coverage --repetitions 200      # of intervals over pictures in batches

Pictures are crops of the photographs that come along. Each command runs in a process of its own, whose user and system
CPU time and peak memory are read when it ends. Of coverage they are noise of different scale, held fixed; chains are
drawn anew in each repetition, and the truth is of 64 times as many.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from horinsight import create_model, model_interaction_spectra
from horinsight.data.images import SAMPLES, sample_image

SIDE = 256  # of a crop, in pixels
CHAINS = 32  # a picture, of coverage
COMMANDS = {  # what is measured, and what its command begins with
    "mixing": ["mixing"],
    "ie": ["ie"],
    "influence": ["mixing", "--influence"],
    "reach": ["reach"],
    "compare": ["ie", "--compare", "2"],  # every block with the second
    "attribute": ["attribute"],
}

FAITHFULNESS = """
import sys
import torch
from captum.attr import InputXGradient, Saliency
from horinsight import RunningFaithfulness, create_model, picture_stream, preprocessing
from horinsight.attribution.faithfulness import faithfulness_by_picture

model = create_model(sys.argv[1])
pictures = picture_stream(sys.argv[2], preprocessing(model))
methods = {
    "saliency": lambda x, target: Saliency(model).attribute(x, target=target).sum(1),
    "input x gradient": lambda x, target: InputXGradient(model).attribute(x, target=target).sum(1),
}
with torch.no_grad():
    targets = torch.cat([model(batch.images).argmax(1) for batch in pictures])
running = RunningFaithfulness()
for part in faithfulness_by_picture(model, pictures, targets, methods, rows=7, columns=7, steps=10):
    running.update(part)
print(running.compute().num_pictures)
"""


def write_crops(folder: Path, count: int) -> None:
    """So many crops of photographs, the same at every call."""
    photographs = [sample_image(name) for name in SAMPLES]
    rng = np.random.default_rng(0)
    for number in range(count):
        image = photographs[number % len(photographs)]
        left, top = (int(rng.integers(0, side - SIDE + 1)) for side in image.size)
        image.crop((left, top, left + SIDE, top + SIDE)).save(folder / f"{number:04d}.png")


COMMAND = "import sys; from horinsight.cli.main import main; sys.exit(main())"


def measured(program: str, arguments: list[str]) -> tuple[float, float, float]:
    """Seconds of CPU time, of the clock, and peak memory in MB of one program."""
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


def coverage(repetitions: int) -> None:
    """How often the intervals of 18 pictures in batches of 16 and 2 hold the effects of many chains."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(18, 3, 64, 64, generator=generator) * torch.logspace(-0.5, 0.5, 18).view(-1, 1, 1, 1)
    model = create_model("hornet_test_iso")
    truth = model_interaction_spectra(model, images, max_order=3, num_tuples=64 * CHAINS, seed=10_000)
    held = {name: np.zeros(4) for name in truth}
    for seed in range(repetitions):
        found = model_interaction_spectra(model, images, max_order=3, num_tuples=CHAINS, seed=seed)
        for name, spectrum in found.items():
            held[name] += (spectrum.ci_low <= truth[name].effects) & (truth[name].effects <= spectrum.ci_high)
    for name, counts in held.items():
        print(name, ", ".join(f"effect_{k} {count / repetitions:.3f}" for k, count in enumerate(counts)))


def main() -> None:
    """Print a line for each number of pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=[*COMMANDS, "faithfulness", "coverage"])
    parser.add_argument("--model", default="hornet_s_iso")
    parser.add_argument("--pictures", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--repetitions", type=int, default=200)
    options, further = parser.parse_known_args()
    if options.command == "coverage":
        coverage(options.repetitions)
        return
    for count in options.pictures:
        with tempfile.TemporaryDirectory() as folder:
            write_crops(Path(folder), count)
            if options.command == "faithfulness":
                program, arguments = FAITHFULNESS, [options.model, folder]
            else:
                asked = ["--model", options.model, "--images", folder, "--format", "json", *further]
                program, arguments = COMMAND, [*COMMANDS[options.command], *asked]
            seconds, clock, peak = measured(program, arguments)
        print(
            f"{options.command} {options.model}, {count} pictures: {seconds:.1f} s CPU, {clock:.1f} s, {peak:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
