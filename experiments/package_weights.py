"""Puts the weights of a finished training run into the package, with their model card.

python experiments/package_weights.py digits_run hornet_digits_iso

The run is one of `horinsight train --model hornet_digits_iso --data digits --output digits_run`. The card holds data,
split, recipe, seed, held-out accuracy, versions, hashes, and the adaptivity of the mixing weights beside that of the
random initialisation. The same measurements are repeated by `tests/models/test_packaged_weights.py`.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch

import horinsight
from horinsight.data.datasets import digits
from horinsight.models.registry import weights_sha256
from horinsight.results import plain, whole_file
from horinsight.training.trainer import CHECKPOINT, WEIGHTS, accuracy

FOLDER = Path(horinsight.__file__).parent / "models" / "weights"
NUM_IMAGES = 24  # held-out digits whose mixing weights are measured


def adaptivity_of(model: torch.nn.Module, images: torch.Tensor) -> dict[str, object]:
    """Shares over all blocks: mean and 95 % interval over images, and per block."""
    found = horinsight.model_adaptivity(model, images)
    numbers: dict[str, object] = {"num_images": len(images)}
    for key in ("input_adaptivity", "location_adaptivity", "static_share"):
        estimates = [getattr(block, key) for block in found.values()]
        mean = float(np.mean([estimate.value for estimate in estimates]))
        # blocks see the same images: their errors may all point the same way
        margin = 1.96 * float(np.mean([estimate.standard_error for estimate in estimates]))
        numbers[key] = {
            "mean": round(mean, 4),
            "interval": [round(mean - margin, 4), round(mean + margin, 4)],
            "blocks": [round(estimate.value, 4) for estimate in estimates],
        }
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of the training")
    parser.add_argument("model", help="name of the model")
    arguments = parser.parse_args()
    kept = torch.load(arguments.run / CHECKPOINT, weights_only=True)
    settings = json.loads(kept["settings"])
    if settings["model"] != arguments.model or len(kept["log"]) != settings["recipe"]["epochs"]:
        raise SystemExit(f"{arguments.run} is not a finished run of {arguments.model}.")
    content = (arguments.run / WEIGHTS).read_bytes()
    trained = horinsight.create_model(arguments.model, pretrained=False, **settings["options"])
    horinsight.load_checkpoint(trained, arguments.run / WEIGHTS)
    initial = horinsight.create_model(arguments.model, pretrained=False, seed=settings["seed"], **settings["options"])
    images, held_out = digits()
    pictures = horinsight.image_batch(trained, [held_out.picture(index) for index in range(NUM_IMAGES)])
    share = accuracy(trained, held_out)
    margin = 1.96 * (share * (1 - share) / len(held_out)) ** 0.5
    card = {
        "model": arguments.model,
        "weights": f"trained: digits, {100 * share:.2f} % of {len(held_out)} held-out pictures right, seed "
        f"{settings['seed']}",
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
        "accuracy": {"held_out": share, "interval": [share - margin, min(1.0, share + margin)]},
        "log": kept["log"],
        "adaptivity": {"trained": adaptivity_of(trained, pictures), "initial": adaptivity_of(initial, pictures)},
        "sha256_of_file": hashlib.sha256(content).hexdigest(),
        "sha256_of_values": weights_sha256(trained),
        "versions": horinsight.Provenance("", "", None, "", (), 0).versions,
    }
    FOLDER.mkdir(exist_ok=True)
    with whole_file(FOLDER / f"{arguments.model}.safetensors", "wb") as file:
        file.write(content)
    with whole_file(FOLDER / f"{arguments.model}.json") as file:
        json.dump(plain(card), file, indent=1)
        file.write("\n")
    print(card["weights"])
    print(json.dumps({k: card["adaptivity"][k]["location_adaptivity"]["mean"] for k in ("trained", "initial")}))  # type: ignore[index]


if __name__ == "__main__":
    main()
