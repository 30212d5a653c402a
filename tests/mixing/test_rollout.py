import numpy as np
import pytest
import timm
import torch
from torch import nn

from horinsight import mixing_rollout, mixing_weights
from horinsight.capture import capture
from horinsight.mixing.rollout import absolute_mixing, downsampling, rolled_out


def test_plain_convolutions_give_their_theoretical_receptive_field():
    """k convolutions of size 3, 5, 3 reach 1 + 2 + 1 = 4 cells to each side."""
    x = torch.randn(1, 4, 15, 15)
    transitions = []
    for size in (3, 5, 3):
        conv = nn.Conv2d(4, 4, size, padding=size // 2, groups=4)
        transitions.append(absolute_mixing(mixing_weights(conv, x)))
        x = conv(x)
    field = rolled_out(transitions)[0, 7 * 15 + 7].reshape(15, 15) > 0
    assert int(field.sum()) == 9 * 9
    assert field[3:12, 3:12].all()


def test_convnext_has_the_receptive_field_of_its_kernels():
    """Stage 3 of ConvNeXt: six 7x7 blocks on one map reach 6·3 = 18 cells to each side."""
    model = timm.create_model("convnext_atto", ls_init_value=1.0)
    rollout = mixing_rollout(model, torch.randn(1, 3, 768, 768), blocks=range(5, 11))
    assert rollout.in_size == rollout.out_size == (48, 48)
    field = rollout.weights[0, 24 * 48 + 24].reshape(48, 48) > 0
    rows, columns = field.nonzero()
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (6, 42, 6, 42)


@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_gf", "hornet_test_iso", "test_vit", "convnext_atto"])
def test_rows_sum_to_one_through_downsampling(name):
    model = timm.create_model(name)
    size = model.pretrained_cfg["input_size"][-1]
    rollout = mixing_rollout(model, torch.randn(2, 3, size, size))
    np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-5)
    assert (rollout.weights >= 0).all()
    prefix = getattr(model, "num_prefix_tokens", 0)
    assert rollout.weights.shape[1] == rollout.out_size[0] * rollout.out_size[1] + prefix
    assert rollout.weights.shape[2] == rollout.in_size[0] * rollout.in_size[1] + prefix


@pytest.mark.parametrize("gamma", [1e-6, 1.0])
def test_the_residual_path_and_the_layer_scale_come_in_their_true_proportions(gamma):
    model = timm.create_model("hornet_test_iso", layer_scale_init_value=gamma).eval()
    with torch.no_grad():
        for block in model.blocks:
            nn.init.normal_(block.gnconv.proj_out.weight)
    images = torch.randn(1, 3, 96, 96)
    rollout = mixing_rollout(model, images)
    with torch.no_grad(), capture({str(i): b for i, b in enumerate(model.blocks)}) as calls:
        model(images)
    T = torch.eye(36)
    for i, block in enumerate(model.blocks):
        x = calls[str(i)][0].input
        with torch.no_grad():
            branch = block.gamma1[:, None, None] * block.gnconv(block.norm1(x))
        a = branch.norm(dim=1) / (branch.norm(dim=1) + x.norm(dim=1))
        a = a.flatten(1)[0, :, None]
        h = mixing_weights(block.gnconv, block.norm1(x)).dense()[0].abs().sum(0)
        T = ((1 - a) * torch.eye(36) + a * h / h.sum(-1, keepdim=True)) @ T
        assert rollout.branch_shares[f"blocks.{i}.gnconv"] == pytest.approx(float(a.mean()), rel=1e-4)
    np.testing.assert_allclose(rollout.weights[0], T, rtol=1e-4, atol=1e-6)


def test_swin_hierarchy():
    model = timm.create_model("swin_tiny_patch4_window7_224")
    rollout = mixing_rollout(model, torch.randn(1, 3, 224, 224))
    assert (rollout.out_size, rollout.in_size) == ((7, 7), (56, 56))
    np.testing.assert_allclose(rollout.weights.sum(-1), 1, rtol=1e-4)


def test_odd_maps_drop_what_the_stride_drops():
    D = downsampling((5, 7), (2, 3), like=torch.zeros(1))[0]
    assert D.shape == (6, 35)
    torch.testing.assert_close(D.sum(1), torch.ones(6))
    assert D.reshape(6, 5, 7)[:, 4].sum() == 0


def test_networks_whose_residual_path_is_not_known():
    from horinsight import GnConv

    with pytest.raises(ValueError, match="rollout knows the residual path of HorNet, ViT, Swin and ConvNeXt"):
        mixing_rollout(nn.Sequential(nn.Conv2d(3, 8, 4, 4), GnConv(8, 2)), torch.randn(1, 3, 32, 32))
