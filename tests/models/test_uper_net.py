import re

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.upernet.configuration_upernet import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

from horinsight import (
    found_mixers,
    model_influence,
    model_interaction_spectra,
    model_mixing_weights,
    named_blocks,
    upernet,
)
from horinsight.models.dense.pyramid_backbone import PyramidBackbone, pyramid_backbone
from horinsight.models.dense.uper_head import FcnHead, UperHead
from horinsight.models.dense.uper_net import UperNet

TINY = {"num_classes": 3, "channels": 16, "auxiliary_channels": 8}
SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
MILLIONS = {  # of the paper's Tables 2 and 3, to two digits by arithmetic: backbone, HorFPN → parameters
    ("hornet_tiny_7x7", None): 52.21,
    ("hornet_tiny_gf", None): 54.63,
    ("hornet_small_7x7", None): 81.18,
    ("hornet_small_gf", None): 84.81,
    ("hornet_base_7x7", None): 120.77,
    ("hornet_base_gf", None): 125.61,
    ("hornet_large_7x7", None): 231.77,
    ("hornet_large_gf", None): 239.03,
    ("hornet_small_7x7", "conv"): 74.28,
    ("hornet_small_7x7", "gf"): 74.66,
    ("resnet50", None): 66.50,
    ("resnet50", "conv"): 59.59,  # 66.497 - 6.906
    ("resnet50", "gf"): 59.98,
}


@pytest.mark.parametrize(("backbone", "horfpn"), MILLIONS)
def test_parameters_of_the_published_rows(backbone, horfpn):
    with torch.device("meta"):
        model = upernet(backbone, horfpn=horfpn)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(MILLIONS[backbone, horfpn], abs=0.0051)


def test_gf_backbones_store_the_filters_of_segmentation():
    with torch.device("meta"):
        model, given = upernet("hornet_tiny_gf"), upernet("hornet_tiny_gf", gf_sizes=(None, None, (14, 8), (7, 4)))
    sizes = [
        {tuple(p.shape[1:3]) for name, p in one.named_parameters() if name.endswith("complex_weight")}
        for one in (model, given)
    ]
    assert sizes == [{(24, 13), (12, 7)}, {(14, 8), (7, 4)}]


def randomised(module: nn.Module) -> nn.Module:
    """Every weight and every kept statistic drawn, so that none that is left out goes unnoticed."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            nn.init.uniform_(buffer, 0.5, 2)
    return module.double().eval()


def in_transformers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {re.sub(r"\.bn\.", ".batch_norm.", k).replace("conv_seg", "classifier"): v for k, v in weights.items()}


def test_both_heads_equal_those_of_transformers():
    """An implementation of its own, on levels whose sizes do not halve."""
    channels, sizes = [4, 6, 8, 10], [(17, 23), (9, 12), (4, 6), (2, 3)]
    levels = [torch.randn(2, C, *size, dtype=torch.float64) for C, size in zip(channels, sizes, strict=True)]
    config = UperNetConfig(backbone_config={"model_type": "resnet"}, hidden_size=12, auxiliary_channels=5, num_labels=7)
    assert (tuple(config.pool_scales), config.auxiliary_num_convs) == ((1, 2, 3, 6), 1)
    ours = randomised(UperHead(channels, 7, channels=12)), randomised(FcnHead(8, 7, channels=5))
    theirs = UperNetHead(config, channels).double().eval(), UperNetFCNHead(config, channels).double().eval()
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(in_transformers(mine.state_dict()))
    for found, expected in ((ours[0](levels), theirs[0](levels)), (ours[1](levels[2]), theirs[1](levels))):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_horfpn_changes_the_bottleneck_alone():
    plain, hor = (upernet("hornet_test", horfpn=f, **TINY) for f in (None, "conv"))
    names = [{name for name in one.state_dict() if "fpn_bottleneck" not in name} for one in (plain, hor)]
    assert names[0] == names[1]
    gnconv, bn, act = hor.decode_head.fpn_bottleneck
    assert (gnconv.proj_in.in_channels, gnconv.dims, gnconv.scale) == (64, [8, 16], 1)
    assert (type(bn), type(act)) == (nn.BatchNorm2d, nn.ReLU)


# the backbone


@pytest.mark.parametrize(
    ("name", "options", "eps"),
    [
        ("hornet_test", {}, 1e-6),
        ("convnext_atto", {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}, 1e-6),
        ("swin_tiny_patch4_window7_224", SWIN, 1e-5),
        ("resnet10t", {}, None),
        ("mobilenetv3_small_050", {}, None),
    ],
)
@torch.no_grad()
def test_any_network_of_four_levels_at_any_size(name, options, eps):
    model = upernet(name, **TINY, **options).double()
    for size in ((64, 64), (70, 101)):
        x = torch.randn(1, 3, *size, dtype=torch.float64)
        logits = model(x)
        assert logits.shape == (1, 3, *size)
        assert torch.equal(model.masks(x), logits.argmax(1))
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    norms = [getattr(model.backbone, f"norm{level}") for level in range(4)]
    for norm in norms if eps else ():
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for norm, raw, found in zip(norms, model.backbone.body(x), model.backbone(x), strict=True):
        raw = raw.permute(0, 3, 1, 2) if name.startswith("swin") else raw
        z = raw.numpy()
        if eps:  # over the channels of each cell
            z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + eps)
            z = z * norm.weight.numpy()[:, None, None] + norm.bias.numpy()[:, None, None]
        np.testing.assert_allclose(found.numpy(), z, rtol=1e-9, atol=1e-9)


def test_a_backbone_may_be_a_module():
    body = timm.create_model("hornet_test", features_only=True)
    by_name, by_module = pyramid_backbone("hornet_test"), upernet(body, **TINY).backbone
    by_name.load_state_dict(by_module.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(by_name(x), by_module(x), strict=True):
        assert torch.equal(a, b)
    assert upernet(by_name, **TINY).backbone is by_name
    assert isinstance(PyramidBackbone(body, level_norms=False).norm0, nn.Identity)


def test_masks_are_in_the_pictures_coordinates():
    """A segmenter whose logit of class 1 is large on the right, asked for at the size of the picture itself."""
    model = upernet("hornet_test", **TINY)
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    model.decode_head.forward = lambda levels: torch.cat([0 * ramp, ramp, ramp - 9], dim=1)
    found = model.masks(torch.zeros(1, 3, 64, 64), size=(30, 100))
    assert found.shape == (1, 30, 100)
    assert torch.equal(found[0, 0], (torch.arange(100) >= 50).long())


# training


def test_losses_are_the_mean_cross_entropies_of_the_pixels_that_count():
    model = upernet("hornet_test", **TINY, seed=1).double()
    x = torch.randn(2, 3, 40, 48, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 40, 48))
    targets[0, :20] = 255
    losses = model(x, targets)
    auxiliary = F.interpolate(model.auxiliary_head(model.backbone(x)[2]), size=(40, 48), mode="bilinear")
    for name, logits, weight in (("decode", model(x), 1.0), ("auxiliary", auxiliary, 0.4)):
        p = logits.detach().softmax(1).numpy()
        counted = [(b, r, c) for b in range(2) for r in range(40) for c in range(48) if targets[b, r, c] != 255]
        expected = -weight * np.mean([np.log(p[b, targets[b, r, c], r, c]) for b, r, c in counted])
        assert float(losses[name].detach()) == pytest.approx(expected, rel=1e-10)
    assert set(upernet("hornet_test", num_classes=3, channels=8, auxiliary_channels=0)(x.float(), targets)) == {
        "decode"
    }


def shapes(number: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures of a green rectangle and a blue disc on red ground, and the class of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    targets = torch.zeros(number, side, side, dtype=torch.long)
    for target in targets:
        top, left, height, width = torch.randint(4, side // 2, (4,)).tolist()
        target[top : top + height, left : left + width] = 1
        y, x, radius = torch.randint(side // 4, 3 * side // 4, (3,)).tolist()
        target[(rows - y) ** 2 + (columns - x) ** 2 < (radius / 4) ** 2] = 2
    colours = torch.eye(3)[targets].permute(0, 3, 1, 2)
    return colours + 0.3 * torch.randn_like(colours), targets


def test_it_learns_shapes_in_a_hundred_steps():
    model = upernet("hornet_test_gf", horfpn="gf", **TINY).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = sum(model(*shapes(4, 64)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    images, targets = shapes(8, 64)
    right = float((model.eval().masks(images) == targets).double().mean())
    assert right > 0.8  # the ground alone has some 0.7 of the pixels


def test_seeded_weights_leave_the_random_state():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    a, b, c = (upernet("hornet_test", **TINY, seed=seed).decode_head.conv_seg.weight for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_it_can_be_exported():
    model = upernet("hornet_test_gf", horfpn="gf", **TINY)
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes={"x": {0: batch}})
    x = torch.randn(3, 3, 64, 96)
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)  # float32, other kernels


# what is measured inside


@pytest.fixture(scope="module")
def segmenter() -> UperNet:
    return upernet("hornet_test_gf", horfpn="conv", **TINY).double()


IMAGE = (3, 64, 96)
MIXERS = [
    *(f"backbone.body.model.stages.{stage}.0.gnconv" for stage in range(4)),
    "decode_head.bottleneck.conv",
    *(f"decode_head.fpn_convs.{level}.conv" for level in range(3)),
    "decode_head.fpn_bottleneck.gnconv",
]


def test_its_mixers_are_found(segmenter):
    found = {mixer.name: mixer for mixer in found_mixers(segmenter)}
    assert [block.name for block in named_blocks(segmenter)] == MIXERS
    assert [found[name].order for name in MIXERS] == [2, 3, 4, 5, 0, 0, 0, 0, 2]
    assert {mixer.kind for name, mixer in found.items() if "psp_modules" in name} == {"pooling"}


def test_every_mixer_has_mixing_weights(segmenter):
    x = torch.randn(1, *IMAGE, dtype=torch.float64)
    errors = model_mixing_weights(segmenter, x, keep=lambda weights: weights.reconstruction_error)
    assert list(errors) == MIXERS
    assert max(errors.values()) < 1e-12


def test_orders_of_the_head_and_the_backbone(segmenter):
    x = torch.randn(1, *IMAGE, dtype=torch.float64)
    spectra = model_interaction_spectra(segmenter, x, blocks=[1, 3, 5, 9], max_order=5, num_tuples=4)
    assert [(s.location_order, s.degree_order) for s in spectra.values()] == [(2, 2), (4, 4), (0, 0), (2, 2)]


def test_reach_back_to_the_image(segmenter):
    """From what leaves HorFPN's block, its norm and ReLU included, by one gradient for each of its channels."""
    x = torch.randn(1, *IMAGE, dtype=torch.float64)
    found = model_influence(segmenter, x, blocks=[len(MIXERS)], scope="image", probes=None, queries=[(3, 5)])
    (reach,) = found.values()
    kept = {}
    block = segmenter.decode_head.fpn_bottleneck
    handle = block.register_forward_hook(lambda _, inputs, output: kept.update(output=output))
    x.requires_grad_()
    segmenter(x)
    handle.remove()
    gradients = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in kept["output"][0, :, 3, 5]]
    expected = torch.cat(gradients).square().mean((0, 1)).numpy()
    np.testing.assert_allclose(reach.influence.squares[0, 0], expected, rtol=1e-9, atol=1e-9 * expected.max())


# what does not fit


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("vit_tiny_patch16_224", {}, "4 levels, each of a larger stride than the one before, got 4 of strides 16, 16"),
        ("hornet_test_iso", {}, "hornet_test_iso gives no 4 levels"),
        ("hornet_tset", {}, "did you mean hornet_test"),
        (nn.Conv2d(3, 3, 3), {}, "built with features_only=True, got Conv2d"),
        ("hornet_test", {"channels": 15, "horfpn": "conv"}, "divisible by 2^1 = 2"),
        ("hornet_test", {"channels": 18, "horfpn": "gf"}, "divisible by 2^2 = 4"),
        ("hornet_test", {"num_classes": 0}, "num_classes and channels of at least 1"),
    ],
)
def test_networks_that_do_not_fit_are_refused_with_what_to_do(backbone, options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)) as error:
        upernet(backbone, **{"channels": 16, "num_classes": 3, **options})
    assert "\n" not in str(error.value)


def test_options_for_a_module_are_refused():
    with pytest.raises(TypeError, match="depths: options apply to a backbone given by name"):
        upernet(pyramid_backbone("hornet_test"), depths=(1, 1, 1, 1))


X = torch.zeros(2, 3, 64, 64)
T = torch.zeros(2, 64, 64, dtype=torch.long)


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (X[..., :31], None, "at least 32 pixels a side, got 64x31"),
        (X[0], None, "add a batch dimension"),
        (X[:, :1], None, "expects images of shape (B, 3, H, W), got (2, 1, 64, 64)"),
        (X, T[:1], "shape (2, 64, 64) for these images, got (1, 64, 64)"),
        (X, T[:, :32], "got (2, 32, 64)"),
        (X, T[:, None], "got (2, 1, 64, 64)"),
        (X, T.float(), "whole numbers (torch.long or torch.uint8), got torch.float32"),
        (X, T.bool(), "got torch.bool"),
        (X, T + 3, "classes from 0 to 2, or 255 for pixels that do not count, got 3"),
        (X, T - 1, "got -1"),
        (X, T + 255, "at least one pixel that counts, got 255 everywhere"),
        (X[:1], T[:1], "at least 2 images"),
    ],
)
def test_pictures_and_targets_that_do_not_fit_are_refused(images, targets, message):
    model = upernet("hornet_test", **TINY).train()
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        model(images, targets)
    assert "\n" not in str(error.value)


def test_targets_are_a_tensor():
    with pytest.raises(TypeError, match="tensor of classes, got list"):
        upernet("hornet_test", **TINY)(X, [[0]])
