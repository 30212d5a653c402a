"""Models and inputs that nobody planned for: an answer, or one line that says what to do."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from horinsight import (
    GnConv,
    count_macs,
    create_model,
    gnconv_bounds,
    image_batch,
    interaction_effects,
    interaction_spectrum,
    mixing_rollout,
    mixing_weights,
    model_adaptivity,
    model_interaction_spectra,
    model_mixing_weights,
    model_view,
    named_blocks,
    query_maps,
)
from horinsight.capture import evaluation
from horinsight.mixers.blocks import block_map_sizes
from horinsight.models.origin import weights_origin
from horinsight.models.predictions import predictions
from horinsight.models.provenance import weights_sha256
from horinsight.models.registry import model_without_weights
from horinsight.operators.normalisation import is_norm

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
]

SPECTRUM = {"blocks": [1], "max_order": 1, "num_tuples": 2}
OF_IMAGES = {
    "predictions": predictions,
    "model_mixing_weights": model_mixing_weights,
    "model_adaptivity": model_adaptivity,
    "mixing_rollout": mixing_rollout,
    "query_maps": lambda model, images: query_maps(model, images, [[(0, 0)]]),
    "model_interaction_spectra": lambda model, images: model_interaction_spectra(model, images, **SPECTRUM),
}


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


IMAGES = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
WRONG = {
    "list of tensors": ([IMAGES[0]], TypeError, "a list of Tensor.*torch.stack"),
    "list of pictures": ([Image.new("RGB", (96, 96))], TypeError, "a list of Image.*image_batch"),
    "picture": (Image.new("RGB", (96, 96)), TypeError, "got Image.*image_batch"),
    "array": (IMAGES.numpy(), TypeError, "got ndarray"),
    "no batch": (IMAGES[0], ValueError, r"got \(3, 96, 96\): add a batch dimension"),
    "no image": (IMAGES[:0], ValueError, r"at least one image"),
    "uint8": (IMAGES.to(torch.uint8), ValueError, "computes in float32 on cpu, got uint8 .*image_batch"),
    "float64": (IMAGES.double(), ValueError, r"got float64 on cpu: convert it with .to\('cpu', torch.float32\)"),
    "bfloat16": (IMAGES.bfloat16(), ValueError, "computes in float32 on cpu, got bfloat16"),
    "five channels": (torch.randn(1, 5, 96, 96), ValueError, r"\(1, 5, 96, 96\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["hornet_test", "convnext_atto"])
def test_images_that_are_none(name, wrong):
    images, kind, text = WRONG[wrong]
    model = create_model(name)
    for ask in OF_IMAGES.values():
        with pytest.raises(kind, match=text) as error:
            ask(model, images)
        one_line(error)
    assert not any(module._forward_hooks for module in model.modules())


def test_pictures_that_are_none():
    model = create_model("hornet_test")
    for images, text in (([IMAGES[0]], "got Tensor"), ([np.zeros((9, 9, 3))], "got ndarray"), (["a.png"], "got str")):
        with pytest.raises(TypeError, match=f"image_batch expects pictures .*{text}: load_image"):
            image_batch(model, images)
    with pytest.raises(ValueError, match="at least one picture"):
        image_batch(model, [])
    for batch in (IMAGES.to(torch.uint8), torch.randn(1, 5, 9, 9)):
        with pytest.raises(ValueError, match="model_view expects a batch from image_batch"):
            model_view(model, batch)


def test_operating_points_that_are_none():
    gnconv, x = GnConv(8, order=3), torch.randn(1, 8, 7, 7)
    for ask in (mixing_weights, lambda module, x: interaction_spectrum(module, x, max_order=3)):
        with pytest.raises(TypeError, match="x as one tensor, got list"):
            ask(gnconv, [x])
        with pytest.raises(ValueError, match="GnConv computes in float32 on cpu, got float64"):
            ask(gnconv, x.double())
        with pytest.raises(ValueError, match=r"\(8, 7, 7\)") as error:
            ask(gnconv, x[0])
        one_line(error)


@pytest.mark.parametrize("size", ["96", (3, 96, 96), 96.0, (96, None)])
def test_sizes_that_are_none(size):
    for ask in (count_macs, gnconv_bounds, block_map_sizes):
        with pytest.raises(TypeError, match=r"expected as \(H, W\) in pixels"):
            ask(create_model("hornet_test"), size)


# quantised


def quantised(name: str) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(create_model(name), {nn.Linear})


def test_a_quantised_model_is_measured_where_it_can_be():
    model, plain = quantised("hornet_test"), create_model("hornet_test")
    assert [block.name for block in named_blocks(model)] == [block.name for block in named_blocks(plain)]
    assert len(predictions(model, IMAGES)[0]) == 3
    for name, weights in model_mixing_weights(model, IMAGES).items():
        assert weights.reconstruction_error < 1e-5, name
    first = model_interaction_spectra(model, IMAGES, blocks=[1], num_tuples=2)["stages.0.0.gnconv"]
    expected = model_interaction_spectra(plain, IMAGES, blocks=[1], num_tuples=2)["stages.0.0.gnconv"]
    np.testing.assert_allclose(first.effects, expected.effects, err_msg="its gnConv is not quantised")
    assert mixing_rollout(model, IMAGES).out_size == (3, 3)
    assert set(model_adaptivity(model, IMAGES)) == {block.name for block in named_blocks(plain)}
    assert query_maps(model, IMAGES, [[(0, 0)]]).provenance.weights_sha256 == weights_sha256(model)


def test_the_weights_of_a_quantised_model():
    model = quantised("hornet_test")
    assert weights_sha256(model) == weights_sha256(quantised("hornet_test"))
    other = torch.ao.quantization.quantize_dynamic(create_model("hornet_test", seed=1), {nn.Linear})
    assert weights_sha256(model) != weights_sha256(other)
    origin = weights_origin(model)
    assert origin.source.startswith("random, seed 0, changed since: stages.0.0.pwconv1.weight, ")
    assert origin.trained is None


@pytest.mark.parametrize("ask", [count_macs, gnconv_bounds])
def test_a_quantised_model_cannot_be_counted(ask):
    with pytest.raises(ValueError, match="HorNet cannot be run on shapes alone") as error:
        ask(quantised("hornet_test"), (96, 96))
    one_line(error)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("name", ["hornet_test", "test_vit"])
def test_quantised_arithmetic_is_not_differentiated(name, explicit):
    """Its part of a block would count as a constant: a ViT block came out at order 0."""
    images = IMAGES if name != "test_vit" else torch.randn(1, 3, 160, 160)
    with pytest.raises(ValueError, match="holds quantised weights") as error:
        model_interaction_spectra(quantised(name), images, **SPECTRUM, scope="block", explicit=explicit)
    one_line(error)


def test_a_quantised_function_has_no_effects():
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    quantised = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    with pytest.raises(ValueError, match="holds quantised weights"):
        interaction_effects(quantised, torch.randn(4, 3), [(0, 1)])


# built under inference mode


@pytest.mark.parametrize("name", ["hornet_test", "test_vit"])
def test_models_built_under_inference_mode(name):
    with torch.inference_mode():
        model = create_model(name)
    plain = create_model(name)
    size = (96, 96) if name == "hornet_test" else (160, 160)
    images = torch.randn(1, 3, *size)
    kept = {key: (value, value.requires_grad) for key, value in model.named_parameters()}
    assert predictions(model, images) == predictions(plain, images)
    assert count_macs(model, size).macs == count_macs(plain, size).macs
    assert block_map_sizes(model, size) == block_map_sizes(plain, size)
    assert weights_origin(model) == weights_origin(plain)
    np.testing.assert_array_equal(mixing_rollout(model, images).weights, mixing_rollout(plain, images).weights)
    for scope, explicit in (("mixer", True), ("block", True), ("block", False)):
        options = {**SPECTRUM, "scope": scope, "explicit": explicit}
        (found,) = model_interaction_spectra(model, images, **options).values()
        (expected,) = model_interaction_spectra(plain, images, **options).values()
        np.testing.assert_array_equal(found.effects, expected.effects)
    for key, value in model.named_parameters():
        assert value is kept[key][0]
        assert value.requires_grad == kept[key][1]


def test_shared_weights_stay_shared_while_lent():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
    with evaluation(model):
        assert model[0].weight is model[1].weight
        assert not model[0].weight.is_inference()
    assert model[0].weight.is_inference()


# what cannot be copied


class Keeping(nn.Module):
    """A gnConv so small that its derivatives leave float32, beside something that `copy.deepcopy` refuses."""

    def __init__(self, keep) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gnconv = GnConv(32, order=4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(1e-3)
        self.kept = keep(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.gnconv(x)


UNCOPYABLE = {
    "lock": lambda _: threading.Lock(),
    "file": lambda _: open("/dev/null"),  # noqa: SIM115
    "non-leaf": lambda module: module.gnconv.proj_in.weight * 2,
    "generator": lambda _: (number for number in range(3)),
    "list of them": lambda _: [threading.Lock()],
}


@pytest.mark.parametrize("kind", UNCOPYABLE)
def test_modules_that_cannot_be_copied(kind):
    x = 1e-3 * torch.randn(2, 32, 6, 6)
    options = {"max_order": 5, "num_tuples": 2, "method": "nested"}
    expected = interaction_spectrum(Keeping(lambda _: None), x, **options)
    assert (expected.location_order, expected.convention["dtype"]) == (4, "float64"), "a copy was needed"
    module = Keeping(UNCOPYABLE[kind])
    kept = module.kept
    found = interaction_spectrum(module, x, **options)
    assert found.location_order == 4
    np.testing.assert_array_equal(found.effects, expected.effects)
    assert module.kept is kept
    assert module.gnconv.proj_in.weight.dtype == torch.float32


def test_half_precision_with_a_lock_in_every_module():
    model = create_model("hornet_test_iso").bfloat16()
    images = IMAGES.bfloat16()
    expected = model_interaction_spectra(model, images, **SPECTRUM, scope="block")
    for module in model.modules():
        module.lock = threading.Lock()
    found = model_interaction_spectra(model, images, **SPECTRUM, scope="block")
    for name, spectrum in found.items():
        np.testing.assert_array_equal(spectrum.effects, expected[name].effects)


class LockedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, z: Tensor) -> Tensor:
        with self.lock:
            z = z - z.mean(1, keepdim=True)
            return z / (z * z).mean(1, keepdim=True).sqrt()


def test_a_norm_that_cannot_be_copied_is_one_all_the_same():
    assert is_norm(LockedNorm(), (torch.randn(2, 6, 3),), {})


# networks of another build


class Siamese(nn.Module):
    """Its auxiliary convolution is registered before the stem, and is never called on images."""

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.auxiliary = nn.Conv2d(64, in_chans, 1)
        self.stem = nn.Conv2d(in_chans, 8, 4, stride=4)
        self.mixer = GnConv(8, order=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(self.stem(x)).mean((2, 3))


@pytest.mark.parametrize("in_chans", [1, 2, 3, 64])
def test_the_first_convolution_need_not_be_the_stem(in_chans):
    model = Siamese(in_chans)
    assert count_macs(model, 32).by_module["stem"]["convolution"] == 8 * 8 * 8 * in_chans * 16
    assert count_macs(model, 32).by_module["auxiliary"]["convolution"] == 0
    assert block_map_sizes(model, (32, 48)) == {"mixer": (8, 12)}
    assert [bound.holds for bound in gnconv_bounds(model, 32)] == [True]


class Transforming(nn.Module):
    """FFTs of features (B, C), of sequences (C,), and of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        pooled = y.mean((2, 3))
        return (
            torch.fft.rfft(pooled).abs().sum() + torch.fft.rfft(pooled[0]).abs().sum() + torch.fft.rfft2(y).abs().sum()
        )


def test_transforms_of_features():
    count = count_macs(Transforming(), 32)
    assert count.by_column["fft"] == 2 * 8 * 3 + 8 * 64 * 6, "elements times log2 of what is transformed"
    assert count.published_ffts == 2 * 8 * 3 + 8 * 64 * 6, "maps: log2(C H) = log2(8 · 8), as log2(H W) here"


def test_models_without_weights():
    model = model_without_weights("hornet_test")
    assert count_macs(model, 96).macs == count_macs(create_model("hornet_test"), 96).macs
    for ask in OF_IMAGES.values():
        with pytest.raises(ValueError, match="is on the meta device, without weights") as error:
            ask(model, IMAGES)
        one_line(error)
