"""One question put to several methods, one after the other, each as soon as it is done."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import torch
from torch import Tensor, nn

from horinsight.attribution.attribution_methods import AttributionMethod, attribution_method
from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.attribution.attribution_results import PositionAttributions, PredictionAttributions
from horinsight.attribution.explained_block import BlockName, Of
from horinsight.attribution.picture_baselines import mean_baseline, named_baseline
from horinsight.attribution.position_attribution import position_attribution
from horinsight.attribution.prediction_attribution import prediction_attribution
from horinsight.mixing.output_positions import Queries
from horinsight.results import Provenance

Attributions = PredictionAttributions | PositionAttributions
Finished = Callable[[str, Attributions, float], None]
FEWEST = 3  # pictures that stand for one another where a method compares with several


@dataclass(frozen=True)
class AttributionQuestion:
    """What is to be explained.

    Attributes:
        target: class of a prediction; the predicted one when None.
        block: whose positions are explained instead of a prediction.
        queries: (row, column) of each on the block's map; its middle when None.
        of: what positions are explained in.
        baseline: "black", "mean", "blur" or "others": what stands for nothing in a picture; 0 in a block's input.
    """

    target: int | None = None
    block: BlockName | None = None
    queries: Queries | None = None
    of: Of = "image"
    baseline: str = "black"

    def methods(self, names: Sequence[str]) -> list[AttributionMethod]:
        """The methods of these names.

        Raises:
            ValueError: one is no method, or cannot answer this.
        """
        return [attribution_method(name, "prediction" if self.block is None else "position") for name in names]


def attributions_by_method(
    model: nn.Module,
    images: Tensor,
    methods: Sequence[str],
    question: AttributionQuestion,
    *,
    options: AttributionOptions | None = None,
    provenance: Provenance | None = None,
    on_refusal: Callable[[str, ValueError], None] | None = None,
    references: Tensor | None = None,
) -> Iterator[tuple[str, Attributions, float]]:
    """Name, attributions and seconds of each method, as soon as it is done.

    Args:
        model: a classifier, or a network with blocks; left as it was.
        images: (B, 3, H, W), prepared.
        methods: names, of `ATTRIBUTION_METHODS`; looked up before any is run.
        question: what is explained.
        options: how; the defaults when None.
        provenance: of the results; as far as model and images tell when None.
        on_refusal: called with a method that cannot run here, and why; raised when None.
        references: pictures that stand for others where a method compares with several, or a picture with another, as
            where the images are a batch of many; the images themselves when None.

    Raises:
        ValueError: no such method, class, block or position; a method that cannot run here.
    """
    options = options or AttributionOptions()
    for method in question.methods(methods):
        start = monotonic()
        try:
            found = _attributed(model, images, method, question, options, images if references is None else references)
        except ValueError as error:
            if on_refusal is None:
                raise
            on_refusal(method.name, error)
            continue
        found = found if provenance is None else replace(found, provenance=provenance)
        yield method.name, found, monotonic() - start


def _attributed(
    model: nn.Module,
    images: Tensor,
    method: AttributionMethod,
    question: AttributionQuestion,
    options: AttributionOptions,
    references: Tensor,
) -> Attributions:
    def baselines() -> Tensor | None:
        return baseline_maps(method, question.baseline, model, images, seed=options.seed, references=references)

    if question.block is None:
        return prediction_attribution(
            model,
            images,
            target=question.target,
            methods=[method.name],
            baselines=baselines(),
            options=options,
        )
    of = question.of
    return position_attribution(
        model,
        images,
        block=question.block,
        queries=question.queries,
        method=method.name,
        of=of,
        baselines=baselines() if of == "image" else 0.0,
        options=options,
    )


def baseline_maps(
    method: AttributionMethod,
    baseline: str,
    model: nn.Module,
    images: Tensor,
    *,
    seed: int = 0,
    references: Tensor | None = None,
) -> Tensor | None:
    """(M, C, H, W), what stands for nothing in each picture; None for a method that compares with nothing.

    A method that compares with several takes the pictures themselves where there are three and more, else black and the
    mean of the pictures' colours.

    Args:
        method: see `ATTRIBUTION_METHODS`.
        baseline: "black", "mean", "blur" or "others".
        model: whose black it is.
        images: (B, C, H, W), as the model takes them.
        seed: of "others".
        references: see `attributions_by_method`.
    """
    among = images if references is None else references
    if "baselines" in method.needs:
        if len(among) >= FEWEST:
            return among.detach()
        colour = mean_baseline(among.mean((0, 2, 3)).double())
        black = named_baseline("black", model, images)
        return torch.stack([one.picture(images, 0) for one in (black, colour)])
    if "baseline" not in method.needs:
        return None
    chosen = named_baseline(baseline, model, among, seed=seed)
    return torch.stack([chosen.picture(images, index) for index in range(len(images))])


def together(parts: Sequence[PredictionAttributions]) -> PredictionAttributions:
    """The answers of several methods to one question as one result.

    Args:
        parts: at least one, of the same pictures and classes.
    """
    first = parts[0]
    attributions, gaps, convention = dict(first.attributions), dict(first.gaps), dict(first.convention)
    for part in parts[1:]:
        attributions |= part.attributions
        gaps |= part.gaps
        convention |= part.convention
    return replace(first, attributions=attributions, gaps=gaps, convention=convention)
