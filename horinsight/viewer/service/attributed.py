"""Attributions of a picture, method by method, and the curves of their maps; what is finished is kept for everybody."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from horinsight.attribution.attribution_methods import ATTRIBUTION_METHODS
from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
from horinsight.attribution.attributions_by_method import AttributionQuestion, Attributions, attributions_by_method
from horinsight.attribution.faithfulness import faithfulness
from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.models.packaged_weights import packaged_weights
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.kept import Kept
from horinsight.viewer.service.model_pool import ModelKey, shared_model
from horinsight.viewer.service.pictures import Source, prepared

KEPT = 200  # maps of one picture, each of up to some megabytes
CELLS = 14  # rows and columns that come and go in curves
STEPS = 14  # of curves
BASELINES = ("black", "mean", "blur")
SLOW = ("perturbation",)  # families that run the model hundreds of times


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
    return small and all(ATTRIBUTION_METHODS[name].family not in SLOW for name in methods)


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
    with GATE.long_slot() as slot:
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
    with GATE.long_slot() as slot:
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
