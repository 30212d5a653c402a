"""What a class's logit is made of, by captum's methods and beside our rollouts."""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.attribution.asked_attribution import (
    AskedAttribution,
    checked_baselines,
    examples_a_call,
    examples_together,
)
from horinsight.attribution.attribution_methods import AttributionMethod, attribution_method
from horinsight.attribution.attribution_options import AttributionKeywords, AttributionOptions
from horinsight.attribution.attribution_results import PredictionAttributions
from horinsight.attribution.explained_layer import explained_layer
from horinsight.attribution.position_attribution import method_convention
from horinsight.attribution.position_targets import class_targets
from horinsight.cancellation import pause
from horinsight.capture import evaluation, image_size_of, run
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.operators.block_operators import widened
from horinsight.options import made


class CopiedInput(nn.Module):
    """A model that gets a copy of its images, which it may normalise in place."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        pause()
        logits: Tensor = self.model(images.clone())
        return logits


def prediction_attribution(
    model: nn.Module,
    images: Tensor,
    *,
    target: int | Sequence[int] | Tensor | None = None,
    methods: Sequence[str] = ("integrated_gradients", "mixing_rollout"),
    baselines: Tensor | float | None = None,
    options: AttributionOptions | None = None,
    **given: Unpack[AttributionKeywords],
) -> PredictionAttributions:
    """The logit of a class, attributed to the pixels or to the cells of a coarser map.

    Args:
        model: a classifier, (B, 3, H, W) to (B, classes); left as it was. One in half precision is explained in
            float32.
        images: (B, 3, H, W), prepared.
        target: the class, or one for each image; the predicted one when None.
        methods: of `ATTRIBUTION_METHODS`. The rollouts tell where the network looks, whatever the class.
        baselines: what stands for nothing: a number, a picture (3, H, W) or one for each image; for methods that need
            several, pictures (M, 3, H, W). As the model takes them, that is after normalisation.
        options: how; the defaults when None.
        **given: fields of `AttributionOptions` in place of those of `options`: layer, steps, window, samples, ...

    Returns:
        Attributions (B, rows, columns, C) of each method, and as maps.

    Raises:
        ValueError: no such method or class; a method without the baseline or the layer that it needs, or one that
            cannot run on this network; a model that does not classify.

    Example:
        >>> import timm
        >>> _ = torch.manual_seed(0)
        >>> model, images = timm.create_model("hornet_test"), torch.randn(2, 3, 64, 64)
        >>> found = prediction_attribution(model, images, methods=["deep_lift", "mixing_rollout"], baselines=0.0)
        >>> {name: maps.shape for name, maps in found.maps.items()}
        {'deep_lift': (2, 64, 64), 'mixing_rollout': (2, 16, 16)}
    """
    options = made(AttributionOptions, options, given, caller="prediction_attribution")
    chosen = [attribution_method(name, "prediction") for name in methods]
    if isinstance(methods, str) or not chosen:
        raise ValueError(f"methods expects a list of names, got {methods!r}.")
    size = image_size_of(images)
    origin = model_provenance(model, image_names=picture_names(images), seed=options.seed)
    model, images = widened(model, images)
    with evaluation(model), torch.no_grad():
        logits = run(model, images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.shape[1]:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"prediction_attribution expects a classifier, (B, 3, H, W) to (B, classes), got {got}.")
    if not logits.isfinite().all():
        raise ValueError(
            "prediction_attribution expects a model whose logits are finite, got NaN or infinity: are its weights "
            "whole, and is the precision wide enough for them?"
        )
    asked: Any = logits.argmax(1) if target is None else target
    targets = class_targets(asked, len(images), logits.shape[1])
    inputs = images.detach().as_subclass(Tensor)
    attributions: dict[str, np.ndarray] = {}
    gaps: dict[str, np.ndarray] = {}
    said: dict[str, str] = {}
    with evaluation(model), torch.inference_mode(False), torch.enable_grad():
        for method in chosen:
            if method.family == "mixing":
                found, gap = _rolled(model, inputs, method, options), None
            else:
                found, gap = _attributed(model, inputs, targets, (method, baselines, options), size)
            attributions[method.name] = found.movedim(1, -1).cpu().numpy()
            gaps |= {} if gap is None else {method.name: gap.cpu().numpy()}
            said[method.name] = "; ".join(
                f"{key}: {words}" for key, words in method_convention(method, options).items()
            )
    return PredictionAttributions(
        attributions=attributions,
        targets=targets.numpy(),
        logits=logits.cpu().gather(1, targets[:, None])[:, 0].numpy(),
        gaps=gaps,
        seed=options.seed,
        convention={"explained": "the logit of the class, before softmax", **said},
        provenance=origin,
    )


def _attributed(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    asked: tuple[AttributionMethod, Tensor | float | None, AttributionOptions],
    size: tuple[int, int],
) -> tuple[Tensor, Tensor | None]:
    from horinsight.attribution.captum_methods import captum_attributions

    method, given, options = asked
    baselines = checked_baselines(method, given, images)
    forward = CopiedInput(model)
    together = examples_together(method, forward, images, None, options)
    layer = None
    if "layer" in method.needs:
        layer = explained_layer(model, forward, images, None, layer=options.layer, method=method.name, image_size=size)
    each = baselines is not None and "baseline" in method.needs and len(baselines) == len(images)
    found = []
    for part in torch.arange(len(images), device="cpu").split(examples_a_call(method, together)):
        question = AskedAttribution(
            forward=forward,
            inputs=images[part],
            target=targets[part].to(images.device),
            held=None,
            baselines=baselines[part] if baselines is not None and each else baselines,
            layer=layer,
            options=options,
            together=together,
        )
        found.append(captum_attributions(method, question))
    gaps = [gap for _, gap in found if gap is not None]
    return torch.cat([maps for maps, _ in found]), torch.cat(gaps) if gaps else None


def _rolled(model: nn.Module, images: Tensor, method: AttributionMethod, options: AttributionOptions) -> Tensor:
    from horinsight.attribution.rollout_attribution import RolloutAttribution

    rolled = RolloutAttribution(
        model,
        rolled="mixing" if method.name == "mixing_rollout" else "influence",
        probes=options.samples or method.samples,
        seed=options.seed,
    )
    found: Tensor = rolled.attribute(images)
    return found
