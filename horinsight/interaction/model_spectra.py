"""Interaction spectra of the blocks of a whole model, at what real images make of their inputs."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from horinsight.capture import capture, evaluation, run
from horinsight.interaction.interaction_effect import InteractionSpectrum, Method, interaction_spectrum
from horinsight.models.blocks import MixingBlock, chosen_blocks
from horinsight.models.checkpoints import weights_origin
from horinsight.models.registry import weights_sha256
from horinsight.results import Provenance

ORDERS_BEYOND = 2  # measured above the highest declared order by default, to see the zeros


def model_interaction_spectra(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Sequence[int] | None = None,
    max_order: int | None = None,
    num_tuples: int = 32,
    explicit: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    method: Method = "auto",
    model_name: str | None = None,
    image_names: Sequence[str] | None = None,
    on_block: Callable[[MixingBlock, InteractionSpectrum], None] | None = None,
) -> dict[str, InteractionSpectrum]:
    """Interaction effects and orders of each gnConv of a model, measured on images.

    One forward pass tells what enters each block; each block's mixer (without the norm before it and the layer scale
    after it) is then differentiated at that point, see `interaction_spectrum`.

    Args:
        model: a network with gnConv blocks; it is left as it was. One in half precision is analysed in float32.
        images: (B, 3, H, W), prepared as the model expects them.
        blocks: indices of the blocks (from 1); all gnConvs when None.
        max_order: K; when None two above the highest declared order, or as many neighbours as the block's map has.
        num_tuples: chains drawn per image and block.
        explicit: tangents for the non-linearities, see `interaction_spectrum`.
        seed: of every draw, the same for each block.
        batch_size: chains differentiated together.
        method: "auto" uses the closed form where there is one, "nested" never.
        model_name: for the provenance; the class when None.
        image_names: for the provenance.
        on_block: called after each block, for progress.

    Returns:
        Block name → spectrum, in the order of the network.

    Raises:
        ValueError: no such block, a block that is not a gnConv, or images that do not fit.

    Example:
        >>> from horinsight.models.registry import create_model
        >>> images = torch.randn(1, 3, 96, 96)
        >>> spectra = model_interaction_spectra(create_model("hornet_test_iso"), images, num_tuples=2)
        >>> {name: spectrum.location_order for name, spectrum in spectra.items()}
        {'blocks.0.gnconv': 3, 'blocks.1.gnconv': 3}
    """
    chosen = chosen_blocks(model, blocks)
    if blocks is None:
        chosen = [block for block in chosen if block.mixer == "gnconv"]
    other = [block for block in chosen if block.mixer != "gnconv"]
    if other or not chosen:
        what = ", ".join(map(str, other)) or f"no gnConv in {type(model).__name__}"
        raise ValueError(f"Interaction effects are measured for gnConv blocks only in this version, got {what}.")
    top = max(block.order for block in chosen) + ORDERS_BEYOND if max_order is None else max_order
    origin = weights_origin(model)
    provenance = Provenance(
        model=model_name or type(model).__name__,
        weights=origin.source,
        trained=origin.trained,
        weights_sha256=weights_sha256(model),
        images=tuple(image_names) if image_names is not None else (f"{len(images)} given as a tensor",),
        seed=seed,
    )

    with (
        evaluation(model),
        torch.no_grad(),
        capture({block.name: block.module for block in chosen}, keep=lambda _, call: call.input) as inputs,
    ):
        run(model, images)

    idle = [str(block) for block in chosen if not inputs[block.name]]
    if idle:
        raise ValueError(f"The forward pass does not call {', '.join(idle)}, so there is nothing to measure.")
    orders = {}
    for block in chosen:  # all of them before the first is measured
        H, W = inputs[block.name][0].shape[-2:]
        if max_order is not None and max_order >= H * W:
            raise ValueError(
                f"{block}: a chain of order {max_order} needs {max_order + 1} distinct positions, got a map of "
                f"{H}x{W}: use a larger image, a lower max_order (--max-order), or leave this block out."
            )
        orders[block.name] = min(top, H * W - 1)
    spectra = {}
    for block in chosen:
        operator, x = _widened(block.module, inputs[block.name][0])
        try:
            spectrum = interaction_spectrum(
                operator,
                x,
                max_order=orders[block.name],
                num_tuples=num_tuples,
                explicit=explicit,
                seed=seed,
                batch_size=batch_size,
                method=method,
            )
        except ValueError as error:
            raise ValueError(f"{block}: {error}") from error
        spectra[block.name] = replace(spectrum, provenance=provenance)
        if on_block is not None:
            on_block(block, spectra[block.name])
    return spectra


def _widened(module: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    """The operator and its input in float32 at least; a copy where the model is in half precision."""
    dtypes = {parameter.dtype for parameter in module.parameters()} | {x.dtype}
    if dtypes <= {torch.float32} or dtypes <= {torch.float64}:
        return module, x
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    return copy.deepcopy(module).to(wide), x.to(wide)
