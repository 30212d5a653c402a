import copy
import json
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import plain_hornet
import pytest
import timm
import torch
from reference_weights import reference_images, reference_tensor

from horinsight import HorNet, IsotropicHorNet, count_macs, create_model, list_models

OFFICIAL = [name for name in list_models("hornet_*") if "test" not in name and "iso" not in name]
TESTS = ["hornet_test", "hornet_test_gf", "hornet_test_iso"]
PARAMETERS = {  # SPEC, section 2
    "hornet_tiny_7x7": 22_409_512,
    "hornet_tiny_gf": 22_991_848,
    "hornet_small_7x7": 49_528_264,
    "hornet_small_gf": 50_401_768,
    "hornet_base_7x7": 87_256_680,
    "hornet_base_gf": 88_421_352,
    "hornet_base_gf_img384": 92_099_560,
}


def with_reference_weights(name: str, **options) -> torch.nn.Module:
    model = timm.create_model(name, **options).eval()
    state = {key: torch.from_numpy(reference_tensor(key, tuple(v.shape))) for key, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    "case", ["hornet_tiny_7x7_224x224", "hornet_tiny_gf_224x224", "hornet_tiny_gf_192x256", "hornet_small_7x7_160x224"]
)
def test_reproduces_the_published_implementation(case, reference):
    name, size = case.rsplit("_", 1)
    stored = np.load(reference / f"{case}.npz")
    model = with_reference_weights(name)
    with torch.no_grad():
        features, stages = model.forward_intermediates(
            torch.from_numpy(reference_images(*map(int, size.split("x")))), indices=[0, 1, 2, 3]
        )
        logits = model.forward_head(features)
    # tests/data/reference/README.md: rounding moves the numbers by 2e-5, a 1 % error in one weight by 1e-3
    expected = {"logits": logits.numpy()}
    for s, stage in enumerate(stages):
        expected[f"stage{s}_corner"] = stage[:, :8, :4, :4].numpy()
        expected[f"stage{s}_rms"] = stage.double().square().mean(dim=(1, 2, 3)).sqrt().numpy()
    for key, value in expected.items():
        np.testing.assert_allclose(value, stored[key], rtol=0, atol=1e-4 * np.abs(stored[key]).max(), err_msg=key)


def test_names_shapes_and_parameter_counts_are_the_published_ones(reference):
    shapes = json.loads((reference / "state_dict_shapes.json").read_text())
    assert sorted(shapes) == sorted(OFFICIAL)
    for name, expected in shapes.items():
        with torch.device("meta"):
            model = timm.create_model(name)
        assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected
        if name in PARAMETERS:
            assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_table_1_parameters(reference):
    for row in json.loads((reference / "paper_tables.json").read_text())["table1"]["hornet"]:
        with torch.device("meta"):
            model = timm.create_model(row["model"])
        assert round(sum(p.numel() for p in model.parameters()) / 1e6) == row["params_m"], row["model"]


@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_gf", "hornet_test_iso"])
@pytest.mark.parametrize("size", [(96, 96), (64, 104), (33, 47)])
def test_equals_the_plain_transcription(name, size):
    model = with_reference_weights(name)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = plain_hornet.plain_model(name, model.state_dict())(images)
        np.testing.assert_allclose(model(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_isotropic_model_of_figure_4():
    model = create_model("hornet_s_iso")
    assert isinstance(model, IsotropicHorNet)
    assert len(model.blocks) == 13
    assert {block.gnconv.order for block in model.blocks} == {5}
    with torch.device("meta"):
        count = count_macs(timm.create_model("hornet_s_iso"), 224)
        features = timm.create_model("hornet_s_iso").forward_features(torch.empty(1, 3, 224, 224))
    assert round(count.macs / 1e9, 1) == 4.5
    assert features.shape == (1, 384, 14, 14)


@pytest.mark.parametrize("name", [name for name in list_models("hornet_*") if "iso" not in name])
def test_features_only_gives_the_pyramid(name):
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True)
        features = model(torch.empty(1, 3, 128, 96))
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    assert [f.shape[2:] for f in features] == [(128 // s, 96 // s) for s in (4, 8, 16, 32)]
    assert [f.shape[1] for f in features] == model.feature_info.channels()


def test_features_only_with_fewer_stages_drops_the_rest():
    model = timm.create_model("hornet_test", features_only=True, out_indices=(1,))
    (features,) = model(torch.zeros(1, 3, 64, 64))
    assert features.shape == (1, 16, 8, 8)
    assert not any(key.startswith("model.stages.2") for key in model.state_dict())


def test_features_only_of_the_isotropic_model():
    model = timm.create_model("hornet_test_iso", features_only=True, out_indices=(0, 1))
    assert model.feature_info.reduction() == [16, 16]
    assert [f.shape for f in model(torch.zeros(1, 3, 64, 96))] == [(1, 16, 4, 6)] * 2


@pytest.mark.parametrize("name", TESTS)
def test_timm_interface(name):
    model = timm.create_model(name, num_classes=7).eval()
    x = torch.randn(2, 3, 64, 64)
    features = model.forward_features(x)
    assert features.shape[1] == model.num_features
    torch.testing.assert_close(model.forward_head(features), model(x))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    final, intermediates = model.forward_intermediates(x)
    torch.testing.assert_close(final, features)
    torch.testing.assert_close(intermediates[-1], features)
    assert model.forward_intermediates(x, indices=1, intermediates_only=True, output_fmt="NHWC")[0].shape == (
        2, *features.shape[2:], features.shape[1]
    )  # fmt: skip
    stopped, _ = model.forward_intermediates(x, indices=[0], stop_early=True)
    torch.testing.assert_close(stopped, intermediates[0])
    assert model.get_classifier() is model.head
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(5, "catavgmax")
    assert model(x).shape == (2, 5)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(x).shape == features.shape
    with pytest.raises(ValueError, match="norm=True"):
        model.forward_intermediates(x, norm=True)
    with pytest.raises(ValueError, match="global_pool"):
        model.reset_classifier(3, "median")
    with pytest.raises(ValueError, match="pooled"):
        model.reset_classifier(3, "")


@pytest.mark.parametrize("name", TESTS)
def test_parameter_groups_cover_the_model(name):
    from timm.models import group_parameters

    model = timm.create_model(name)
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        assert sorted(n for names in groups.values() for n in names) == sorted(n for n, _ in model.named_parameters())
    assert "stages.0.0.gamma1" in model.no_weight_decay() or "blocks.0.gamma1" in model.no_weight_decay()


def test_arguments_reach_the_layers():
    model = timm.create_model(
        "hornet_test",
        orders=(1, 2, 3, 4),
        kernel_size=(3, 5, 7, 9),
        scale=0.5,
        drop_path_rate=0.3,
        layer_scale_init_value=0.1,
        ffn_ratio=2,
        in_chans=4,
        num_classes=6,
        drop_rate=0.25,
        depths=(1, 2, 1, 1),
    )
    gnconvs = [block.gnconv for stage in model.stages for block in stage]
    assert [g.order for g in gnconvs] == [1, 2, 2, 3, 4]
    assert [g.dwconv.kernel_size[0] for g in gnconvs] == [3, 5, 5, 7, 9]
    assert {g.scale for g in gnconvs} == {0.5}
    drops = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage]
    np.testing.assert_allclose(drops, [0, 0.075, 0.15, 0.225, 0.3])
    assert model.stages[0][0].gamma1[0].item() == pytest.approx(0.1)
    assert model.stages[0][0].pwconv1.out_features == 16
    assert model.drop_rate == 0.25
    assert model(torch.zeros(1, 4, 32, 32)).shape == (1, 6)

    filters = timm.create_model("hornet_test_gf", gf_sizes=(None, (12, 7), None, (3, 2)), kernel_size=5)
    assert filters.stages[1][0].gnconv.dwconv.complex_weight.shape[1:3] == (12, 7)
    assert filters.stages[2][0].gnconv.dwconv.kernel_size == (5, 5)

    iso = timm.create_model("hornet_test_iso", order=2, kernel_size=3, scale=1.0, drop_path_rate=0.2, patch_size=8)
    assert iso.blocks[0].gnconv.order == 2
    assert iso.blocks[2].drop_path.drop_prob == pytest.approx(0.2)
    assert iso.forward_features(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 8, 8)
    assert timm.create_model("hornet_test_iso", depthwise="gf", gf_size=(4, 3)).blocks[0].gnconv.dwconv.dw is not None
    pooled = timm.create_model("hornet_test", depthwise="pool")
    assert isinstance(pooled.stages[0][0].gnconv.dwconv, torch.nn.AvgPool2d)


def test_no_layer_scale():
    model = HorNet(8, depths=(1, 1, 1, 1), layer_scale_init_value=0)
    assert not any("gamma" in key for key in model.state_dict())
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 1)}, "depths expects one value per stage"),
        ({"orders": (2, 3, 4)}, "orders expects one value per stage"),
        ({"gf_sizes": ((3, 2),) * 4, "kernel_size": 5}, "no stage to apply to"),
        ({"orders": 6}, "divisible"),
        ({"num_classes": -1}, "num_classes"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("hornet_test", **options)


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 31, 40), "31x40"), ((3, 64, 64), r"\(3, 64, 64\)"), ((1, 1, 64, 64), r"\(1, 1, 64, 64\)")],
)
def test_small_and_misshapen_images_are_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model(name)(torch.zeros(shape))


@pytest.mark.parametrize("name", TESTS)
def test_autocast_bfloat16_forward_and_backward(name):
    model = with_reference_weights(name).train()
    x = torch.randn(2, 3, 64, 64)
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
        loss = logits.float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    # bfloat16 keeps 8 bits; through the layers the logits stay recognisable
    assert torch.corrcoef(torch.stack([exact.flatten(), logits.float().flatten()]))[0, 1] > 0.98


@pytest.mark.parametrize("name", TESTS)
def test_gradient_checkpointing_gives_the_same_gradients(name):
    plain = timm.create_model(name, layer_scale_init_value=0.5).train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing(True)
    x = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        model(x).square().mean().backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)


@pytest.mark.parametrize("name", TESTS)
def test_gradients_of_all_parameters_are_right(name):
    """Directional derivative of the loss against a central difference, float64."""
    model = with_reference_weights(name, num_classes=3).double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(model(x).square().sum(), parameters)
    direction = [torch.randn_like(p) for p in parameters]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))

    def loss(step: float) -> float:
        with torch.no_grad():
            moved = {n: p + step * d for (n, p), d in zip(model.named_parameters(), direction, strict=True)}
            return float(torch.func.functional_call(model, moved, (x,)).square().sum())

    h = 1e-5
    assert (loss(h) - loss(-h)) / (2 * h) == pytest.approx(slope, rel=1e-5)


HEADERS = Path(sysconfig.get_paths()["include"]) / "Python.h"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None or not HEADERS.exists(), reason="no compiler or no Python headers")
@pytest.mark.parametrize("name", TESTS)
def test_torch_compile_forward_and_backward(name):
    model = with_reference_weights(name)
    compiled = torch.compile(model)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    compiled(x).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_torch_export(name):
    model = with_reference_weights(name)
    x = torch.randn(2, 3, 64, 96)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=1e-5, atol=1e-5)


def test_meta_device_needs_no_memory():
    with torch.device("meta"):
        model = timm.create_model("hornet_large_7x7", drop_path_rate=0.4)
        assert model(torch.empty(1, 3, 4096, 4096)).shape == (1, 1000)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", TESTS)
def test_cuda_agrees_with_the_cpu(name):
    model = with_reference_weights(name)
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)
