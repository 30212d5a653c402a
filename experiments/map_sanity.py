"""Maps of the trained digits model under captum's two numbers, under redrawn weights, and beside one another.

python experiments/map_sanity.py --output map_sanity                     # goes on where it was stopped
python experiments/map_sanity.py --output map_sanity --table map_sanity.md
python experiments/map_sanity.py --output some --digits 20 --few 4 --methods saliency "mixing rollout"

The methods are those of `faithfulness.py`. Infidelity and agreement are of all digits asked for; sensitivity and
redrawn weights, which make every map anew for each draw and each stage, of the first few. Each method's maps and
numbers are files of their own in the folder.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from faithfulness import METHODS, prepared
from torch import Tensor, nn

from horinsight import load_result, map_agreement, randomized_maps, save_result
from horinsight.attribution.captum_metrics import CaptumSettings, Unit, captum_scores
from horinsight.attribution.map_comparison_results import CaptumScores, MapAgreement, RandomizedMaps
from horinsight.attribution.method_calls import Method
from horinsight.attribution.picture_baselines import black_colour
from horinsight.results import Result
from horinsight.stats import Estimate
from horinsight.whole_file import whole_file

# "multiplied" maps are divided by x - black first; others have no unit that says how they should be
MULTIPLIED = ("input x gradient", "integrated gradients", "DeepLift", "GradientShap", "occlusion", "KernelShap")
DRAWS = 4  # of sensitivity
Kind = TypeVar("Kind", bound=Result)


def kept(path: Path, kind: type[Kind], measured: Callable[[], Kind]) -> Kind:
    """The result that a file has, else measured and kept there."""
    if not path.exists():
        save_result(measured(), path)
    return load_result(kind, path)


def kept_maps(path: Path, method: Method, images: Tensor, targets: Tensor) -> Tensor:
    """(B, h, w): the maps that a file has of the first pictures, and the rest, one by one; kept every ten."""
    found = list(np.load(path)) if path.exists() else []
    for index in range(len(found), len(images)):
        torch.manual_seed(index)
        found.append(method(images[index : index + 1].clone(), targets[index : index + 1])[0].detach().numpy())
        if index % 10 == 9 or index + 1 == len(images):
            with whole_file(path, "wb") as file:
                np.save(file, np.stack(found))
            print(f"  {path.stem}: {index + 1} of {len(images)}", file=sys.stderr, flush=True)
    return torch.from_numpy(np.stack(found[: len(images)]))


def looked_up(images: Tensor, maps: Tensor) -> Method:
    """A method that has its maps of these pictures already."""
    places = {image.numpy().tobytes(): place for place, image in enumerate(images)}

    def method(x: Tensor, target: Tensor) -> Tensor:
        return maps[[places[image.numpy().tobytes()] for image in x.detach()]]

    return method


def one_by_one(method: Method) -> Method:
    """Methods whose door takes one picture a call."""
    return lambda x, target: torch.cat(
        [method(x[place : place + 1].clone(), target[place : place + 1]) for place in range(len(x))]
    )


def shown(estimate: Estimate, form: str = ".3f") -> str:
    """Value and 95 % interval."""
    low, high = estimate.interval
    return f"{estimate.value:{form}} [{low:{form}}, {high:{form}}]"


def mean(values: np.ndarray) -> Estimate:
    """Over pictures whose value is a number."""
    from horinsight.attribution.curve_areas import over_pictures

    return over_pictures(values)


def scores_table(few: dict[str, CaptumScores], many: dict[str, CaptumScores]) -> list[str]:
    """Infidelity of all, sensitivity of a few."""
    lines = [
        "| map | unit | infidelity | over a map of zeros | at its best scale | sensitivity_max |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in many.items():
        cells = [
            name,
            found.units[0],
            shown(mean(found.infidelities[0]), ".3g"),
            shown(found.over_zero(name), ".3g"),
            shown(mean(found.scaled[0]), ".3g"),
            shown(mean(few[name].sensitivities[0]), ".3g"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    zero = next(iter(many.values())).zero_infidelities
    lines.append(f"| zeros | · | {shown(mean(zero), '.3g')} | · | {shown(mean(zero), '.3g')} | 0 |")
    return lines


def redrawn_table(found: dict[str, RandomizedMaps]) -> list[str]:
    """Spearman's correlation with the trained model's maps after each stage, the mean over pictures."""
    stages = next(iter(found.values())).stages
    lines = ["| map | " + " | ".join(stages) + " | at the end |", "|---" * (len(stages) + 2) + "|"]
    for name, one in found.items():
        means = [np.nanmean(values) if np.isfinite(values).any() else np.nan for values in one.correlations[0]]
        end = shown(mean(one.correlations[0, -1]), ".2f")
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in means) + f" | {end} |")
    return lines


def agreement_table(found: MapAgreement) -> list[str]:
    """Correlation above the diagonal, overlap of the highest tenth below."""
    lines = ["| | " + " | ".join(found.methods) + " |", "|---" * (len(found.methods) + 1) + "|"]
    for row, name in enumerate(found.methods):
        cells = []
        for column, other in enumerate(found.methods):
            of = found.correlation if column > row else found.overlap
            estimate = of(name, other)
            half = (estimate.interval[1] - estimate.interval[0]) / 2
            cells.append("·" if row == column else f"{estimate.value:.2f} ± {half:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def measured(names: list[str], folder: Path, num_digits: int, num_few: int, seed: int) -> str:
    """All three tables as Markdown."""
    model, images, targets, methods, _ = prepared(names, num_digits)
    few, few_targets = images[:num_few], targets[:num_few]
    reference = black_colour(model, tuple(images.shape[2:]))[:, None, None]
    maps: dict[str, Tensor] = {}
    infidelities, sensitivities, redrawn = {}, {}, {}
    for name in names:
        print(name, file=sys.stderr, flush=True)
        file = name.replace(" ", "_")
        unit: Unit = "multiplied" if name in MULTIPLIED else "gradient"
        maps[name] = kept_maps(folder / f"{file}.npy", methods[name], images, targets)
        known, anew = looked_up(images, maps[name]), one_by_one(methods[name])

        def scores(method: Method, x: Tensor, t: Tensor, draws: int, name: str = name, u: Unit = unit) -> CaptumScores:
            settings = CaptumSettings(num_draws=draws, seed=seed)
            return captum_scores(model, x, t, {name: (method, u)}, reference=reference, settings=settings)

        infidelities[name] = kept(
            folder / f"{file}_infidelity_{num_digits}.json",
            CaptumScores,
            lambda scores=scores, known=known: scores(known, images, targets, 0),
        )
        sensitivities[name] = kept(
            folder / f"{file}_sensitivity_{num_few}.json",
            CaptumScores,
            lambda scores=scores, anew=anew: scores(anew, few, few_targets, DRAWS),
        )
        redrawn[name] = kept(
            folder / f"{file}_redrawn_{num_few}.json",
            RandomizedMaps,
            lambda anew=anew, name=name: redrawn_maps(model, few, few_targets, name, anew, seed),
        )
    agreement = map_agreement(maps, image_size=tuple(images.shape[2:]), grid=(14, 14))
    return "\n".join(
        [
            f"# Maps of hornet_digits_iso under captum's numbers and redrawn weights, {num_digits} held-out digits",
            "",
            "## Infidelity and sensitivity",
            "",
            f"Infidelity: 64 squares of 8 pixels a digit, replaced by black; sensitivity: {num_few} digits,",
            f"{DRAWS} draws within 0.02 in the model's input. Brackets: 95 %, Student's over digits.",
            "",
            *scores_table(sensitivities, infidelities),
            "",
            "## Redrawn weights, from the head down",
            "",
            f"Spearman's correlation with the trained model's maps, the mean of {num_few} digits; each stage keeps",
            "those before it redrawn; norms and layer scales stay as trained.",
            "",
            *redrawn_table(redrawn),
            "",
            "## Agreement",
            "",
            "Above the diagonal: Spearman's correlation over 14x14 cells; below: overlap of the highest tenth",
            f"(by chance {agreement.chance:.2f}). ± is half of the 95 % interval over digits.",
            "",
            *agreement_table(agreement),
            "",
        ]
    )


def redrawn_maps(
    model: nn.Module, images: Tensor, targets: Tensor, name: str, method: Method, seed: int
) -> RandomizedMaps:
    """Of one method, with progress."""
    show = lambda stage: print(f"  {name}: {stage} redrawn", file=sys.stderr, flush=True)  # noqa: E731
    return randomized_maps(model, images, targets, {name: method}, seed=seed, on_stage=show)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder; what is in it is not measured again")
    parser.add_argument("--table", type=Path, help="write the tables as Markdown")
    parser.add_argument("--digits", type=int, default=200, help="held-out digits, at most 359")
    parser.add_argument("--few", type=int, default=10, help="of them, for sensitivity and redrawn weights")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="captum")
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = measured(arguments.methods, arguments.output, arguments.digits, arguments.few, arguments.seed)
    print(text)
    if arguments.table:
        with whole_file(arguments.table) as file:
            file.write(text)


if __name__ == "__main__":
    main()
