import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from horinsight import image_batch, model_view, preprocessing, sample_images


def test_follows_the_models_configuration():
    model = timm.create_model("hornet_test")
    image = Image.new("RGB", (200, 150), (255, 0, 128))
    prepared = preprocessing(model)(image)
    assert prepared.shape == (3, 96, 96)
    mean, std = np.array(model.pretrained_cfg["mean"]), np.array(model.pretrained_cfg["std"])
    expected = (np.array([255, 0, 128]) / 255 - mean) / std
    np.testing.assert_allclose(prepared[:, 40, 40], expected, atol=1e-5)
    with torch.device("meta"):
        large = timm.create_model("hornet_base_gf_img384")
    assert preprocessing(large)(image).shape == (3, 384, 384)
    assert preprocessing(model, image_size=(64, 128))(image).shape == (3, 64, 128)


def test_the_centre_of_the_photograph_is_what_the_model_sees():
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[190:210, 190:210] = 255
    prepared = preprocessing(timm.create_model("hornet_test"))(Image.fromarray(pixels))
    bright = (prepared.sum(0) == prepared.sum(0).max()).nonzero().float().mean(0)
    np.testing.assert_allclose(bright, [47.5, 47.5], atol=1.0)


def test_batches():
    samples = list(sample_images().values())[:3]
    assert image_batch(timm.create_model("hornet_test"), samples).shape == (3, 3, 96, 96)


def test_models_without_three_channels_are_refused():
    with pytest.raises(ValueError, match="HorNet takes 1"):
        preprocessing(timm.create_model("hornet_test", in_chans=1))


class Normalise(nn.Module):
    def __init__(self, mean: list[float], std: list[float], most: float = 1.0) -> None:
        super().__init__()
        self.mean, self.std, self.most = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None], most

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.most - self.mean) / self.std


@given(
    mean=st.lists(st.floats(0.1, 0.9), min_size=3, max_size=3),
    std=st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    most=st.sampled_from([1.0, 255.0]),
)
@settings(max_examples=10)
def test_a_wrapper_that_normalises_gets_what_it_makes_right(mean, std, most):
    """Whatever it shifts and scales, its model sees what its own configuration says."""
    model = timm.create_model("hornet_test_iso")
    wrapped = nn.Sequential(Normalise(mean, std, most), model)
    picture = [next(iter(sample_images().values()))]
    batch = image_batch(wrapped, picture)
    arrived = wrapped[0](batch)
    eps = torch.finfo(torch.float32).eps
    # what is told of s has the rounding of z = (x / most - mean) / std over what a unit of x changes z by
    atol = 16 * eps * (3 * (1 + most) + 1 / min(std))
    torch.testing.assert_close(arrived, image_batch(model, picture), rtol=0, atol=atol)
    assert np.array_equal(model_view(wrapped, batch), model_view(model, image_batch(model, picture)))


def test_the_usual_wrapper_gets_plain_pictures():
    model = timm.create_model("hornet_test")
    wrapped = nn.Sequential(Normalise(list(model.pretrained_cfg["mean"]), list(model.pretrained_cfg["std"])), model)
    colour = image_batch(wrapped, [Image.new("RGB", (200, 150), (255, 0, 51))])[0, :, 40, 40]
    torch.testing.assert_close(colour, torch.tensor([1.0, 0.0, 0.2]), rtol=0, atol=1e-6)
