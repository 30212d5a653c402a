"""Puts the weights of a finished training run into the package, with their model card.

python experiments/package_weights.py hornet_digits_iso --run digits_run
python experiments/package_weights.py hornet_digits_iso --other-runs digits_seed1 digits_seed2

A run is one of `horinsight train --model hornet_digits_iso --data digits --output digits_run`. The card holds data,
split, recipe, seed, held-out accuracy and its spread over runs with other seeds, versions, hashes, and the adaptivity
of the mixing weights beside that of the random initialisation. Without --run the packaged weights stay, and what is
measured on them is measured again. The same measurements are repeated by `tests/models/test_packaged_weights.py`.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import horinsight
from horinsight.data.datasets import digits
from horinsight.models.packaged_weights import model_card
from horinsight.models.provenance import weights_sha256
from horinsight.results import plain
from horinsight.stats import NORMAL_95
from horinsight.training.accuracy import accuracy
from horinsight.training.trainer import WEIGHTS
from horinsight.training.training_run import CHECKPOINT
from horinsight.whole_file import whole_file

FOLDER = Path(horinsight.__file__).parent / "models" / "weights"
KEYS = ("input_adaptivity", "location_adaptivity", "static_share", "input_deviation", "location_deviation")
NUM_IMAGES = 24  # held-out digits whose mixing weights are measured


def digits_of(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def adaptivity_of(model: torch.nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Shares over all blocks: mean and 95 % interval over images, and per block."""
    found = horinsight.model_adaptivity(model, images)
    numbers: dict[str, Any] = {"num_images": len(images)}
    for key in KEYS:
        estimates = [getattr(block, key) for block in found.values()]
        mean = float(np.mean([estimate.value for estimate in estimates]))
        # blocks see the same images: their errors may all point the same way
        margin = NORMAL_95 * float(np.mean([estimate.standard_error for estimate in estimates]))
        numbers[key] = {
            "mean": digits_of(mean),
            "interval": [digits_of(mean - margin), digits_of(mean + margin)],
            "blocks": [digits_of(estimate.value) for estimate in estimates],
        }
    return numbers


def settings_of(run: Path, model: str) -> dict[str, Any]:
    """What a finished run was told to do, and its log."""
    kept = torch.load(run / CHECKPOINT, weights_only=True)
    settings = json.loads(kept["settings"])
    if settings["model"] != model or len(kept["log"]) != settings["recipe"]["epochs"]:
        raise SystemExit(f"{run} is not a finished run of {model}.")
    return {**settings, "log": kept["log"]}


def card_of(run: Path, model: str) -> dict[str, Any]:
    """The part of the card that a run tells; its weights go into the package."""
    settings = settings_of(run, model)
    content = (run / WEIGHTS).read_bytes()
    images, held_out = digits()
    FOLDER.mkdir(exist_ok=True)
    with whole_file(FOLDER / f"{model}.safetensors", "wb") as file:
        file.write(content)
    return {
        "model": model,
        "weights": "",
        "data": {
            "name": "handwritten digits of scikit-learn (Alpaydin and Kaynak 1998, UCI), 8x8, enlarged to 56x56",
            "license": "CC BY 4.0",
            "training": len(images),
            "held_out": len(held_out),
            "split": "permutation of all pictures by numpy's default_rng(0); the first fifth is held out",
        },
        "recipe": settings["recipe"],
        "options": settings["options"],
        "seed": settings["seed"],
        "accuracy": {},
        "log": settings["log"],
        "adaptivity": {},
        "sha256_of_file": hashlib.sha256(content).hexdigest(),
    }


def measured(card: dict[str, Any], other_runs: list[Path]) -> dict[str, Any]:
    """The card with what is measured on the packaged weights and, for the spread, on those of other seeds."""
    model, options = card["model"], card["options"]
    _, held_out = digits()

    def with_weights(path: Path) -> torch.nn.Module:
        network = horinsight.create_model(model, pretrained=False, **options)
        horinsight.load_checkpoint(network, path)
        return network

    trained = with_weights(FOLDER / f"{model}.safetensors")
    initial = horinsight.create_model(model, pretrained=False, seed=card["seed"], **options)
    pictures = horinsight.image_batch(trained, [held_out.picture(index) for index in range(NUM_IMAGES)])
    share = accuracy(trained, held_out)
    margin = NORMAL_95 * (share * (1 - share) / len(held_out)) ** 0.5
    spread = card["accuracy"].get("over_seeds")
    if other_runs:
        settings = [settings_of(run, model) for run in other_runs]
        if any(found["recipe"] != card["recipe"] or found["options"] != options for found in settings):
            raise SystemExit("The other runs have another recipe.")
        shares = [share, *(accuracy(with_weights(run / WEIGHTS), held_out) for run in other_runs)]
        spread = {
            "seeds": [card["seed"], *(found["seed"] for found in settings)],
            "held_out": shares,
            "mean": float(np.mean(shares)),
            "standard_deviation": float(np.std(shares, ddof=1)),
        }
    return {
        **card,
        "weights": f"trained: digits, {100 * share:.2f} % of {len(held_out)} held-out pictures right, seed "
        f"{card['seed']}",
        "accuracy": {"held_out": share, "interval": [share - margin, min(1.0, share + margin)], "over_seeds": spread},
        "adaptivity": {"trained": adaptivity_of(trained, pictures), "initial": adaptivity_of(initial, pictures)},
        "sha256_of_values": weights_sha256(trained),
        "versions": horinsight.Provenance("", "", None, "", (), 0).versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of the model")
    parser.add_argument("--run", type=Path, help="output folder of the training whose weights are packaged")
    parser.add_argument("--other-runs", type=Path, nargs="+", default=[], help="of other seeds, for the spread")
    arguments = parser.parse_args()
    card = card_of(arguments.run, arguments.model) if arguments.run else model_card(arguments.model)
    card = measured(card, arguments.other_runs)
    with whole_file(FOLDER / f"{arguments.model}.json") as file:
        json.dump(plain(card), file, indent=1)
        file.write("\n")
    print(card["weights"])
    print(json.dumps(plain(card["accuracy"])))
    for key in KEYS:
        print(key, {which: numbers[key]["interval"] for which, numbers in card["adaptivity"].items()})


if __name__ == "__main__":
    main()
