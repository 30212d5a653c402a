"""Which maps show what the trained digits model goes by: insertion - deletion of methods and of maps that see no model.

python experiments/faithfulness.py --output faithfulness.jsonl                 # 200 held-out digits; goes on if stopped
python experiments/faithfulness.py --output faithfulness.jsonl --table faithfulness.md
python experiments/faithfulness.py --output some.jsonl --digits 20 --methods saliency "integrated gradients"

A line of the output is one digit. Baselines: black, the mean of the digits that were trained on, blur, and
another one of these. A ranking is given as far as it holds under two that leave at most half of the probability.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from captum.attr import DeepLift, GradientShap, InputXGradient, IntegratedGradients, Occlusion, Saliency
from torch import Tensor, nn

from horinsight import (
    Faithfulness,
    create_model,
    image_batch,
    mean_baseline,
    mixing_rollout,
    named_blocks,
    others_baseline,
    prediction_attribution,
)
from horinsight.attribution.deep_lift_rules import deep_lift_rules
from horinsight.attribution.faithfulness import faithfulness_by_picture
from horinsight.attribution.faithfulness_parts import merged_faithfulness
from horinsight.attribution.faithfulness_report import faithfulness_report
from horinsight.attribution.method_calls import Method
from horinsight.attribution.picture_baselines import black_colour
from horinsight.data.handwritten_digits import digit_arrays, digit_picture, digit_split
from horinsight.report import Report
from horinsight.result_files import rebuilt
from horinsight.results import result_bytes
from horinsight.whole_file import whole_file

MODEL, SIZE = "hornet_digits_iso", (56, 56)
TRAINED_ON = 200  # training digits that tell the mean, and that GradientShap draws from
STEPS = 32  # of integrated gradients
SQUARE = 8  # of occlusion
SAMPLES = 200  # of KernelShap


def deep_lift(model: nn.Module, x: Tensor, target: Tensor, black: Tensor) -> Tensor:
    with deep_lift_rules(model):
        return DeepLift(model).attribute(x, black.expand_as(x), target=target).sum(1)


# name → (model, image, target, black, training digits) → map
METHODS: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "saliency": lambda model, x, t, black, trained: Saliency(model).attribute(x, target=t).amax(1),
    "input x gradient": lambda model, x, t, black, trained: InputXGradient(model).attribute(x, target=t).sum(1),
    "integrated gradients": lambda model, x, t, black, trained: (
        IntegratedGradients(model).attribute(x, black, target=t, n_steps=STEPS, internal_batch_size=STEPS).sum(1)
    ),
    "DeepLift": lambda model, x, t, black, trained: deep_lift(model, x, t, black),
    "GradientShap": lambda model, x, t, black, trained: (
        GradientShap(model).attribute(x, trained, target=t, n_samples=16).sum(1)
    ),
    "occlusion": lambda model, x, t, black, trained: (
        Occlusion(model)
        .attribute(x, (3, SQUARE, SQUARE), (3, SQUARE // 2, SQUARE // 2), black, target=t, perturbations_per_eval=32)
        .sum(1)
    ),
    "KernelShap": lambda model, x, t, black, trained: by_name("kernel_shap", model, x, t, black),
    "GradCAM": lambda model, x, t, black, trained: by_name("grad_cam", model, x, t, black),
    "mixing rollout": lambda model, x, t, black, trained: torch.from_numpy(rolled_out(model, x)),
}


def by_name(name: str, model: nn.Module, x: Tensor, target: Tensor, black: Tensor) -> Tensor:
    """By the package's own door, with its settings: KernelShap of 7 x 7 squares, GradCAM of the last block."""
    layer = str(len(named_blocks(model, image_size=SIZE)))
    found = prediction_attribution(
        model, x.detach(), target=target, methods=[name], baselines=black.expand_as(x)[0], layer=layer, samples=SAMPLES
    )
    return torch.from_numpy(found.maps[name])


def rolled_out(model: nn.Module, x: Tensor) -> np.ndarray:
    """(1, rows, columns), the mean over the last block's positions: it explains mixing, not the decision."""
    found = mixing_rollout(model, x.detach())
    maps: np.ndarray = found.weights.mean(1).reshape(1, *found.in_size)
    return maps


def prepared(names: list[str], num_digits: int) -> tuple[nn.Module, Tensor, Tensor, dict[str, Method], Tensor]:
    """The model, held-out digits and their classes, methods that know it, and digits that were trained on."""
    model = create_model(MODEL)
    trained_rows, held_out = digit_split()
    trained = image_batch(model, [digit_picture(int(row)) for row in trained_rows[:TRAINED_ON]])
    images = image_batch(model, [digit_picture(int(row)) for row in held_out[:num_digits]])
    targets = torch.as_tensor(digit_arrays()[1][held_out[:num_digits]]).long()
    black = black_colour(model, SIZE)[None, :, None, None].expand(1, 3, *SIZE).clone()

    def bound(name: str) -> Method:
        return lambda x, target: METHODS[name](model, x.requires_grad_(), target, black, trained)

    return model, images, targets, {name: bound(name) for name in names}, trained


def kept_parts(path: Path) -> list[Faithfulness]:
    """The digits that a file has whole; a line that was cut off when the run stopped is taken away."""
    if not path.exists():
        return []
    found, lines = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        content.pop("result")
        found.append(rebuilt(Faithfulness, content))
        lines.append(line + "\n")
    with whole_file(path) as file:
        file.write("".join(lines))
    return found


def markdown(report: Report) -> str:
    """The table and its notes."""
    rows = [[column.text(row) for column in report.columns] for row in report.rows]
    head = [column.heading for column in report.columns]
    lines = [
        f"# {report.title}",
        "",
        *("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]),
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in report.notes)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, required=True, help="a line a digit; what is in it is not measured again"
    )
    parser.add_argument("--table", type=Path, help="write the table as Markdown")
    parser.add_argument("--digits", type=int, default=200, help="held-out digits, at most 359")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="captum")
    model, images, targets, methods, trained = prepared(arguments.methods, arguments.digits)
    parts = kept_parts(arguments.output)
    done = {int(number) for part in parts for number in part.pictures}
    waiting = [number for number in range(len(images)) if number not in done]
    baselines = ["black", mean_baseline(trained.mean((0, 2, 3))), "blur", others_baseline(trained, seed=arguments.seed)]
    start = time.monotonic()
    running = faithfulness_by_picture(
        model, images, targets, methods, pictures=waiting, seed=arguments.seed, baselines=baselines
    )
    try:
        for part in running:
            merged_faithfulness([*parts[:1], part])  # refuses a file of another run
            parts.append(part)
            with arguments.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(json.loads(result_bytes(part, ".json"))) + "\n")
            print(f"[{len(parts)}/{len(images)}] {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
    if parts:
        report = faithfulness_report(merged_faithfulness(parts))
        print(report.text())
        if arguments.table:
            with whole_file(arguments.table) as file:
                file.write(markdown(report))


if __name__ == "__main__":
    main()
