"""Interactions of trained networks on the ten functions of Tsang et al. 2018, by E[D_a D_b]: one network and three.

python experiments/tsang_networks.py            # ten functions x three networks
python experiments/tsang_networks.py --functions F1 F5 --seeds 1

Each network (GELU, 140-100-60-20, no penalty but weight decay) learns from 10 000 points. A single network's E[D²] is
biased by its own curvature; the mean of the products of two different networks is not. The published average of
NID (neural interaction detection, ReLU networks with L1 and a univariate part) over the ten is 0.92.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from horinsight import interaction_effects
from horinsight.interaction.known_functions import KnownFunction, pairwise_auc, tsang_functions
from horinsight.whole_file import whole_file

WIDTHS = (140, 100, 60, 20)
NUM_POINTS = 10_000
BATCH = 250


class Network(nn.Module):
    """A perceptron with GELU on standardised inputs, from (N, d) to (N,)."""

    def __init__(self, known: KnownFunction) -> None:
        super().__init__()
        low, high = torch.tensor(known.low), torch.tensor(known.high)
        self.register_buffer("centre", (low + high) / 2)
        self.register_buffer("width", (high - low) / 12**0.5)
        sizes = (len(known.low), *WIDTHS)
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.GELU())]
        self.layers = nn.Sequential(*layers, nn.Linear(WIDTHS[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N,)."""
        return self.layers((x - self.centre) / self.width).squeeze(1)


def trained_network(known: KnownFunction, *, seed: int, epochs: int = 150) -> tuple[Network, float]:
    """A network that learned the function (standardised) from its own 10 000 points, and its R² on fresh ones."""
    points = [known.inputs(NUM_POINTS, seed=1000 * seed + part) for part in (1, 2)]
    values = [known.function(x) for x in points]
    mean, spread = values[0].mean(), values[0].std()
    (x, y), (x_test, y_test) = ((a.float(), ((b - mean) / spread).float()) for a, b in zip(points, values, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(known).float()
        steps = epochs * (NUM_POINTS // BATCH)
        optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
        for _ in range(epochs):
            for rows in torch.randperm(NUM_POINTS).split(BATCH):
                loss = (network(x[rows]) - y[rows]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    with torch.no_grad():
        error = (network(x_test) - y_test).square().mean() / y_test.var()
    return network.eval().requires_grad_(False), 1 - float(error)


def areas(known: KnownFunction, networks: Sequence[Network], *, num_inputs: int = 10_000) -> tuple[list[float], float]:
    """Areas under the ROC curve of each network alone, and of the cross product over all of them."""
    x = known.inputs(num_inputs, seed=99).float()
    pairs = list(combinations(range(x.shape[1]), 2))

    def area(functions: Sequence[Network]) -> float:
        effects = interaction_effects(list(functions), x, pairs)
        return pairwise_auc({pair: e.value for pair, e in effects.items()}, known.interacting_pairs())

    return [area([network]) for network in networks], area(networks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", nargs="+", default=list(tsang_functions()), choices=list(tsang_functions()))
    parser.add_argument("--seeds", type=int, default=3, help="networks per function")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--output", type=Path, help="keep the table as JSON")
    arguments = parser.parse_args()
    rows = []
    print("function   exact   one network (mean of them)   cross product   R²")
    for name in arguments.functions:
        start = time.monotonic()
        known = tsang_functions()[name]
        exact = interaction_effects(known.function, known.inputs(10_000), list(combinations(range(10), 2)))
        truth = pairwise_auc({pair: e.value for pair, e in exact.items()}, known.interacting_pairs())
        found = [trained_network(known, seed=seed, epochs=arguments.epochs) for seed in range(arguments.seeds)]
        alone, crossed = areas(known, [network for network, _ in found])
        row = {"function": name, "exact": truth, "alone": alone, "crossed": crossed, "r2": [r2 for _, r2 in found]}
        rows.append(row)
        print(
            f"{name:8} {truth:7.4f}   {np.mean(alone):.4f} ({', '.join(f'{a:.3f}' for a in alone)})   {crossed:.4f}   "
            f"{min(row['r2']):.4f}   {time.monotonic() - start:.0f} s",
            flush=True,
        )
    alone, crossed = np.mean([np.mean(row["alone"]) for row in rows]), np.mean([row["crossed"] for row in rows])
    print(f"mean     {np.mean([row['exact'] for row in rows]):7.4f}   {alone:.4f}   {crossed:.4f}")
    if arguments.output:
        with whole_file(arguments.output) as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
