"""How long the nine models of Figure 3 take on this server: measured once for every visitor, on request."""

import os
import platform
import statistics
import time
from dataclasses import replace

import torch

import horinsight
from horinsight.cancellation import pause
from horinsight.complexity.published import PublishedRow
from horinsight.figures.tradeoffs import Tradeoff
from horinsight.interaction.graph_meter import in_words
from horinsight.memory_budget import GIGABYTE
from horinsight.viewer.service.block_spectra import memory
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import BUILDING
from horinsight.viewer.service.model_room import model_bytes
from horinsight.viewer.service.paper_counts import Step

IMAGE_SIZE = 224
REPEATS = 7  # forward passes, after one that is not counted
BESIDE_WEIGHTS = 0.5 * GIGABYTE  # activations of one image, and the weights while they are drawn
Points = dict[str, list[tuple[PublishedRow, Tradeoff]]]

LATENCIES: Kept[str, tuple[float, float, float]] = Kept(40)


def with_latencies(families: Points) -> Points:
    """The same points with what was measured, NaN for what was not."""
    unknown = (float("nan"),) * 3

    def timed(row: PublishedRow, point: Tradeoff) -> Tradeoff:
        low, middle, high = LATENCIES.get(row.model) or unknown
        return replace(point, latency_ms=middle, latency_low=low, latency_high=high)

    return {family: [(row, timed(row, point)) for row, point in points] for family, points in families.items()}


def unmeasured(families: Points) -> list[str]:
    """Names of the models whose latency is not known yet."""
    return [row.model for points in families.values() for row, _ in points if LATENCIES.get(row.model) is None]


def measure_latencies(names: list[str], step: Step) -> None:
    """Quartiles of a forward pass with one image and one thread, in milliseconds; what is finished is kept.

    Weights are random: the time does not depend on them. One model is in memory at a time.

    Args:
        names: of models.
        step: shows how far it is, and may end the work, also between two passes (`pause`).

    Raises:
        ValueError: a model does not fit into what the viewer was given.
        BusyError: the gate was taken for too long.
    """
    for place, name in enumerate(names):
        step(place / len(names), f"timing {name}, model {place + 1} of {len(names)}")
        needed, given = model_bytes(name) + BESIDE_WEIGHTS, memory() * GIGABYTE
        if needed > given:
            raise ValueError(
                f"Timing {name} takes {in_words(needed)}, and {in_words(given)} of what the viewer was given are free."
            )
        with GATE.long_slot():
            with BUILDING:
                model = horinsight.create_model(name, pretrained=False).eval()
            x = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
            seconds = []
            with torch.inference_mode():
                for _ in range(1 + REPEATS):
                    pause()
                    began = time.perf_counter()
                    model(x)
                    seconds.append(time.perf_counter() - began)
            del model
        low, middle, high = statistics.quantiles([1e3 * one for one in seconds[1:]], n=4)
        LATENCIES.put(name, (low, middle, high))


def server_machine() -> str:
    """What the latency was measured on, in words."""
    return f"{platform.machine()} server with {os.cpu_count()} cores, one thread, batch 1, float32"
