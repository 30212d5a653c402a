"""Attributions of many pictures, batch by batch: numbers of all of them, and the maps of those that are shown."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.attribution.attribution_parts import Attributions, attributions_of_batches, attributions_of_some
from horinsight.cli.attribute_report import attribution_rows
from horinsight.results import Provenance

if TYPE_CHECKING:
    from torch import nn

    from horinsight.attribution.attributions_by_method import AttributionQuestion
    from horinsight.data.picture_stream import PictureStream


@dataclass(frozen=True, eq=False)
class AttributedStream:
    """What is asked of which pictures.

    Attributes:
        model: the network.
        stream: all pictures; those of its first batch stand for others where a method compares with some.
        question: what is explained.
        options: how.
        origin: model, weights and all pictures.
        numbers: of the pictures that are shown.
    """

    model: "nn.Module"
    stream: "PictureStream"
    question: "AttributionQuestion"
    options: AttributionOptions
    origin: Provenance
    numbers: Sequence[int]

    def attributed(self, method: str) -> tuple[Attributions, list[dict[str, Any]]]:
        """What a method says of the pictures that are shown, and the rows of all.

        Raises:
            ValueError: it cannot run here.
        """
        from horinsight.attribution.attributions_by_method import attributions_by_method

        rows: list[dict[str, Any]] = []
        parts: list[Attributions] = []
        seconds, references = 0.0, None
        for batch in self.stream:
            references = batch.images if references is None else references
            ((_, found, spent),) = attributions_by_method(
                self.model,
                batch.images,
                [method],
                self.question,
                options=self.options,
                provenance=replace(self.origin, images=batch.names),
                references=references,
            )
            rows += attribution_rows(method, found, batch.names)
            here = range(batch.start, batch.start + len(batch.names))
            places = [number - batch.start for number in self.numbers if number in here]
            if places or not parts:
                parts.append(attributions_of_some(found, places))
            seconds += spent
            del batch, found  # before the next one is made
        return attributions_of_batches(parts), [{**row, "seconds": seconds} for row in rows]
