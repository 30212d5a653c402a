"""A program that uses horinsight, for `mypy --strict`: what it calls is typed, and so is every result."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

import horinsight
from horinsight import (
    Adaptivity,
    CaptumScores,
    ChannelFilters,
    CheckpointError,
    DenseCount,
    Estimate,
    Faithfulness,
    FaithfulnessOptions,
    FaithfulnessSums,
    FilterKernels,
    GnConvBound,
    GnConvMacs,
    Influence,
    InteractionPlaces,
    InteractionSpectrum,
    LoadedCheckpoint,
    MacCount,
    MapAgreement,
    MeasurementCost,
    MixingBlock,
    MixingWeights,
    OrderGrowth,
    PictureAdaptivity,
    PictureBaseline,
    PositionAttributions,
    Prediction,
    PredictionAttributions,
    Provenance,
    PublishedRow,
    QueryMaps,
    RandomizedMaps,
    Reach,
    Result,
    ResultSet,
    Rollout,
    SizeGrowth,
    SpectrumComparison,
    SurveyTable,
    TableRowCount,
    Tradeoff,
)


def prepared(name: str, path: str | None) -> tuple[torch.nn.Module, torch.Tensor]:
    """A model, with a checkpoint's weights where they fit, and what it is shown."""
    model: torch.nn.Module = horinsight.create_model(name, seed=1)
    if path is not None:
        try:
            loaded: LoadedCheckpoint = horinsight.load_checkpoint(model, path)
            keys: tuple[str, ...] = loaded.missing
        except CheckpointError as error:
            keys = tuple(error.missing)
        assert not keys, horinsight.mmpretrain_state_dict(model).keys()
    images: torch.Tensor = horinsight.image_batch(model, list(horinsight.sample_images().values()))
    said: list[list[Prediction]] = horinsight.predictions(model, images)
    probability: float = said[0][0].probability
    assert probability <= 1, horinsight.__version__
    return model, images


def mixing(model: torch.nn.Module, images: torch.Tensor) -> tuple[QueryMaps, FilterKernels]:
    """Where each position looks."""
    blocks: list[MixingBlock] = list(horinsight.named_blocks(model))
    maps_by_block: dict[str, tuple[int, int] | None] = horinsight.block_map_sizes(model, (96, 96))
    weights: Mapping[str, MixingWeights] = horinsight.model_mixing_weights(model, images)
    rows: torch.Tensor = weights[blocks[0].name].channel_mean()
    adaptivity: ResultSet[Adaptivity] = horinsight.model_adaptivity(model, images)
    one: Adaptivity = horinsight.adaptivity(weights[blocks[0].name])
    share: Estimate = adaptivity[blocks[0].name].location_adaptivity
    running = horinsight.RunningAdaptivity(image_size=(96, 96))
    by_picture: PictureAdaptivity = running.update(weights[blocks[0].name])
    kept: Adaptivity = horinsight.adaptivity_of_parts(lambda: [running, running])
    assert by_picture.mean_distance[0] == kept.mean_distance.value
    low, high = share.interval
    bounds: tuple[float, float] = (low, high)
    operator: Influence = horinsight.influence(blocks[0].module, torch.zeros(1, 8, 7, 7), queries=[(3, 3)], probes=2)
    reaches: Mapping[str, Reach] = horinsight.model_influence(model, images, scope="image")
    radius: Estimate = reaches[blocks[0].name].estimates["radius_90"]
    seen: Figure = horinsight.draw_reach_maps(dict(reaches), np.zeros((1, 8, 8, 3)))
    assert len(operator.maps) > radius.value, seen
    rollout: Rollout = horinsight.mixing_rollout(model, images)
    rolled: np.ndarray = rollout.weights
    assert (len(rows), len(rolled), one.num_images) > (0, 0, 0), (bounds, maps_by_block)
    kernels: FilterKernels = horinsight.filter_kernels(horinsight.GlobalLocalFilter(4, h=6, w=4), (6, 6))
    filters: ChannelFilters = horinsight.channel_filters(weights[blocks[0].name])
    assert len(filters.norms) > 0
    maps: QueryMaps = horinsight.query_maps(model, images, [[(7, 7)]] * len(images), seed=3)
    origin: Provenance | None = maps.provenance
    return horinsight.query_maps(model, images, [[(7, 7)]] * len(images), provenance=origin), kernels


def faithful(model: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> list[str]:
    """Whether maps show what a model goes by."""

    def summed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x.sum(1)

    black: PictureBaseline = horinsight.black_baseline(model, (96, 96))
    options = FaithfulnessOptions(rows=2, columns=2, steps=2)
    found: Faithfulness = horinsight.faithfulness(
        model, images, targets, {"sum": summed}, baselines=[black, "mean"], options=options, seed=1
    )
    over: Estimate = found.difference("sum", "random", "black")
    running = horinsight.RunningFaithfulness()
    running.update(found)
    sums: FaithfulnessSums = running.compute()
    over = sums.difference("sum", "random", "black")
    groups: tuple[tuple[str, ...], ...] = found.ranking()
    redrawn: RandomizedMaps = horinsight.randomized_maps(model, images, targets, {"sum": summed})
    agreement: MapAgreement = horinsight.map_agreement({"sum": summed(images, targets)})
    scores: CaptumScores = horinsight.captum_scores(
        model, images, targets, {"sum": (summed, "gradient")}, reference=torch.zeros(3, 1, 1)
    )
    assert (over.value, agreement.chance, scores.seed) > (0.0, 0.0, 0), redrawn.stages
    return [name for group in groups for name in group]


def attributed(model: torch.nn.Module, images: torch.Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What positions and predictions are made of."""
    places: InteractionPlaces = horinsight.interaction_places(model, images, (0, 0), order=2, seed=1)
    there: PositionAttributions = horinsight.position_attribution(model, images, block=1, method="saliency", channel=3)
    said: PredictionAttributions = horinsight.prediction_attribution(model, images, methods=["lrp"], steps=8)
    looks = horinsight.MixingWeightsAttribution(model, 1, channels="mean")
    drawn: Figure = horinsight.draw_attribution_maps(said.maps, np.zeros((1, 8, 8, 3), np.uint8), title="3")
    assert places.maps.shape, (looks, drawn)
    return there.maps, said.maps


def surveyed(model: torch.nn.Module, folder: str) -> SurveyTable:
    """The same of many pictures."""
    asked = horinsight.MixingAsked(blocks=[1])
    options = horinsight.SurveyOptions(workers=0, part_size=8)
    done = horinsight.run_survey(model, folder, f"{folder}/out", question=asked, options=options)
    adapts: Adaptivity | None = horinsight.survey_adaptivity(f"{folder}/out", 1, label="cats")
    table: SurveyTable = horinsight.survey_table(f"{folder}/out", by="class")
    drawn: Figure = horinsight.draw_survey_depths(table)
    first: Estimate = table.lines[0].estimate
    assert done.num_pictures == len(horinsight.load_survey(f"{folder}/out")), (adapts, drawn, first)
    return table


def cost(model: torch.nn.Module) -> tuple[OrderGrowth, SizeGrowth]:
    """What it costs."""
    count: MacCount = horinsight.count_macs(model, 224)
    bounds: list[GnConvBound] = horinsight.gnconv_bounds(model, 224)
    both: tuple[MacCount, list[GnConvBound]] = horinsight.count_and_bounds(model, 224)
    terms: GnConvMacs = horinsight.gnconv_terms(64, 2, 7, 56, 56)
    printed: list[PublishedRow] = horinsight.published_rows()
    dense: DenseCount = horinsight.dense_count(model, (64, 64))
    again: list[TableRowCount] = horinsight.table_counts(6)
    ratio: float | None = bounds[0].ratio
    top1: float | None = printed[0].top1
    assert both == (count, bounds), (terms.macs, ratio, top1, dense.macs_counted, again[0].reproduced)
    return horinsight.order_growth(64), horinsight.size_growth(384, 5, sides=[14, 28])


def measured(name: str, path: str | None) -> InteractionSpectrum:
    """Every question, asked of one model."""
    model, images = prepared(name, path)
    maps, kernels = mixing(model, images)
    costs: ResultSet[MeasurementCost] = horinsight.model_measurement_costs(model, images, max_order=2, memory=4.0)
    assert all(cost.fits == (cost.highest_order == 2) for cost in costs.values())
    spectra: ResultSet[InteractionSpectrum] = horinsight.model_interaction_spectra(model, images, max_order=2)
    effects: Mapping[tuple[int, ...], Estimate] = horinsight.interaction_effects(
        lambda x: x[:, 0] * x[:, 1], torch.randn(8, 2), [(0, 1)]
    )
    growth, sizes = cost(model)
    tradeoff = Tradeoff("ours", 80.0, 22.4, 4.0, effects[0, 1].value, 1.0, 2.0)
    figures: list[Figure] = [
        horinsight.draw_interaction_spectra(spectra),
        horinsight.draw_mixing_maps(maps),
        horinsight.draw_filters(kernels),
        horinsight.draw_complexity_curves([growth], sizes),
        horinsight.draw_tradeoffs({"HorNet": [tradeoff]}, machine="a laptop"),
    ]
    for number, figure in enumerate(figures):
        horinsight.save_figure(figure, f"{number}.png")
    results: list[Result] = [maps, kernels, growth, sizes, tradeoff]
    for number, result in enumerate(results):
        result.save(f"{number}.json")
    spectra.save("spectra.npz")
    again: ResultSet[InteractionSpectrum] = ResultSet.load("spectra.npz")
    spectrum: InteractionSpectrum = next(iter(again.values()))
    compared: SpectrumComparison = horinsight.compare_spectra(spectrum, spectrum)
    ratios: np.ndarray = compared.ratios
    assert len(ratios) == len(spectrum.effects)
    horinsight.save_result(spectrum, "spectrum.json")
    return horinsight.load_result(InteractionSpectrum, "spectrum.json")


if TYPE_CHECKING:
    measured(3, path=None)  # type: ignore[arg-type]  # refused: an unused ignore would be an error
