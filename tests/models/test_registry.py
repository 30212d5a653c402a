import copy
import io

import pytest
import timm
import torch
from torch import nn

from horinsight import create_model, list_models, load_checkpoint, model_interaction_spectra, named_blocks
from horinsight.models.origin import WeightsOrigin, set_weights_origin, weights_origin
from horinsight.models.packaged_weights import model_card
from horinsight.models.provenance import model_provenance, weights_sha256
from horinsight.models.registry import comes_trained

DIGITS = "hornet_digits_iso"


def test_every_listed_model_is_timms():
    assert len(list_models()) == 33
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


# what is given has an effect, or is refused


@pytest.mark.parametrize(
    "options",
    [{"num_classes": 10}, {"in_chans": 3}, {"order": 5, "depth": 13}, {"global_pool": "avg"}, {"drop_rate": 0.0}, {}],
)
def test_options_that_are_the_defaults_change_nothing(options):
    assert comes_trained(DIGITS, options)
    model = create_model(DIGITS, **options)
    assert weights_origin(model) == WeightsOrigin(model_card(DIGITS)["weights"], trained=True)
    assert weights_sha256(model) == weights_sha256(create_model(DIGITS))


@pytest.mark.parametrize(
    "options",
    [{"num_classes": 9}, {"in_chans": 1}, {"order": 4}, {"scale": 0.5}, {"global_pool": "max"}, {"drop_rate": 0.1},
     {"drop_path_rate": 0.1}, {"layer_scale_init_value": 0.1}, {"features_only": True}, {"pretrained": False}],
)  # fmt: skip
def test_options_that_change_the_model_get_random_weights(options):
    """Also those that weights would hide, such as how a layer scale starts, and those that no weight shows."""
    assert not comes_trained(DIGITS, options)
    assert weights_origin(create_model(DIGITS, **options)) == WeightsOrigin("random, seed 0", trained=False)


@pytest.mark.parametrize(
    "argument", [{"ema": True}, {"strict": False}, {"resize_filters": True}, {"rename_in_order": True}]
)
@pytest.mark.parametrize("name", ["hornet_test", DIGITS])
def test_how_to_read_a_checkpoint_that_is_not_there(name, argument):
    ((key, value),) = argument.items()
    with pytest.raises(ValueError, match=f"{key}={value} says how to read a checkpoint: pass checkpoint=PATH"):
        create_model(name, **argument)


def test_arguments_without_effect(tmp_path):
    torch.save(create_model("hornet_test", seed=9).state_dict(), tmp_path / "nine.pth")
    with pytest.raises(ValueError, match=r"seed=3 has no effect.*pretrained=False"):
        create_model(DIGITS, seed=3)
    with pytest.raises(ValueError, match="seed=3 has no effect"):
        create_model("hornet_test", checkpoint=tmp_path / "nine.pth", seed=3)
    part = create_model("hornet_test", checkpoint=tmp_path / "nine.pth", strict=False, seed=3)
    assert weights_sha256(part) == weights_sha256(create_model("hornet_test", seed=9))
    assert weights_origin(create_model(DIGITS, pretrained=False, seed=3)).source == "random, seed 3"
    with pytest.raises(ValueError, match="leave it or the checkpoint out"):
        create_model(DIGITS, pretrained=True, checkpoint=tmp_path / "nine.pth")
    with pytest.raises(ValueError, match="expects checkpoint=PATH"):
        create_model("hornet_test", checkpoint_path=str(tmp_path / "nine.pth"))


# origins stay true


def one_step(model: nn.Module) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(torch.randn(2, 3, 56, 56)).square().sum().backward()
    optimiser.step()


def edited(model: nn.Module) -> None:
    with torch.no_grad():
        model.head.bias[-1].nextafter_(torch.tensor(torch.inf))


def edited_behind_the_counter(model: nn.Module) -> None:
    model.head.bias.data[0] += 1e-3


def replaced(model: nn.Module) -> None:
    model.head.bias = nn.Parameter(torch.zeros(10))


CHANGES = {
    "loaded": (lambda model: model.load_state_dict(create_model(DIGITS, pretrained=False).state_dict()), None),
    "trained": (one_step, None),
    "edited": (edited, "head.bias"),
    "edited behind the counter": (edited_behind_the_counter, "head.bias"),
    "replaced": (replaced, "head.bias"),
    "reset": (lambda model: model.reset_classifier(10), "head.weight, head.bias"),
    "reset to another size": (lambda model: model.reset_classifier(3), "head.weight, head.bias"),
    "without a head": (lambda model: model.reset_classifier(0), "head.weight, head.bias"),
    "with another part": (lambda model: model.register_buffer("extra", torch.zeros(1)), "extra"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_named(change):
    model = create_model(DIGITS)
    card = model_card(DIGITS)["weights"]
    assert weights_origin(model) == WeightsOrigin(card, trained=True)
    alter, names = CHANGES[change]
    alter(model)
    origin = weights_origin(model)
    assert origin.source.startswith(f"{card}, changed since: {names or 'stem.weight'}")
    assert ("more" in origin.source) == (names is None)
    assert origin.trained is None
    assert len(origin.source) < 300
    assert model_provenance(model).weights == origin.source
    assert weights_origin(copy.deepcopy(model)) == origin


def pickled(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


SAME = {
    "copied": copy.deepcopy,
    "pickled": pickled,
    "moved": lambda model: model.to("cpu"),
    "in another layout": lambda model: model.to(memory_format=torch.channels_last),
    "trained on": lambda model: model.train(),
    "frozen": lambda model: model.requires_grad_(False),
    "in its own weights": lambda model: (model.load_state_dict(copy.deepcopy(model.state_dict())), model)[1],
    "used": lambda model: (model(torch.zeros(1, 3, 56, 56)), model)[1],
    "there and back": lambda model: model.double().float(),
}


@pytest.mark.parametrize("how", SAME)
def test_what_is_no_change(how):
    model = create_model(DIGITS)
    assert weights_origin(SAME[how](model)) == WeightsOrigin(model_card(DIGITS)["weights"], trained=True)


@pytest.mark.parametrize(
    ("convert", "name"),
    [
        (lambda model: model.double(), "float64"),
        (lambda model: model.half(), "float16"),
        (lambda model: model.bfloat16(), "bfloat16"),
        (lambda model: copy.deepcopy(model).half().float(), "float16"),
        (lambda model: model.bfloat16().double(), "bfloat16"),
    ],
)
def test_conversions_are_no_changes(convert, name):
    converted = convert(create_model(DIGITS))
    card = model_card(DIGITS)["weights"]
    assert weights_origin(converted) == WeightsOrigin(f"{card}, converted to {name}", trained=True)
    with torch.no_grad():
        converted.head.bias[0] += 0.5
    assert weights_origin(converted) == WeightsOrigin(f"{card}, changed since: head.bias", trained=None)


def test_running_statistics_are_weights():
    model = create_model("resnet10t")
    assert weights_origin(model).source == "random, seed 0, norm scales of 0 set to 1"
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 64, 64))
    assert "changed since: conv1.1.running_mean" in weights_origin(model).source


def test_an_origin_can_be_written_again():
    model = create_model("hornet_test")
    edited(model)
    set_weights_origin(model, WeightsOrigin("random, one bias moved", trained=False))
    assert weights_origin(model) == WeightsOrigin("random, one bias moved", trained=False)
