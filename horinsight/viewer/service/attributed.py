"""Attributions of a picture, method by method, and the curves of their maps; what is finished is kept for everybody."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.attribution.attribution_methods import ATTRIBUTION_METHODS
from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
from horinsight.attribution.attributions_by_method import AttributionQuestion, Attributions, attributions_by_method
from horinsight.attribution.captum_methods import STEPS as STEPS_OF_PATHS
from horinsight.attribution.faithfulness import faithfulness
from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.models.packaged_weights import packaged_weights
from horinsight.pauses import pauses_everywhere
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import ModelKey, shared_model
from horinsight.viewer.service.pictures import Source, prepared

KEPT = 200  # maps of one picture, each of up to some megabytes
CELLS = 14  # rows and columns that come and go in curves
STEPS = 14  # of curves
BASELINES = ("black", "mean", "blur")
SLOW = ("perturbation",)  # families that run the model hundreds of times
SLOW_METHODS = ("influence_rollout",)  # which differentiates every block for each of its draws
FEW_RUNS = 10  # of what is a gradient, or a look at the blocks
CONTROLS = 3  # maps that never see the model, whose curves come along
WINDOWS = 7  # squares along a side, and with half steps 13


@dataclass(frozen=True)
class Explained:
    """What is explained, to everybody who asks the same.

    Attributes:
        key: of the model.
        picture_id: of the picture.
        baseline: what stands for nothing.
        block: whose position is explained; a class when None.
        query: that position.
        layer: the block that layer methods tell of.
    """

    key: ModelKey
    picture_id: str
    baseline: str
    block: int | None
    query: tuple[int, int] | None
    layer: int


MAPS: Kept[tuple[Explained, str], Attributions | str] = Kept(KEPT)
CURVES: Kept[tuple[Explained, tuple[str, ...]], Faithfulness | str] = Kept(KEPT)


def offered(*, position: bool) -> list[str]:
    """Names of the methods that can answer."""
    question = "position" if position else "prediction"
    outside = {"mixing_weights"} if position else set()  # which tell of the mixer's input and not of the picture
    return [name for name, one in ATTRIBUTION_METHODS.items() if question in one.answers and name not in outside]


def is_quick(explained: Explained, methods: Sequence[str]) -> bool:
    """Whether all of it takes some seconds: small models that come trained, no method that runs a model often."""
    small = bool(packaged_weights(explained.key.name))
    return small and all(ATTRIBUTION_METHODS[name].family not in SLOW and name not in SLOW_METHODS for name in methods)


def has_classes(model: nn.Module) -> bool:
    """Whether there is a class to explain: timm's models without a head say 0 of them."""
    return getattr(model, "num_classes", None) != 0


def model_runs(method: str) -> int:
    """About how often a method runs the model for a class of one picture; for a position at least that often."""
    found = ATTRIBUTION_METHODS[method]
    if method == "occlusion":
        return (2 * WINDOWS - 1) ** 2
    if method == "feature_ablation":
        return WINDOWS**2
    if method == "shapley_value_sampling":
        return WINDOWS**2 * (found.samples or 1)
    if "steps" in found.needs:
        return STEPS_OF_PATHS
    return max(FEW_RUNS, found.samples or 1)


def curve_runs(num_maps: int) -> int:
    """About how often the curves of so many maps run the model."""
    return 2 * STEPS * (num_maps + CONTROLS)


def price(explained: Explained, names: Sequence[str]) -> str:
    """What asking costs, before it is asked."""
    position = explained.block is not None
    runs = [f"{name.replace('_', ' ')} {_said_runs(name)}" for name in names]
    if not position:
        runs.append(f"their curves about {curve_runs(len(names))}")
    more = " Positions cost more: a run for each channel where gradients are asked for." if position else ""
    return f"Press Ask: methods appear as they are finished. Runs of the model: {', '.join(runs)}.{more}"


def _said_runs(name: str) -> str:
    if name in SLOW_METHODS:
        return f"a few, and derivatives of every block for each of {ATTRIBUTION_METHODS[name].samples} draws"
    runs = model_runs(name)
    return "a few" if runs <= FEW_RUNS else f"about {runs}"


def attribute(explained: Explained, method: str, source: Source) -> None:
    """Ask one method, and keep what it says or why it cannot.

    Raises:
        BusyError: the gate was taken for too long.
    """
    shared, picture = shared_model(explained.key), prepared(source, explained.key)
    question = AttributionQuestion(
        block=explained.block,
        queries=None if explained.query is None else [explained.query],
        baseline=explained.baseline,
    )
    with GATE.long_slot() as slot, pauses_everywhere():
        if MAPS.get((explained, method)) is not None:
            return
        try:
            ((_, found, _),) = attributions_by_method(
                shared.replicas[slot],
                picture.batch,
                [method],
                question,
                options=AttributionOptions(layer=str(explained.layer)),
                provenance=replace(shared.provenance, images=(picture.label,)),
            )
        except ValueError as error:
            MAPS.put((explained, method), str(error))
        else:
            MAPS.put((explained, method), found)


def shown_map(found: Attributions, method: str) -> np.ndarray:
    """(rows, columns) of the one picture and position."""
    maps = found.maps[:, 0] if isinstance(found, PositionAttributions) else found.maps[method]
    first: np.ndarray = maps[0]
    return first


def follow(explained: Explained, methods: Sequence[str], source: Source) -> None:
    """Insertion and deletion curves of finished maps, and keep them.

    Raises:
        BusyError: the gate was taken for too long.
    """
    known = {method: MAPS.get((explained, method)) for method in methods}
    found = {method: one for method, one in known.items() if isinstance(one, PredictionAttributions)}
    if not found:
        return
    targets = torch.from_numpy(next(iter(found.values())).targets)

    def as_method(values: np.ndarray) -> object:
        def given(images: Tensor, _: Tensor) -> Tensor:
            return torch.from_numpy(values)[None].to(images)

        return given

    shared, picture = shared_model(explained.key), prepared(source, explained.key)
    key = (explained, tuple(found))
    with GATE.long_slot() as slot, pauses_everywhere():
        if CURVES.get(key) is not None:
            return
        try:
            curves = faithfulness(
                shared.replicas[slot],
                picture.batch,
                targets,
                {method: as_method(shown_map(one, method)) for method, one in found.items()},  # type: ignore[misc]
                baselines=[explained.baseline],
                rows=CELLS,
                columns=CELLS,
                steps=STEPS,
                model_name=explained.key.name,
                image_names=[picture.label],
            )
        except ValueError as error:
            CURVES.put(key, str(error))
        else:
            CURVES.put(key, curves)
