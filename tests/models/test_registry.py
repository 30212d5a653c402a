import pytest
import timm
import torch

from horinsight import create_model, list_models, load_checkpoint, model_interaction_spectra, named_blocks
from horinsight.models.checkpoints import WeightsOrigin, weights_origin
from horinsight.models.registry import weights_sha256


def test_every_listed_model_is_timms():
    assert len(list_models()) == 17
    for name in list_models():
        assert timm.is_model(name)
    assert list_models("hornet_*_img384") == ["hornet_base_gf_img384", "hornet_large_gf_img384"]


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = create_model("hornet_test", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert weights_sha256(first) == weights_sha256(create_model("hornet_test", seed=3))
    assert weights_sha256(first) != weights_sha256(create_model("hornet_test", seed=4))


def test_the_hash_sees_every_value():
    model = create_model("hornet_test")
    before = weights_sha256(model)
    with torch.no_grad():
        model.head.bias[-1] += 1e-6
    assert weights_sha256(model) != before


def test_eval_mode_options_and_origin():
    model = create_model("hornet_test_iso", num_classes=4, seed=2)
    assert not model.training
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    assert weights_origin(model) == WeightsOrigin("random, seed 2", trained=False)
    assert weights_origin(timm.create_model("hornet_test")) == WeightsOrigin("unknown", trained=None)


def test_models_of_timm_too():
    assert type(create_model("convnext_atto")).__name__ == "ConvNeXt"


def test_checkpoint(tmp_path):
    torch.save({"model": create_model("hornet_test", seed=9).state_dict()}, tmp_path / "nine.pth")
    model = create_model("hornet_test", checkpoint=tmp_path / "nine.pth")
    assert weights_sha256(model) == weights_sha256(create_model("hornet_test", seed=9))
    assert weights_origin(model) == WeightsOrigin("checkpoint nine.pth, model", trained=True)
    other = timm.create_model("hornet_test")
    load_checkpoint(other, tmp_path / "nine.pth")
    assert weights_origin(other) == WeightsOrigin("checkpoint nine.pth, model", trained=True)


def test_partial_checkpoints_say_so(tmp_path):
    state = create_model("hornet_test", seed=9).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("head")}, tmp_path / "headless.pth")
    with pytest.raises(ValueError, match="--partial"):
        create_model("hornet_test", checkpoint=tmp_path / "headless.pth")
    model = create_model("hornet_test", checkpoint=tmp_path / "headless.pth", strict=False)
    assert weights_origin(model).source.endswith(f"partial: 2 of {len(state)} tensors not in it")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("hornet_tinny_7x7", "hornet_tiny_7x7"), ("hornet", "hornet"), ("convnext_tinny", "convnext_tiny")],
)
def test_unknown_names_come_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=f"Unknown model '{name}'.*{hint}"):
        create_model(name)


def test_names_that_would_download_are_refused():
    with pytest.raises(ValueError, match="Unknown model"):
        create_model("hf-hub:somebody/hornet")
    with pytest.raises(ValueError, match="use 'vit_tiny_patch16_224'"):
        create_model("vit_tiny_patch16_224.augreg_in21k")
    with pytest.raises(ValueError, match="use 'hornet_test'"):
        create_model("hornet_test.foo_in1k")
    with pytest.raises(ValueError, match="downloads nothing"):
        create_model("hornet_test", pretrained=True)


def test_options_that_a_model_does_not_have():
    with pytest.raises(TypeError, match="heads"):
        create_model("hornet_test", heads=3)


def test_the_baseline_of_the_ablation():
    """Table 6a's [*]: nothing differs from the HorNet but the mixer."""
    baseline = create_model("dwconv_digits_iso", depth=2, dim=32, kernel_size=5, num_classes=3)
    hornet = create_model("hornet_digits_iso", depth=2, dim=32, kernel_size=5, num_classes=3)
    own, other = (
        {name: tuple(value.shape) for name, value in model.state_dict().items()} for model in (baseline, hornet)
    )
    assert {name for name in own if name not in other} == {
        f"blocks.{i}.dwconv.{p}" for i in (0, 1) for p in ("weight", "bias")
    }
    assert all(".gnconv." in name for name in other if name not in own)
    assert [(block.mixer, block.order) for block in named_blocks(baseline)] == [("depthwise_conv", 0)] * 2
    x = torch.randn(1, 3, 56, 56)
    spectra = model_interaction_spectra(baseline, x, num_tuples=4)
    assert [spectrum.location_order for spectrum in spectra.values()] == [0, 0]
    block = baseline.blocks[0]
    y = torch.randn(1, 32, 6, 6)
    mixed = y + block.gamma1[:, None, None] * block.dwconv(block.norm1(y))
    z = mixed.permute(0, 2, 3, 1)
    expected = z + block.gamma2 * block.pwconv2(torch.nn.functional.gelu(block.pwconv1(block.norm2(z))))
    torch.testing.assert_close(block(y), expected.permute(0, 3, 1, 2))
    for option in ("order", "gf_size", "scale"):
        with pytest.raises(TypeError, match=option):
            create_model("dwconv_digits_iso", **{option: 3})
