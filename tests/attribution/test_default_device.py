"""What is drawn and counted on the way is made on the CPU, whatever device a program has chosen as its default.

Under a default device that holds no numbers, a tensor that is made without saying where would be lost.
"""

import pytest
import torch

import horinsight as h


@pytest.fixture(scope="module")
def model():
    return h.create_model("hornet_test_iso").eval()


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 2, 3])
METHODS = ("saliency", "deep_lift", "occlusion", "lrp", "mixing_rollout")  # captum's others make some of their own


def squares(images, targets):
    return images.square().sum(1)


ASKED = {
    "faithfulness": lambda model: h.faithfulness(model, IMAGES, TARGETS, {"squares": squares}),
    "infidelity": lambda model: h.captum_scores(
        model, IMAGES, TARGETS, {"squares": (squares, "gradient")}, reference=torch.zeros(3, 1, 1, device="cpu")
    ),
    "redrawn": lambda model: h.randomized_maps(model, IMAGES, TARGETS, {"squares": squares}, stages=["head"]),
    "agreement": lambda model: h.map_agreement({"a": IMAGES.sum(1), "b": IMAGES[:, 0]}),
    "rollout": lambda model: h.influence_rollout(model, IMAGES[:1], probes=1),
    "position": lambda model: h.position_attribution(model, IMAGES[:1], block=1, queries=[(0, 0)], method="saliency"),
    "gradient_shap": lambda model: h.prediction_attribution(
        model, IMAGES[:1], target=1, methods=["gradient_shap"], baselines=IMAGES
    ),
} | {
    name: lambda model, name=name: h.prediction_attribution(
        model, IMAGES[:1], target=1, methods=[name], baselines=0.0, samples=8
    )
    for name in METHODS
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=list(ASKED))
def test_a_default_device_elsewhere_changes_nothing(model, asked):
    expected = asked(model)
    with torch.device("meta"):
        assert asked(model) == expected
