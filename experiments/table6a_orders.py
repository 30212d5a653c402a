"""Table 6a's question on digits: does accuracy rise with the order? n = 1..5 and a plain depthwise convolution.

python experiments/table6a_orders.py --output table6a            # an hour on two cores; goes on where it was stopped
python experiments/table6a_orders.py --output table6a --orders 0 5 --seeds 1 --epochs 5

All networks are isotropic, 4 blocks of width 32 on the 14x14 map of `hornet_digits_iso`, and learn with its recipe from
the same 1 438 digits; only the mixer differs (order 0: the depthwise convolution alone). Printed for each: accuracy on
the 359 held-out digits, mean over the seeds with their standard deviation, beside the explicit location order that was
measured on the trained weights and the multiply-accumulates that were counted. The table goes to table6a.json.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

import horinsight
from horinsight.data.datasets import digits
from horinsight.models.registry import input_size
from horinsight.results import plain
from horinsight.training.recipe import RECIPES
from horinsight.training.trainer import TrainedModel, train
from horinsight.whole_file import whole_file

DIM, DEPTH = 32, 4
NUM_IMAGES = 4  # held-out digits that the order is measured on


def trained(order: int, seed: int, epochs: int, folder: Path) -> TrainedModel:
    """One network; a run that was stopped goes on, a finished one is read."""
    images, held_out = digits()
    recipe = dataclasses.replace(RECIPES["digits"], epochs=epochs)
    layout: dict[str, Any] = {"dim": DIM, "depth": DEPTH} | ({"order": order} if order else {})
    model = "hornet_digits_iso" if order else "dwconv_digits_iso"
    return train(model, images, held_out, recipe, folder, seed=seed, resume=True, **layout)


def row_of(order: int, models: list[TrainedModel]) -> dict[str, Any]:
    """Accuracy over the seeds, measured order, counted cost."""
    _, held_out = digits()
    network = models[0].model
    pictures = horinsight.image_batch(network, [held_out.picture(index) for index in range(NUM_IMAGES)])
    spectra = horinsight.model_interaction_spectra(network, pictures)
    count = horinsight.count_macs(network, input_size(network))
    shares = np.array([found.log[-1].ema_accuracy for found in models])
    return {
        "mixer": f"g{order}Conv 7x7" if order else "depthwise convolution 7x7",
        "design_order": order,
        "measured_orders": [spectrum.location_order for spectrum in spectra.values()],
        "largest_effects": [float(spectrum.effects[order]) for spectrum in spectra.values()],
        "accuracies": shares,
        "accuracy": shares.mean(),
        "standard_deviation": shares.std(ddof=1) if len(shares) > 1 else float("nan"),
        "params": count.params,
        "macs": count.macs,
        "weights_sha256": [found.weights_sha256 for found in models],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5], choices=range(6))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs and table6a.json")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print("mixer                       held-out accuracy    order measured   M params   M MACs", flush=True)
    rows = []
    for order in arguments.orders:
        folders = [arguments.output / f"order{order}_seed{seed}" for seed in range(arguments.seeds)]
        row = row_of(order, [trained(order, seed, arguments.epochs, at) for seed, at in enumerate(folders)])
        rows.append(row)
        orders = ", ".join(map(str, sorted(set(row["measured_orders"]))))
        spread = f"{100 * row['accuracy']:6.2f} ± {100 * row['standard_deviation']:.2f} %"
        print(
            f"{row['mixer']:26} {spread}     {orders:14}  {row['params'] / 1e6:9.3f} {row['macs'] / 1e6:8.2f}",
            flush=True,
        )
        with whole_file(arguments.output / "table6a.json") as file:
            json.dump(plain({"epochs": arguments.epochs, "seeds": arguments.seeds, "rows": rows}), file, indent=1)


if __name__ == "__main__":
    main()
