import pytest
import timm
import torch
from torch import nn

from horinsight import count_macs, create_model
from horinsight.models.blocks import block_map_sizes
from horinsight.models.dry_run import dry_run


def test_dry_run_computes_nothing_and_changes_nothing():
    model = timm.create_model("swin_tiny_patch4_window7_224").train()
    before = {key: value.data_ptr() for key, value in model.state_dict().items()}
    assert dry_run(model, (224, 224)).device.type == "meta"
    assert {key: value.data_ptr() for key, value in model.state_dict().items()} == before
    assert model.training
    with pytest.raises(ValueError, match="SwinTransformer does not take images of 100x100"):
        dry_run(model, (100, 100))
