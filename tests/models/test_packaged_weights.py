"""The trained model in the box: its accuracy, its hash, and that results name it."""

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

import horinsight
from horinsight import create_model
from horinsight.data.datasets import digits
from horinsight.models.packaged_weights import model_card, packaged_weights
from horinsight.models.provenance import weights_sha256
from horinsight.training.accuracy import accuracy

NAME = "hornet_digits_iso"


def test_the_layout_of_figure_4():
    model = create_model(NAME)
    blocks = horinsight.named_blocks(model)
    assert len(blocks) == 13
    assert {block.order for block in blocks} == {5}
    assert model.num_features == 64
    with horinsight.capture({"block": model.blocks[0]}) as calls, torch.inference_mode():
        assert model(torch.zeros(1, 3, 56, 56)).shape == (1, 10)
    assert calls["block"][0].output.shape[-2:] == (14, 14)


def test_held_out_accuracy_from_the_shipped_weights():
    card = model_card(NAME)
    found = accuracy(create_model(NAME), digits()[1])
    assert found >= 0.985
    assert found == pytest.approx(card["accuracy"]["held_out"], abs=1.5 / 359), "one picture may round the other way"
    spread = card["accuracy"]["over_seeds"]
    assert len(set(spread["seeds"])) >= 3
    assert min(spread["held_out"]) >= 0.985, "training from scratch gives the same, whatever the seed"


def test_the_file_is_small_safe_and_the_one_of_the_card():
    path, card = packaged_weights(NAME), model_card(NAME)
    assert path.stat().st_size < 4e6
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["sha256_of_file"]
    assert weights_sha256(create_model(NAME)) == card["sha256_of_values"]
    assert set(safetensors.torch.load_file(path)) == set(create_model(NAME).state_dict())
    assert card["data"]["training"] + card["data"]["held_out"] == 1797
    assert len(card["log"]) == card["recipe"]["epochs"]
    assert {"torch", "timm"} <= card["versions"].keys()


def test_random_weights_and_changed_models_on_request():
    trained, random = create_model(NAME), create_model(NAME, pretrained=False)
    assert trained.weights_origin.trained is True
    assert trained.weights_origin.source.startswith("trained: digits, ")
    assert random.weights_origin.trained is False
    assert weights_sha256(trained) != weights_sha256(random)
    other = create_model(NAME, order=3)
    assert other.weights_origin.trained is False, "another model has no weights in the box"
    with pytest.raises(ValueError, match="shape"):
        create_model(NAME, pretrained=True, order=3)
    assert torch.equal(timm.create_model(NAME, pretrained=True).head.weight, trained.head.weight)


def test_results_name_the_training(run):
    status, text, _ = run("ie", "--model", NAME, "--blocks", "1", "--tuples", 2, "--format", "json")
    assert status == 0
    content = json.loads(text)
    assert content["weights"]["trained"] is True
    assert content["weights"]["source"].startswith("trained: digits, ")
    assert [image.split(" ")[0] for image in content["images"]] == ["digit_3", "digit_5", "digit_8"]
    assert content["blocks"][0]["location_order"] == 5
    _, table, _ = run("ie", "--model", NAME, "--blocks", "1", "--tuples", 2)
    assert "UNTRAINED" not in table


def test_adaptivity_of_the_card():
    """Trained weights adapt by far more than random ones, and keep a part that is common to all pictures and places."""
    card = model_card(NAME)["adaptivity"]
    for key in ("input_deviation", "location_deviation"):
        trained, initial = card["trained"][key], card["initial"][key]
        assert trained["interval"][0] > 1e6 * initial["interval"][1], "well above, with an interval"
        assert min(trained["blocks"]) > 1e6 * max(initial["blocks"]), "in every block"
    for key in ("input_adaptivity", "location_adaptivity"):
        trained, initial = card["trained"][key], card["initial"][key]
        assert trained["interval"][0] > 0.1, "far from a fixed kernel"
        assert trained["interval"][1] < initial["interval"][0], "and far from its initialisation"
    model = create_model(NAME)
    held_out = digits()[1]
    images = horinsight.image_batch(model, [held_out.picture(i) for i in range(card["trained"]["num_images"])])
    found = horinsight.model_adaptivity(model, images, blocks=[1, 13])
    for block, index in zip(found.values(), (0, 12), strict=True):
        assert block.location_deviation.value == pytest.approx(
            card["trained"]["location_deviation"]["blocks"][index], rel=1e-2
        )
        assert block.location_adaptivity.value == pytest.approx(
            card["trained"]["location_adaptivity"]["blocks"][index], abs=2e-3
        )


def test_the_card_is_readable():
    text = Path(packaged_weights(NAME)).with_suffix(".json").read_text()
    assert json.loads(text)["data"]["license"] == "CC BY 4.0"
