"""The public names: what type checkers and completion see, and where `horinsight/__init__.py` finds each of them."""

from .attribution.attribution_methods import ATTRIBUTION_METHODS, AttributionMethod
from .attribution.attribution_options import AttributionOptions
from .attribution.attribution_results import InteractionPlaces, PositionAttributions, PredictionAttributions
from .attribution.captum_metrics import CaptumSettings, captum_scores
from .attribution.faithfulness import faithfulness, faithfulness_by_picture
from .attribution.faithfulness_options import FaithfulnessOptions
from .attribution.faithfulness_parts import merged_faithfulness
from .attribution.faithfulness_results import Faithfulness
from .attribution.faithfulness_sums import FaithfulnessSums, RunningFaithfulness
from .attribution.influence_attribution import InfluenceAttribution
from .attribution.interaction_attribution import InteractionAttribution
from .attribution.interaction_places import interaction_places
from .attribution.map_agreement import map_agreement
from .attribution.map_comparison_parts import merged_comparisons
from .attribution.map_comparison_results import CaptumScores, MapAgreement, RandomizedMaps
from .attribution.mixing_attribution import MixingWeightsAttribution
from .attribution.picture_baselines import (
    PictureBaseline,
    black_baseline,
    blur_baseline,
    mean_baseline,
    others_baseline,
    tensor_baseline,
)
from .attribution.position_attribution import position_attribution
from .attribution.position_forward import PositionModel, model_at_positions
from .attribution.position_paths import PositionPaths, position_paths
from .attribution.prediction_attribution import prediction_attribution
from .attribution.rollout_attribution import RolloutAttribution
from .attribution.weight_randomization import randomized_maps
from .capture import capture
from .complexity.bound import count_and_bounds, gnconv_bounds, macs_bound
from .complexity.closed_form import attention_macs, gnconv_macs, gnconv_terms
from .complexity.cost_results import (
    DenseCount,
    GnConvBound,
    GnConvMacs,
    MacCount,
    OrderGrowth,
    SizeGrowth,
    TableRowCount,
)
from .complexity.counted import count_macs
from .complexity.dense_counted import dense_count
from .complexity.growth import order_growth, size_growth
from .complexity.published import PublishedRow, published_rows
from .complexity.table_counts import table_counts
from .data.images import load_image, sample_images
from .data.picture_stream import PictureStream, picture_stream
from .data.preprocess import image_batch, model_view, preprocessing
from .figures.attribution_maps import draw_attribution_maps
from .figures.complexity_curves import draw_complexity_curves
from .figures.filter_maps import draw_filters
from .figures.interaction_spectra import draw_interaction_spectra
from .figures.mixing_maps import draw_mixing_maps
from .figures.reach_maps import draw_reach_maps
from .figures.style import save_figure
from .figures.survey_depths import draw_survey_depths
from .figures.tradeoffs import Tradeoff, draw_tradeoffs
from .interaction.common_draws import compared_operators
from .interaction.function_effect import interaction_effects
from .interaction.interaction_effect import interaction_spectrum
from .interaction.measurement_cost import MeasurementCost, measurement_cost, model_measurement_costs
from .interaction.model_comparison import model_spectrum_comparisons
from .interaction.model_spectra import model_interaction_spectra
from .interaction.spectrum import InteractionSpectrum
from .interaction.spectrum_comparison import SpectrumComparison, compare_spectra
from .interaction.spectrum_options import SpectrumOptions
from .mixers.blocks import MixingBlock, block_map_sizes, named_blocks
from .mixers.found import FoundMixer, found_mixers
from .mixers.mixer_registry import MixerFamily, register_mixer
from .mixing.adaptivity import adaptivity
from .mixing.channel_filters import channel_filters
from .mixing.extraction import mixing_weights, model_mixing_weights
from .mixing.filter_kernels import filter_kernels
from .mixing.filter_results import ChannelFilters
from .mixing.influence import influence
from .mixing.influence_options import InfluenceOptions
from .mixing.influence_rollout import influence_rollout
from .mixing.left_out_adaptivity import LeftOutAdaptivity, adaptivity_of_parts
from .mixing.mixing_results import Adaptivity, FilterKernels, PictureAdaptivity, QueryMaps, Rollout
from .mixing.model_adaptivity import model_adaptivity
from .mixing.query_maps import query_maps
from .mixing.query_places import FIGURE_4_BLOCKS, random_queries
from .mixing.query_table import QueryTable, query_table
from .mixing.reach import influence_maps, model_influence, reach_of
from .mixing.reach_results import Influence, Reach
from .mixing.rollout import mixing_rollout
from .mixing.running_adaptivity import RunningAdaptivity
from .mixing.weights import MixingWeights
from .models.checkpoints import LoadedCheckpoint, load_checkpoint
from .models.dense.cascade_rcnn import cascade_mask_rcnn
from .models.dense.detector import Detector
from .models.dense.detector_names import mmdet_state_dict
from .models.dense.detector_options import DetectorOptions
from .models.dense.hor_fpn import HorFpn
from .models.dense.mask2former import mask2former
from .models.dense.mask_rcnn import mask_rcnn
from .models.dense.uper_net import UperNet, upernet
from .models.global_local_filter import GlobalLocalFilter
from .models.gnconv import GnConv
from .models.hornet import HorNet
from .models.hornet_isotropic import IsotropicHorNet
from .models.misfits import CheckpointError
from .models.parameter_names import mmpretrain_state_dict, mmseg_state_dict
from .models.predictions import Prediction, predictions
from .models.registry import create_model, list_models
from .operators.tangent import explicit_operators
from .results import Provenance, Result, ResultSet, load_result, save_result
from .stats import Estimate
from .survey.effects_by_picture import EffectsAsked
from .survey.mixing_by_picture import MixingAsked
from .survey.reach_by_picture import ReachAsked
from .survey.survey_estimates import survey_table
from .survey.survey_frame import load_survey
from .survey.survey_options import SurveyOptions
from .survey.survey_results import SurveyTable
from .survey.survey_run import run_survey
from .survey.weight_sums import survey_adaptivity

__version__: str

__all__ = [
    "ATTRIBUTION_METHODS",
    "FIGURE_4_BLOCKS",
    "Adaptivity",
    "AttributionMethod",
    "AttributionOptions",
    "CaptumScores",
    "CaptumSettings",
    "ChannelFilters",
    "CheckpointError",
    "DenseCount",
    "Detector",
    "DetectorOptions",
    "EffectsAsked",
    "Estimate",
    "Faithfulness",
    "FaithfulnessOptions",
    "FaithfulnessSums",
    "FilterKernels",
    "FoundMixer",
    "GlobalLocalFilter",
    "GnConv",
    "GnConvBound",
    "GnConvMacs",
    "HorFpn",
    "HorNet",
    "Influence",
    "InfluenceAttribution",
    "InfluenceOptions",
    "InteractionAttribution",
    "InteractionPlaces",
    "InteractionSpectrum",
    "IsotropicHorNet",
    "LeftOutAdaptivity",
    "LoadedCheckpoint",
    "MacCount",
    "MapAgreement",
    "MeasurementCost",
    "MixerFamily",
    "MixingAsked",
    "MixingBlock",
    "MixingWeights",
    "MixingWeightsAttribution",
    "OrderGrowth",
    "PictureAdaptivity",
    "PictureBaseline",
    "PictureStream",
    "PositionAttributions",
    "PositionModel",
    "PositionPaths",
    "Prediction",
    "PredictionAttributions",
    "Provenance",
    "PublishedRow",
    "QueryMaps",
    "QueryTable",
    "RandomizedMaps",
    "Reach",
    "ReachAsked",
    "Result",
    "ResultSet",
    "Rollout",
    "RolloutAttribution",
    "RunningAdaptivity",
    "RunningFaithfulness",
    "SizeGrowth",
    "SpectrumComparison",
    "SpectrumOptions",
    "SurveyOptions",
    "SurveyTable",
    "TableRowCount",
    "Tradeoff",
    "UperNet",
    "__version__",
    "adaptivity",
    "adaptivity_of_parts",
    "attention_macs",
    "black_baseline",
    "block_map_sizes",
    "blur_baseline",
    "captum_scores",
    "capture",
    "cascade_mask_rcnn",
    "channel_filters",
    "compare_spectra",
    "compared_operators",
    "count_and_bounds",
    "count_macs",
    "create_model",
    "dense_count",
    "draw_attribution_maps",
    "draw_complexity_curves",
    "draw_filters",
    "draw_interaction_spectra",
    "draw_mixing_maps",
    "draw_reach_maps",
    "draw_survey_depths",
    "draw_tradeoffs",
    "explicit_operators",
    "faithfulness",
    "faithfulness_by_picture",
    "filter_kernels",
    "found_mixers",
    "gnconv_bounds",
    "gnconv_macs",
    "gnconv_terms",
    "image_batch",
    "influence",
    "influence_maps",
    "influence_rollout",
    "interaction_effects",
    "interaction_places",
    "interaction_spectrum",
    "list_models",
    "load_checkpoint",
    "load_image",
    "load_result",
    "load_survey",
    "macs_bound",
    "map_agreement",
    "mask2former",
    "mask_rcnn",
    "mean_baseline",
    "measurement_cost",
    "merged_comparisons",
    "merged_faithfulness",
    "mixing_rollout",
    "mixing_weights",
    "mmdet_state_dict",
    "mmpretrain_state_dict",
    "mmseg_state_dict",
    "model_adaptivity",
    "model_at_positions",
    "model_influence",
    "model_interaction_spectra",
    "model_measurement_costs",
    "model_mixing_weights",
    "model_spectrum_comparisons",
    "model_view",
    "named_blocks",
    "order_growth",
    "others_baseline",
    "picture_stream",
    "position_attribution",
    "position_paths",
    "prediction_attribution",
    "predictions",
    "preprocessing",
    "published_rows",
    "query_maps",
    "query_table",
    "random_queries",
    "randomized_maps",
    "reach_of",
    "register_mixer",
    "run_survey",
    "sample_images",
    "save_figure",
    "save_result",
    "size_growth",
    "survey_adaptivity",
    "survey_table",
    "table_counts",
    "tensor_baseline",
    "upernet",
]
