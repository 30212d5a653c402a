"""A mixer that nobody knows, entered in a few lines, is there for lists, spectra, weights, shell and viewer."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from streamlit.testing.v1 import AppTest
from timm.models import register_model
from torch import Tensor, nn

import horinsight
from horinsight import MixerFamily, model_interaction_spectra, model_mixing_weights, named_blocks, register_mixer
from horinsight.mixers.mixer_registry import unregister_mixer

VIEWER = str(Path(__file__).parents[2] / "apps" / "viewer.py")


class CrossShaped(nn.Module):
    """Means of rows and columns, each gated by the feature itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate, self.out = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        lines = x.mean(2, keepdim=True).expand_as(x) + x.mean(3, keepdim=True).expand_as(x)
        return self.out(self.gate(x) * lines)


class CrossNet(nn.Module):
    def __init__(self, dim: int = 8, **_: object) -> None:
        super().__init__()
        self.num_classes, self.in_chans = 3, 3
        self.stem = nn.Conv2d(3, dim, 8, 8)
        self.norm, self.cross = nn.BatchNorm2d(dim), CrossShaped(dim)
        self.head = nn.Linear(dim, 3)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.cross(self.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x).mean((2, 3)))


@register_model
def crossnet_for_tests(pretrained: bool = False, **options: object) -> nn.Module:
    model = CrossNet()
    model.pretrained_cfg = model.default_cfg = {
        "input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic",
        "crop_pct": 1.0, "classifier": "head", "first_conv": "stem", "num_classes": 3,
    }  # fmt: skip
    return model


@pytest.fixture
def family():
    entered = register_mixer(MixerFamily("cross_shaped", lambda m: isinstance(m, CrossShaped), lambda m: 1))
    yield entered
    unregister_mixer("cross_shaped")


def test_without_an_entry_it_is_found_by_what_it_does():
    (block,) = named_blocks(timm.create_model("crossnet_for_tests"))
    assert (block.name, block.order, block.found.kind_known) == ("cross", None, False)


def test_blocks_spectra_and_weights(family):
    model = timm.create_model("crossnet_for_tests").double().eval()
    (block,) = named_blocks(model)
    assert (block.name, block.mixer, block.order, block.found.kind_known) == ("cross", "cross_shaped", 1, True)
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    (spectrum,) = model_interaction_spectra(model, image, num_tuples=4).values()
    assert (spectrum.location_order, spectrum.degree_order) == (1, 1)
    (weights,) = model_mixing_weights(model, image).values()
    assert weights.reconstruction_error < 1e-12
    h = weights.at(2, 3)[0].abs().sum(0).numpy()
    seen = np.zeros((8, 8), bool)
    seen[2, 3] = True  # what was pooled is the gate, and held: what is left looks at its own place
    np.testing.assert_array_equal(h > 1e-12, seen)


def test_from_the_shell(family, run):
    _, text, _ = run("blocks", "--model", "crossnet_for_tests", "--format", "json")
    (block,) = json.loads(text)["blocks"]
    assert (block["mixer"], block["class"], block["order"], block["height"]) == ("cross_shaped", "CrossShaped", 1, 8)
    _, text, _ = run("ie", "--model", "crossnet_for_tests", "--tuples", 4, "--format", "json")
    assert json.loads(text)["blocks"][0]["location_order"] == 1
    status, table, _ = run("mixing", "--model", "crossnet_for_tests", "--images", "chelsea", "coffee")
    assert status == 0
    assert "held fixed: gates" in table
    status, table, _ = run("reach", "--model", "crossnet_for_tests", "--scope", "mixer", "--probes", "2")
    assert (status, "cross" in table) == (0, True)


def test_in_the_viewer(family, monkeypatch):
    monkeypatch.setattr("sys.argv", [VIEWER, "--models", "crossnet_for_tests"])
    at = AppTest.from_file(VIEWER, default_timeout=60)
    at.query_params["model"] = "crossnet_for_tests"
    at.run()
    assert not at.exception, [one.value for one in at.exception]
    assert not at.error, [one.value for one in at.error]
    data = json.loads(at.get_by_key("gallery").proto.json)
    assert [panel["name"] for panel in data["panels"]] == ["cross"]
    assert horinsight.named_blocks(timm.create_model("crossnet_for_tests"))[0].mixer == "cross_shaped"
