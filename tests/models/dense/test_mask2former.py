"""Mask2Former on a HorNet: transformers' own network around a backbone that they do not know."""

import pytest
import torch
import transformers

from horinsight import mask2former, model_interaction_spectra, model_mixing_weights, named_blocks
from horinsight.models.origin import weights_origin

SMALL = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "num_attention_heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_feedforward_dim": 32,
    "dim_feedforward": 32,
    "num_queries": 5,
    "num_classes": 4,
}
SIZE = (96, 128)


@pytest.fixture(scope="module")
def model():
    return mask2former("hornet_test_gf", **SMALL)


def test_it_is_transformers_and_learns(model):
    assert type(model) is transformers.Mask2FormerForUniversalSegmentation
    mask = torch.zeros(1, *SIZE)
    mask[:, 20:60, 30:90] = 1
    output = model(torch.randn(1, 3, *SIZE), mask_labels=[mask], class_labels=[torch.tensor([2])])
    assert output.masks_queries_logits.shape == (1, 5, 24, 32)
    assert output.class_queries_logits.shape == (1, 5, 5)  # and no object
    output.loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    model.zero_grad()
    assert [name for name in without if "encoder.levels" in name] == []


def test_what_the_decoder_sees_are_the_backbones_levels(model):
    images = torch.randn(1, 3, *SIZE)
    pixels = model.model.pixel_level_module
    seen = []
    hook = pixels.decoder.register_forward_pre_hook(lambda _, given: seen.extend(given[0]))
    with torch.no_grad():
        model(images)
        levels = list(pixels.encoder.levels(images))
    hook.remove()
    assert [tuple(level.shape[1:]) for level in levels] == [(8, 24, 32), (16, 12, 16), (32, 6, 8), (64, 3, 4)]
    assert all(torch.equal(a, b) for a, b in zip(levels, seen, strict=True))
    assert isinstance(pixels.encoder.levels.norm0, torch.nn.LayerNorm)


def test_its_backbone_is_analysed(model):
    encoder, images = model.model.pixel_level_module.encoder, torch.randn(1, 3, *SIZE)
    blocks = named_blocks(encoder, image_size=SIZE)
    assert [block.mixer for block in blocks] == ["gnconv"] * 4
    spectra = model_interaction_spectra(encoder, images, blocks=[1, 2, 3], num_tuples=2)
    assert [spectrum.location_order for spectrum in spectra.values()] == [2, 3, 4]
    errors = [weights.reconstruction_error for weights in model_mixing_weights(encoder, images).values()]
    assert max(errors) < 1e-5


def test_weights_come_from_the_seed_alone(model):
    state = torch.get_rng_state()
    again, other = mask2former("hornet_test_gf", **SMALL), mask2former("hornet_test_gf", seed=1, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    names = [name for name, weight in model.named_parameters() if weight.dim() > 1]
    same, different = again.state_dict(), other.state_dict()
    assert all(torch.equal(weight, same[name]) for name, weight in model.state_dict().items())
    assert not torch.equal(different[names[0]], same[names[0]])
    assert weights_origin(other).source == "random, seed 1"
    assert not other.training


def test_a_backbone_without_four_levels_is_refused():
    with pytest.raises(ValueError, match=r"^Expected a backbone with four levels .*\.$"):
        mask2former("test_vit", **SMALL)
