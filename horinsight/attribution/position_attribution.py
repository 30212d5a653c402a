"""What a block computes at its positions, attributed by any method: captum's, or ours."""

from typing import Unpack

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
from horinsight.attribution.attribution_results import PositionAttributions
from horinsight.attribution.explained_block import BlockName, Of
from horinsight.attribution.explained_layer import explained_layer
from horinsight.attribution.position_forward import PositionModel, model_at_positions
from horinsight.capture import evaluation, image_size_of
from horinsight.mixing.output_positions import Queries, query_cells
from horinsight.models.provenance import model_provenance, picture_names
from horinsight.options import made


def position_attribution(
    model: nn.Module,
    images: Tensor,
    *,
    block: BlockName,
    queries: Queries | None = None,
    method: str = "integrated_gradients",
    of: Of = "block_input",
    baselines: Tensor | float | None = None,
    options: AttributionOptions | None = None,
    **given: Unpack[AttributionKeywords],
) -> PositionAttributions:
    """What a block computes at each query, F_c(x)_i or Σ_c F_c(x)_i², attributed to cells of its input or the image.

    All queries of all images are explained in one call, in batches that fit the memory that the options allow.

    Args:
        model: a network with blocks (`named_blocks`); left as it was. One in half precision is explained in float32.
        images: (B, 3, H, W), prepared.
        block: index (from 1) or name of a block.
        queries: (row, column) each on the block's map; all positions when None.
        method: of `ATTRIBUTION_METHODS`. The rollouts go from this block back to the first one's map.
        of: what is explained in: the "mixer_input" (what the mixer computes), the "block_input" (what the residual
            block around it computes) or the "image" (likewise).
        baselines: what stands for nothing there: a number, a map (C, H, W), or one for each image; for methods that
            need several, maps (M, C, H, W). In what is explained in, channels first.
        options: how; the defaults when None.
        **given: fields of `AttributionOptions` in place of those of `options`: channel, layer, steps, window, ...

    Returns:
        Attributions (B, queries, rows, columns, C), and as maps.

    Raises:
        ValueError: no such method, block, query, channel or layer; a method without the baseline or the layer that it
            needs; one that cannot run on this network.

    Example:
        >>> import timm
        >>> _ = torch.manual_seed(0)
        >>> model, images = timm.create_model("hornet_test_iso"), torch.randn(2, 3, 96, 96)
        >>> found = position_attribution(
        ...     model, images, block=2, queries=[(2, 3), (0, 0)], channel=5, method="deep_lift", baselines=0.0
        ... )
        >>> found.maps.shape, bool(np.abs(found.gaps).max() < 1e-5)
        ((2, 2, 6, 6), True)
    """
    options = made(AttributionOptions, options, given, caller="position_attribution")
    chosen = attribution_method(method, "position")
    if chosen.family == "mixing":
        from horinsight.attribution.our_attributions import our_position_attributions

        return our_position_attributions(model, images, chosen, block=block, queries=queries, of=of, options=options)
    found = model_at_positions(model, images, block=block, of=of, channel=options.channel)
    cells = query_cells(queries, found.output_size)
    maps, gaps, outputs = _attributions(model, images, found, cells, (chosen, baselines, options))
    return PositionAttributions(
        attributions=maps,
        queries=cells,
        output_size=found.output_size,
        method=method,
        block=found.block.name,
        of=of,
        gaps=gaps,
        outputs=outputs,
        seed=options.seed,
        convention=_convention(chosen, of, options),
        provenance=model_provenance(model, image_names=picture_names(images), seed=options.seed),
    )


def _attributions(
    model: nn.Module,
    images: Tensor,
    found: PositionModel,
    cells: np.ndarray,
    asked: tuple[AttributionMethod, Tensor | float | None, AttributionOptions],
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    from horinsight.attribution.captum_methods import captum_attributions

    method, given, options = asked
    baselines = checked_baselines(method, given, found.inputs)
    B, Q = len(found.inputs), len(cells)
    targets = torch.from_numpy(np.ravel_multi_index(tuple(cells.T), found.output_size))
    maps, gaps, outputs = [], [], []
    with evaluation(found.forward), evaluation(model), torch.inference_mode(False), torch.enable_grad():
        together = examples_together(method, found.forward, found.inputs, found.held, options)
        layer = None
        if "layer" in method.needs:
            layer = explained_layer(
                model, found.forward, found.inputs, found.held, layer=options.layer, method=method.name,
                image_size=image_size_of(images),
            )  # fmt: skip
        pairs = torch.cartesian_prod(torch.arange(B, device="cpu"), torch.arange(Q, device="cpu")).view(-1, 2)
        for part in pairs.split(examples_a_call(method, together)):
            image, query = part.T
            each = baselines is not None and "baseline" in method.needs and len(baselines) == B
            question = AskedAttribution(
                forward=found.forward,
                inputs=found.inputs[image],
                target=targets[query].to(found.inputs.device),
                held=None if found.held is None else found.held[image],
                baselines=baselines[image] if baselines is not None and each else baselines,
                layer=layer,
                options=options,
                together=together,
            )
            attributions, gap = captum_attributions(method, question)
            maps.append(attributions.movedim(1, -1).cpu())
            gaps.append(None if gap is None else gap.cpu())
            outputs.append(question.values(question.inputs).cpu())
    missing = [gap for gap in gaps if gap is not None]
    return (
        torch.cat(maps).unflatten(0, (B, Q)).numpy(),
        torch.cat(missing).view(B, Q).numpy() if missing else None,
        torch.cat(outputs).view(B, Q).numpy(),
    )


def _convention(method: AttributionMethod, of: Of, options: AttributionOptions) -> dict[str, str]:
    channel = options.channel
    return {
        "explained": "sum over c of F_c(x)_i^2" if channel is None else f"F_c(x)_i of channel {channel}",
        "output_of": "the mixer" if of == "mixer_input" else "the residual block around the mixer",
        "explained_in": of,
        **method_convention(method, options),
    }


def method_convention(method: AttributionMethod, options: AttributionOptions) -> dict[str, str]:
    """How a method was used, in words."""
    said = {"method": method.constructor.replace(":", ".")}
    if "window" in method.needs:
        side = options.window or "a seventh of the longer side"
        said["covered_together"] = f"squares of side {side}, all channels; an effect in equal parts for its elements"
    if "samples" in method.needs:
        said["samples"] = str(options.samples or method.samples)
    if "steps" in method.needs:
        said["steps"] = str(options.steps or "50, doubled up to 800 for integrated gradients that miss more than 1 %")
    if "layer" in method.needs:
        said["layer"] = str(options.layer)
    if method.name == "lrp":
        said["rules"] = "captum_lrp_rules: products by halves, residual sums in proportion, epsilon for linear layers"
    if "deep_lift" in method.name:
        said["rules"] = "deep_lift_rules: products, norms and smooth non-linearities exactly"
    return said
