"""A program that uses horinsight, for `mypy --strict`: what it calls is typed, and so is every result."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

import horinsight
from horinsight import (
    Adaptivity,
    Estimate,
    FilterKernels,
    GnConvBound,
    GnConvMacs,
    Influence,
    InteractionSpectrum,
    LoadedCheckpoint,
    MacCount,
    MixingBlock,
    MixingWeights,
    OrderGrowth,
    Provenance,
    PublishedRow,
    QueryMaps,
    Reach,
    Rollout,
    SizeGrowth,
)


def measured(name: str, path: str) -> InteractionSpectrum:
    """Every question, asked of one model."""
    model: torch.nn.Module = horinsight.create_model(name, seed=1)
    images: torch.Tensor = horinsight.image_batch(model, list(horinsight.sample_images().values()))
    blocks: list[MixingBlock] = list(horinsight.named_blocks(model))

    weights: Mapping[str, MixingWeights] = horinsight.model_mixing_weights(model, images)
    adaptivity: Mapping[str, Adaptivity] = horinsight.model_adaptivity(model, images)
    share: Estimate = adaptivity[blocks[0].name].location_adaptivity
    low, high = share.interval
    maps: QueryMaps = horinsight.query_maps(model, images, [[(7, 7)]] * len(images))
    operator: Influence = horinsight.influence(blocks[0].module, torch.zeros(1, 8, 7, 7), queries=[(3, 3)], probes=2)
    reaches: Mapping[str, Reach] = horinsight.model_influence(model, images, scope="image")
    radius: Estimate = reaches[blocks[0].name].estimates["radius_90"]
    rollout: Rollout = horinsight.mixing_rollout(model, images)
    rows: np.ndarray = rollout.weights
    kernels: FilterKernels = horinsight.filter_kernels(horinsight.GlobalLocalFilter(4, h=6, w=4), (6, 6))

    spectra = horinsight.model_interaction_spectra(model, images, max_order=2)
    spectrum: InteractionSpectrum = spectra[blocks[0].name]
    origin: Provenance | None = spectrum.provenance

    count: MacCount = horinsight.count_macs(model, 224)
    bounds: list[GnConvBound] = horinsight.gnconv_bounds(model, 224)
    terms: GnConvMacs = horinsight.gnconv_terms(64, 2, 7, 56, 56)
    growth: OrderGrowth = horinsight.order_growth(64)
    sizes: SizeGrowth = horinsight.size_growth(384, 5, sides=[14, 28])
    printed: list[PublishedRow] = horinsight.published_rows()
    loaded: LoadedCheckpoint = horinsight.load_checkpoint(model, path)

    figures: list[Figure] = [
        horinsight.draw_interaction_spectra(spectra),
        horinsight.draw_mixing_maps(maps),
        horinsight.draw_reach_maps(dict(reaches), maps.pictures),
        horinsight.draw_filters(kernels),
        horinsight.draw_complexity_curves([growth], sizes),
    ]
    for number, figure in enumerate(figures):
        horinsight.save_figure(figure, f"{number}.png")
    used = (weights, low, high, rows, origin, count.macs, bounds[0].ratio, terms.macs, printed[0].top1, loaded)
    used_too = (operator.maps, radius.value, reaches)
    assert len(used) + len(used_too) == 13, horinsight.__version__
    horinsight.save_result(spectrum, "spectrum.json")
    return horinsight.load_result(InteractionSpectrum, "spectrum.json")


measured(3, path=None)  # type: ignore[arg-type]  # refused: an unused ignore would be an error
