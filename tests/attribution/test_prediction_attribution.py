"""captum's methods and our rollouts about a class, on networks whose answer is known and on the trained one."""

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, LayerGradCam
from torch import Tensor, nn

from horinsight import create_model, image_batch, load_result, mixing_rollout, sample_images
from horinsight.attribution.attribution_methods import ATTRIBUTION_METHODS
from horinsight.attribution.attribution_results import PredictionAttributions
from horinsight.attribution.forward_memory import saved_bytes
from horinsight.attribution.prediction_attribution import prediction_attribution

SINGLE = torch.finfo(torch.float32).eps


class LinearClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4, bias=False)
        self.block = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()  # modules, which relevance has rules for
        self.head = nn.Linear(4, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.flat(self.pool(self.block(self.stem(x)))))
        return out


class ReluClassifier(LinearClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.relu(self.block(self.stem(x))).mean((2, 3)))
        return out


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module")
def linear() -> nn.Module:
    torch.manual_seed(0)
    return LinearClassifier().double()


def test_of_a_linear_classifier_all_agree(linear, images):
    target = [1, 4]
    slope = torch.autograd.functional.jacobian(lambda x: linear(x)[[0, 1], target].sum(), images)
    expected = (images * slope).sum(1)
    one = ["input_x_gradient", "integrated_gradients", "deep_lift", "lrp"]
    found = prediction_attribution(linear, images, target=target, methods=one, baselines=0.0)
    for name, maps in found.maps.items():
        loose = 1e-5 if name == "lrp" else SINGLE
        np.testing.assert_allclose(maps, expected, rtol=loose, atol=1e-8 if name == "lrp" else 1e-11, err_msg=name)
    covered = ["feature_ablation", "shapley_value_sampling", "kernel_shap"]
    found = prediction_attribution(
        linear, images, target=torch.tensor(target), methods=covered, baselines=0.0, window=4, samples=40
    )
    squares = expected.unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    for name, maps in found.maps.items():
        loose = 1e-3 if name == "kernel_shap" else 20 * SINGLE
        np.testing.assert_allclose(maps, squares, rtol=loose, atol=1e-6, err_msg=name)
    several = ["deep_lift_shap", "gradient_shap"]
    found = prediction_attribution(linear, images, target=target, methods=several, baselines=torch.zeros(3, 3, 16, 16))
    for name, maps in found.maps.items():
        np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-11, err_msg=name)
    assert found.targets.tolist() == target
    np.testing.assert_allclose(found.logits, linear(images).detach()[[0, 1], target])


def test_the_trained_model_adds_up_at_the_default_steps():
    model = create_model("hornet_digits_iso")
    images = image_batch(model, [sample_images()[f"digit_{digit}"] for digit in (3, 0)])
    black = float(images.min())
    found = prediction_attribution(
        model, images, methods=["integrated_gradients", "deep_lift", "mixing_rollout"], baselines=black
    )
    assert found.targets.tolist() == [3, 0], "the prediction when nobody says"
    with torch.no_grad():
        difference = (model(images) - model(torch.full_like(images, black)))[[0, 1], [3, 0]].numpy()
    assert (np.abs(found.gaps["integrated_gradients"]) < 0.01 * np.abs(difference)).all()
    fixed = prediction_attribution(model, images, methods=["integrated_gradients"], baselines=black, steps=50)
    gap = np.abs(fixed.gaps["integrated_gradients"]) / np.abs(difference)
    assert gap[1] > 0.01 > gap[0], "as many steps as needed, not more"
    np.testing.assert_array_equal(
        fixed.maps["integrated_gradients"][0], found.maps["integrated_gradients"][0], "what has converged stays"
    )
    size = np.abs(found.attributions["deep_lift"]).sum((1, 2, 3))
    assert (np.abs(found.gaps["deep_lift"]) < 1e3 * SINGLE * size).all()
    np.testing.assert_allclose(found.maps["deep_lift"].sum((1, 2)), difference, rtol=1e-3)
    rolled = mixing_rollout(model, images)
    assert found.maps["mixing_rollout"].shape == (2, *rolled.in_size)
    np.testing.assert_allclose(found.maps["mixing_rollout"][0].ravel(), rolled.weights[0].mean(0), rtol=1e-5)
    assert set(found.gaps) == {"integrated_gradients", "deep_lift"}


def test_layers_and_relus_are_captums_own(images):
    torch.manual_seed(2)
    model = ReluClassifier().double()
    asked = {"target": 2, "baselines": 0.0, "layer": "block"}
    methods = ["grad_cam", "layer_activation", "guided_backprop", "deconvolution", "layer_internal_influence", "lime"]
    found = prediction_attribution(model, images, methods=methods, samples=20, **asked)
    cam = LayerGradCam(model, model.block).attribute(images, target=2).detach()
    np.testing.assert_allclose(found.maps["grad_cam"], cam[:, 0])
    np.testing.assert_allclose(
        found.attributions["layer_activation"], model.block(model.stem(images)).detach().movedim(1, -1)
    )
    guided = GuidedBackprop(model).attribute(images.clone().requires_grad_(), target=2)
    np.testing.assert_allclose(found.attributions["guided_backprop"], guided.detach().movedim(1, -1))
    assert found.maps["deconvolution"].shape == (2, 16, 16)
    assert found.maps["lime"].shape == (2, 16, 16)


@pytest.mark.parametrize("method", [name for name, one in ATTRIBUTION_METHODS.items() if one.family != "mixing"])
def test_no_more_runs_together_than_memory_allows(images, method):
    torch.manual_seed(2)
    model = ReluClassifier().double()
    cost = saved_bytes(model, images[:1])
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    several = "baselines" in ATTRIBUTION_METHODS[method].needs
    asked = {"baselines": torch.randn(5, 3, 16, 16) if several else 0.5, "layer": "block", "samples": 9}
    try:
        many = images[:1].expand(6, -1, -1, -1)
        tight, whole = (
            prediction_attribution(model, many, target=1, methods=[method], memory=memory, **asked)
            for memory in (4 * cost, 2**29)
        )
        first = sizes[: len(sizes)]
        sizes.clear()
        prediction_attribution(model, many, target=1, methods=[method], memory=4 * cost, **asked)
    finally:
        hook.remove()
    assert first
    assert max(sizes[1:]) <= 4, "after the logits of all"
    if "samples" not in ATTRIBUTION_METHODS[method].needs:
        np.testing.assert_allclose(tight.attributions[method], whole.attributions[method], rtol=1e-6, atol=1e-10)


def test_results_are_kept_and_tables(linear, images, tmp_path):
    found = prediction_attribution(linear, images, methods=["saliency", "integrated_gradients"], baselines=0.0)
    for suffix in (".json", ".npz"):
        found.save(tmp_path / f"found{suffix}")
        assert load_result(PredictionAttributions, tmp_path / f"found{suffix}") == found
    frame = found.to_frame()
    assert len(frame) == 2 * 2 * 256
    total = frame[frame["method"] == "saliency"]["value"].sum()
    assert total == pytest.approx(found.maps["saliency"].sum())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"methods": ["gradcam"]}, "did you mean grad_cam"),
        ({"methods": "saliency"}, "method expects the name"),
        ({"methods": []}, "methods expects a list of names"),
        ({"methods": ["mixing_weights"]}, "mixing_weights tells of a position, not of a prediction"),
        ({"methods": ["deep_lift"]}, "deep_lift compares with a baseline and got none"),
        ({"methods": ["grad_cam"]}, "grad_cam tells of a layer and got none"),
        ({"methods": ["guided_backprop"]}, "nn.ReLU modules, of which the network has none"),
        ({"target": -1}, "target expects a class from 0 to 4, got -1"),
        ({"target": 5}, "got 5"),
        ({"target": [0, 1, 2]}, "one for each of 2 images"),
        ({"layer": "head", "methods": ["grad_cam"]}, "layer head is expected to give maps (B, C, H, W), got (1, 5)"),
    ],
)
def test_bad_input_is_one_line(linear, images, asked, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (what is said is looked at below)
        prediction_attribution(linear, images, **({"methods": ["saliency"]} | asked))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_classify_or_has_no_gradient_says_so(images):
    with pytest.raises(ValueError, match="expects a classifier"):
        prediction_attribution(nn.Conv2d(3, 3, 3).double(), images, methods=["saliency"])

    class Cut(LinearClassifier):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(ValueError, match="integrated_gradients: The output carries no gradient"):
        prediction_attribution(Cut().double(), images, methods=["integrated_gradients"], baselines=0.0)
    assert prediction_attribution(Cut().double(), images, methods=["occlusion"], baselines=0.0).maps["occlusion"].any()


def test_a_model_may_normalise_in_place_and_compute_in_half_precision(linear, images):
    class InPlace(LinearClassifier):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))

    model = InPlace().double()
    model.load_state_dict(linear.state_dict())
    before = images.clone()
    asked = {"target": 1, "methods": ["saliency", "lrp", "deep_lift", "occlusion"], "baselines": 0.5}
    found, expected = prediction_attribution(model, images, **asked), prediction_attribution(linear, images, **asked)
    for name in ("saliency", "deep_lift", "occlusion"):
        np.testing.assert_allclose(found.maps[name], expected.maps[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert torch.equal(images, before)
    half = LinearClassifier().to(torch.bfloat16)
    rounded = prediction_attribution(half, images.to(torch.bfloat16), target=1, methods=["saliency"])
    assert rounded.maps["saliency"].dtype == np.float32
    assert next(half.parameters()).dtype == torch.bfloat16
