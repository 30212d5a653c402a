"""Opens up vision backbones and measures how their positions interact. Importing it registers the models in timm."""

from horinsight.capture import capture
from horinsight.complexity.counted import MacCount, count_macs
from horinsight.data.images import load_image, sample_images
from horinsight.data.preprocess import image_batch, model_view, preprocessing
from horinsight.figures.filter_maps import draw_filters
from horinsight.figures.interaction_spectra import draw_interaction_spectra
from horinsight.figures.mixing_maps import draw_mixing_maps
from horinsight.figures.style import save_figure
from horinsight.interaction.function_effect import interaction_effects
from horinsight.interaction.interaction_effect import InteractionSpectrum, interaction_spectrum
from horinsight.interaction.model_spectra import model_interaction_spectra
from horinsight.interaction.tangent import explicit_operators
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
    "GlobalLocalFilter",
    "GnConv",
    "HorNet",
    "InteractionSpectrum",
    "IsotropicHorNet",
    "LoadedCheckpoint",
    "MacCount",
    "MixingBlock",
    "MixingWeights",
    "Provenance",
    "QueryMaps",
    "Rollout",
    "adaptivity",
    "capture",
    "count_macs",
    "create_model",
    "draw_filters",
    "draw_interaction_spectra",
    "draw_mixing_maps",
    "explicit_operators",
    "filter_kernels",
    "image_batch",
    "interaction_effects",
    "interaction_spectrum",
    "list_models",
    "load_checkpoint",
    "load_image",
    "load_result",
    "mixing_rollout",
    "mixing_weights",
    "mmpretrain_state_dict",
    "model_adaptivity",
    "model_interaction_spectra",
    "model_mixing_weights",
    "model_view",
    "named_blocks",
    "preprocessing",
    "query_maps",
    "random_queries",
    "sample_images",
    "save_figure",
    "save_result",
]
