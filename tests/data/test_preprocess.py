import numpy as np
import pytest
import timm
import torch
from PIL import Image

from horinsight import image_batch, preprocessing, sample_images


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
