"""Whether a map shows what the model goes by: curves of each picture, beside maps that never saw the model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.attribution.control_maps import CONTROLS, CONTROLS_IN_WORDS, control_maps
from horinsight.attribution.faithfulness_options import FaithfulnessKeywords, FaithfulnessOptions
from horinsight.attribution.faithfulness_parts import merged_faithfulness
from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.attribution.map_cells import CellGrid, cell_values
from horinsight.attribution.method_calls import Method, called
from horinsight.attribution.perturbation_curves import (
    Score,
    cell_order,
    perturbation_curves,
    probability,
    step_counts,
)
from horinsight.attribution.picture_baselines import PictureBaseline, black_colour, named_baseline
from horinsight.capture import check_batch, evaluation, image_size_of, run
from horinsight.data.picture_stream import PictureStream
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.options import made
from horinsight.results import Provenance

BASELINES = ("black", "mean", "blur")


def faithfulness(
    model: nn.Module,
    images: Tensor | PictureStream,
    targets: Tensor,
    methods: Mapping[str, Method],
    *,
    baselines: Sequence[str | PictureBaseline] = BASELINES,
    options: FaithfulnessOptions | None = None,
    finished: Sequence[Faithfulness] = (),
    on_picture: Callable[[Faithfulness], None] | None = None,
    **given: Unpack[FaithfulnessKeywords],
) -> Faithfulness:
    """Insertion and deletion curves of maps, their areas, and what they have over maps that never saw the model.

    Cells of a picture are put into a baseline, or replaced by it, in the order of each map; the score of the target is
    followed (Petsiuk et al. 2018). The controls, `CONTROLS_IN_WORDS`, go through the same.

    Args:
        model: a classifier, from (B, C, H, W) to (B, classes); left as it was.
        images: (B, C, H, W), prepared as the model expects them, or a stream of pictures (`picture_stream`), of which a
            batch is in memory; those of its first batch are what the baseline "others" draws from.
        targets: (B,), the class whose score is followed, for each.
        methods: name → from images (1, C, H, W) and targets (1,) to a map (1, H, W), or on a coarser grid. They are
            called picture by picture, with the model in eval mode, parameters frozen, gradients on, and torch's random
            numbers from the seed and the picture's number.
        baselines: names ("black", "mean", "blur", "others") or `PictureBaseline`s; two and more for a ranking.
        options: grid, steps, seed; the defaults when None.
        finished: results of pictures of these that need not be measured again, as from an interrupted run.
        on_picture: called with each picture's result, for progress and to keep what is finished.
        **given: fields of `FaithfulnessOptions` as keyword arguments, in place of those of `options`; `score`, from
            logits (n, classes) and targets (n,) to (n,), in place of the probability; `background`, (C,), the colour
            that the control "intensity" counts from, in place of black; `model_name` and `image_names`.

    Returns:
        The curves of all pictures, with a table and, as far as two baselines agree, a ranking.

    Raises:
        TypeError: an argument that is no option, a method that gives no tensor.
        ValueError: shapes that do not fit, a name that is used twice, a map or score that is not finite.

    Example:
        >>> model = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2)).eval()
        >>> images, targets = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 0])
        >>> found = faithfulness(model, images, targets, {"sum": lambda x, t: x.sum(1)}, rows=4, columns=4, steps=4)
        >>> found.areas.shape  # one method and three controls, three baselines, three pictures
        (4, 3, 3)
    """
    numbers = {int(number) for part in finished for number in part.pictures}
    waiting = [number for number in range(len(images)) if number not in numbers]
    parts = [*finished]
    for part in faithfulness_by_picture(
        model, images, targets, methods, baselines=baselines, options=options, pictures=waiting, **given
    ):
        if len(parts) == len(finished):
            merged_faithfulness([*parts, part])  # whether they fit is to be known before hours of work
        parts.append(part)
        if on_picture is not None:
            on_picture(part)
    return merged_faithfulness(parts)


def faithfulness_by_picture(
    model: nn.Module,
    images: Tensor | PictureStream,
    targets: Tensor,
    methods: Mapping[str, Method],
    *,
    baselines: Sequence[str | PictureBaseline] = BASELINES,
    options: FaithfulnessOptions | None = None,
    pictures: Sequence[int] | None = None,
    **given: Unpack[FaithfulnessKeywords],
) -> Iterator[Faithfulness]:
    """`faithfulness` of one picture after the other: who stops early keeps what is done (`merged_faithfulness`).

    Of any number of pictures the table comes from sums, `RunningFaithfulness`, that do not grow with them.

    Args:
        model: see `faithfulness`, as are all but the next. Between two pictures it is as it was.
        images: all pictures.
        targets: of all.
        methods: name → method.
        baselines: names or values.
        options: how.
        pictures: numbers of those that are measured, of a stream in its order; all when None. What is drawn for a
            picture depends on its number.
        **given: see `faithfulness`.
    """
    score = given.pop("score", None) or probability
    background, model_name, names = (given.pop(key, None) for key in ("background", "model_name", "image_names"))  # type: ignore[misc]
    options = made(FaithfulnessOptions, options, given, caller="faithfulness")
    _check_targets(images, targets)
    if isinstance(images, PictureStream):
        size, first, count = images.image_size, next(iter(images)).images, len(images)
    else:
        size, first, count = image_size_of(images), images, len(images)
    seed = options.seed
    job = _Job(
        model,
        score,
        options,
        methods,
        [named_baseline(one, model, first, seed=seed) if isinstance(one, str) else one for one in baselines],
        CellGrid(options.rows, options.columns, *size),
        torch.as_tensor(black_colour(model, size) if background is None else background, device="cpu"),
        ", black after normalisation" if background is None else ", as given",
    )
    job.check()
    if names is None:
        names = images.names if isinstance(images, PictureStream) else picture_names(images)
    names = tuple(names)
    origin = model_provenance(model, model_name=model_name, image_names=names, seed=options.seed)
    chosen = range(count) if pictures is None else [int(number) for number in pictures]
    for batch, place, number in _placed(images, chosen):
        own = names[number] if len(names) == count else f"number {number} of {', '.join(names)}"
        yield job.result(batch, place, number, targets[number : number + 1], replace(origin, images=(own,)))


def _placed(images: Tensor | PictureStream, chosen: Sequence[int]) -> Iterator[tuple[Tensor, int, int]]:
    """Batch, place in it and number of each picture that is measured."""
    if isinstance(images, Tensor):
        for number in chosen:
            yield images.detach(), number, number
        return
    wanted = set(chosen)
    for batch in images if wanted else ():
        for place in range(len(batch.names)):
            if batch.start + place in wanted:
                yield batch.images, place, batch.start + place
        del batch  # before the next one is made


@dataclass(frozen=True)
class _Job:
    """What is the same for all pictures."""

    model: nn.Module
    score: Score
    options: FaithfulnessOptions
    methods: Mapping[str, Method]
    baselines: Sequence[PictureBaseline]
    grid: CellGrid
    background: Tensor
    background_words: str

    def check(self) -> None:
        names = [one.name for one in self.baselines]
        if not self.methods or not names:
            raise ValueError("faithfulness expects at least one method and one baseline, got none.")
        for kind, given in (("methods", [*self.methods, *CONTROLS]), ("baselines", names)):
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                raise ValueError(f"faithfulness expects {kind} with names of their own, got {twice[0]!r} twice.")

    def result(self, images: Tensor, place: int, index: int, target: Tensor, origin: Provenance) -> Faithfulness:
        """Of one picture, by its place among these and its number among all."""
        image, options = images[place : place + 1], self.options
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(evaluation(self.model))
            orders = np.stack(
                [cell_order(values, seed=options.seed, index=index) for values in self.values(image, target, index)]
            )
            stack.enter_context(torch.no_grad())
            curves = [
                perturbation_curves(
                    lambda x: self.scores(x, target),
                    image[0],
                    baseline.of_one(images, place, index),
                    orders,
                    grid=self.grid,
                    counts=step_counts(len(self.grid), options.steps),
                    batch_size=options.batch_size,
                )
                for baseline in self.baselines
            ]
        insertion, deletion = (np.stack(part, axis=1)[:, :, None] for part in zip(*curves, strict=True))
        return Faithfulness(
            methods=tuple(self.methods),
            controls=CONTROLS,
            baselines=tuple(one.name for one in self.baselines),
            shares=step_counts(len(self.grid), options.steps) / len(self.grid),
            insertion=insertion,
            deletion=deletion,
            pictures=np.array([index]),
            targets=target.cpu().numpy().astype(np.int64),
            seed=options.seed,
            convention=self.convention(image),
            provenance=origin,
        )

    def values(self, image: Tensor, target: Tensor, index: int) -> Iterator[np.ndarray]:
        """(cells,) of each method's map and of each control's."""
        for name, method in self.methods.items():
            maps = called(method, image, target, name=name, seeds=[self.options.seed, index])
            yield cell_values(maps, self.grid, self.options.spread)[0].cpu().numpy()
        for control in control_maps(self.grid, self.background, seed=self.options.seed).values():
            yield cell_values(control(image, index), self.grid)[0].cpu().numpy()

    def scores(self, x: Tensor, target: Tensor) -> Tensor:
        """(n,), of pictures (n, C, H, W)."""
        logits: Any = run(self.model, x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or int(target) >= logits.shape[1]:
            what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"faithfulness expects logits (B, classes) with a class {int(target)}, got {what}.")
        scores = self.score(logits, target.to(logits.device).expand(len(x)))
        if scores.shape != (len(x),) or not bool(scores.isfinite().all()):
            raise ValueError(
                f"faithfulness expects finite scores, a number a picture, ({len(x)},), got {tuple(scores.shape)}."
            )
        return scores

    def convention(self, image: Tensor) -> dict[str, str]:
        """What is computed, in words."""
        options, colour = self.options, ", ".join(f"{value:.3g}" for value in self.background.tolist())
        size = "x".join(map(str, image.shape[2:]))
        ours = self.score is probability
        return {
            "score": "probability (softmax) of the target" if ours else getattr(self.score, "__name__", "a function"),
            "area": "insertion - deletion, trapezoids over the share of cells",
            "cells": f"{options.rows}x{options.columns} of {size} pixels, a map's mean in each",
            "coarser_maps": f"{options.spread}, but those on the grid of the cells as they are",
            "ties": "in an order drawn for each picture with the seed, the same for all maps",
            **{f"baseline {one.name}": one.words for one in self.baselines},
            **{f"control {name}": words for name, words in CONTROLS_IN_WORDS.items()},
            "background": f"({colour}){self.background_words}",
            "interval": "95 % for images like these: Student's over pictures, of differences on the same pictures",
            "dtype": str(image.dtype).removeprefix("torch."),
        }


def _check_targets(images: Tensor | PictureStream, targets: object) -> None:
    if not isinstance(images, PictureStream):
        check_batch(images)
    fits = isinstance(targets, Tensor) and targets.shape == (len(images),) and not targets.is_floating_point()
    if not fits or int(targets.min()) < 0:  # type: ignore[attr-defined]
        what = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise ValueError(f"faithfulness expects a class for each image, whole numbers ({len(images)},), got {what}.")
