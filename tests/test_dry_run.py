import pytest
import timm
import torch
from torch import nn

from horinsight import count_macs, create_model
from horinsight.dry_run import dry_run
from horinsight.mixers.blocks import block_map_sizes


def test_dry_run_computes_nothing_and_changes_nothing():
    model = timm.create_model("swin_tiny_patch4_window7_224").train()
    before = {key: value.data_ptr() for key, value in model.state_dict().items()}
    assert dry_run(model, (224, 224)).device.type == "meta"
    assert {key: value.data_ptr() for key, value in model.state_dict().items()} == before
    assert model.training
    with pytest.raises(ValueError, match="SwinTransformer does not take images of 100x100"):
        dry_run(model, (100, 100))


PRECISIONS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_gf", "convnext_atto", "test_vit"])
def test_shapes_and_counts_do_not_depend_on_the_precision(name, dtype):
    with torch.device("meta"):
        model, other = timm.create_model(name), timm.create_model(name).to(dtype)
    size = model.pretrained_cfg["input_size"][-1]
    assert dry_run(other, (size, size)).dtype == dtype
    assert block_map_sizes(other, (size, size)) == block_map_sizes(model, (size, size))
    assert count_macs(other, size).by_column == count_macs(model, size).by_column


def test_a_surrounding_autocast_changes_nothing():
    model = create_model("hornet_test")
    expected = count_macs(model, 96).by_column
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert count_macs(model, 96).by_column == expected


class Sees(nn.Module):
    """Notes this and that while it runs, and mixes its weights with tensors of its own making."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.register_buffer("count", torch.zeros(1))
        self.table = torch.randn(4, 1, 1)  # neither parameter nor buffer
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        self.count += x.mean()  # writes into its own state
        self.cache = torch.arange(len(x), device=x.device)
        return torch.cat([self.layer(x) * self.table, torch.ones(len(x), 1, *x.shape[2:])], dim=1)


def test_the_weights_stay_in_the_model():
    """Other threads may use them meanwhile; and nothing is written into them."""
    model = Sees()
    pointer, weights = model.layer.weight.data_ptr(), model.layer.weight
    assert dry_run(model, (8, 6)).shape == (1, 5, 8, 6)
    assert model.layer.weight is weights
    assert weights.data_ptr() == pointer
    assert weights.device.type == "cpu"
    assert model.count.item() == 0
    assert model.runs == 0
    assert not hasattr(model, "cache"), "which would be one without numbers"


def test_what_asks_for_numbers_is_told_in_one_line():
    class Asks(nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 0 else -x

    with pytest.raises(ValueError, match="Asks cannot be run on shapes alone") as caught:
        dry_run(Asks(), (8, 8))
    assert "\n" not in str(caught.value)
