"""Opens up vision backbones and measures how their positions interact. Importing it registers the models in timm."""

from horinsight.capture import capture
from horinsight.complexity.counted import MacCount, count_macs
from horinsight.data.images import load_image, sample_images
from horinsight.data.preprocess import image_batch, preprocessing
from horinsight.interaction.interaction_effect import InteractionSpectrum, interaction_spectrum
from horinsight.interaction.model_spectra import model_interaction_spectra
from horinsight.interaction.tangent import explicit_operators
from horinsight.models.blocks import MixingBlock, named_blocks
from horinsight.models.checkpoints import CheckpointError, LoadedCheckpoint, load_checkpoint, mmpretrain_state_dict
from horinsight.models.global_local_filter import GlobalLocalFilter
from horinsight.models.gnconv import GnConv
from horinsight.models.hornet import HorNet
from horinsight.models.hornet_isotropic import IsotropicHorNet
from horinsight.models.registry import create_model, list_models
from horinsight.results import Provenance, load_result, save_result

__all__ = [
    "CheckpointError",
    "GlobalLocalFilter",
    "GnConv",
    "HorNet",
    "InteractionSpectrum",
    "IsotropicHorNet",
    "LoadedCheckpoint",
    "MacCount",
    "MixingBlock",
    "Provenance",
    "capture",
    "count_macs",
    "create_model",
    "explicit_operators",
    "image_batch",
    "interaction_spectrum",
    "list_models",
    "load_checkpoint",
    "load_image",
    "load_result",
    "mmpretrain_state_dict",
    "model_interaction_spectra",
    "named_blocks",
    "preprocessing",
    "sample_images",
    "save_result",
]
