"""Opens up vision backbones and measures how their positions interact. Importing it registers the models in timm."""

from horinsight.capture import capture
from horinsight.complexity.bound import GnConvBound, gnconv_bounds, macs_bound
from horinsight.complexity.closed_form import GnConvMacs, attention_macs, gnconv_macs, gnconv_terms
from horinsight.complexity.counted import MacCount, count_macs
from horinsight.complexity.growth import OrderGrowth, SizeGrowth, order_growth, size_growth
from horinsight.complexity.published import PublishedRow, published_rows
from horinsight.data.images import load_image, sample_images
from horinsight.data.preprocess import image_batch, model_view, preprocessing
from horinsight.figures.complexity_curves import draw_complexity_curves
from horinsight.figures.filter_maps import draw_filters
from horinsight.figures.interaction_spectra import draw_interaction_spectra
from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.style import save_figure
from horinsight.figures.tradeoffs import Tradeoff, draw_tradeoffs
from horinsight.interaction.function_effect import interaction_effects
from horinsight.interaction.interaction_effect import InteractionSpectrum, interaction_spectrum
from horinsight.interaction.model_spectra import model_interaction_spectra
from horinsight.interaction.tangent import explicit_operators
from horinsight.mixers.found import FoundMixer, found_mixers
from horinsight.mixers.mixer_registry import MixerFamily, register_mixer
from horinsight.mixing.adaptivity import Adaptivity, adaptivity, model_adaptivity
from horinsight.mixing.extraction import mixing_weights, model_mixing_weights
from horinsight.mixing.filter_kernels import FilterKernels, filter_kernels
from horinsight.mixing.query_maps import FIGURE_4_BLOCKS, QueryMaps, query_maps, random_queries
from horinsight.mixing.rollout import Rollout, mixing_rollout
from horinsight.mixing.weights import MixingWeights
from horinsight.models.blocks import MixingBlock, named_blocks
from horinsight.models.checkpoints import CheckpointError, LoadedCheckpoint, load_checkpoint, mmpretrain_state_dict
from horinsight.models.global_local_filter import GlobalLocalFilter
from horinsight.models.gnconv import GnConv
from horinsight.models.hornet import HorNet
from horinsight.models.hornet_isotropic import IsotropicHorNet
from horinsight.models.registry import create_model, list_models
from horinsight.results import Provenance, load_result, save_result
from horinsight.stats import Estimate

__all__ = [
    "FIGURE_4_BLOCKS",
    "Adaptivity",
    "CheckpointError",
    "Estimate",
    "FilterKernels",
    "FoundMixer",
    "GlobalLocalFilter",
    "GnConv",
    "GnConvBound",
    "GnConvMacs",
    "HorNet",
    "InteractionSpectrum",
    "IsotropicHorNet",
    "LoadedCheckpoint",
    "MacCount",
    "MixerFamily",
    "MixingBlock",
    "MixingWeights",
    "OrderGrowth",
    "Provenance",
    "PublishedRow",
    "QueryMaps",
    "Rollout",
    "SizeGrowth",
    "Tradeoff",
    "adaptivity",
    "attention_macs",
    "capture",
    "count_macs",
    "create_model",
    "draw_complexity_curves",
    "draw_filters",
    "draw_interaction_spectra",
    "draw_mixing_maps",
    "draw_tradeoffs",
    "explicit_operators",
    "filter_kernels",
    "found_mixers",
    "gnconv_bounds",
    "gnconv_macs",
    "gnconv_terms",
    "image_batch",
    "interaction_effects",
    "interaction_spectrum",
    "list_models",
    "load_checkpoint",
    "load_image",
    "load_result",
    "macs_bound",
    "mixing_rollout",
    "mixing_weights",
    "mmpretrain_state_dict",
    "model_adaptivity",
    "model_interaction_spectra",
    "model_mixing_weights",
    "model_view",
    "named_blocks",
    "order_growth",
    "preprocessing",
    "published_rows",
    "query_maps",
    "random_queries",
    "register_mixer",
    "sample_images",
    "save_figure",
    "save_result",
    "size_growth",
]
