"""The finder on the vision models of `transformers`, which return dataclasses and have classes that no list knows."""

from collections import Counter

import pytest
import torch
from networks_of_transformers import RECIPES, build
from perturbation_oracle import missed_and_wrong

from horinsight.mixers.found import FoundMixer, default_image_size, found_mixers

# name: number and kind of the mixers; c convolution, d depthwise, p pooling, a attention, w window attention,
# s squeeze-and-excitation, r response norm, f focal modulation, g gate, l linear attention, x sampling
EXPECTED = """
    aimv2: 3a           beit: 2a            bit: 5c 1p          clip: 2a            conditional_detr: 5c 1p 2a
    convnext: 5d        convnextv2: 5d 5r   cvt: 3c 6a          data2vec: 2a        deformable_detr: 5c 2p 1x
    deit: 2a            detr: 5c 1p 2a      dinov2: 2a          dinov2_swiglu: 2a   dinov2_with_registers: 2a
    dinov3_convnext: 5d dinov3_vit: 2a      donut_swin: 4w      dpt: 4a 21c         depth_anything: 4a 21c
    focalnet: 3f        glpn: 6c 4d 4a 3g   hgnet_v2: 8c 7d 1p  ijepa: 2a           efficientnet: 1c 10d 10s
    eomt: 3a 4d         levit: 4c 4a        pixio: 2a           hiera: 1c 2p 3w 1a  mask2former: 3w 2a 1x 1c 1l
    maskformer: 3w 2a 5c 1l                 mobilenet_v1: 1c 13d                    mobilenet_v2: 1c 17d
    mobilevit: 10c 7d 6w 1p                 mobilevitv2: 1c 9d 2w                   poolformer: 4c 4p
    pp_lcnet: 1c 13d 2s pvt: 4a             pvt_v2: 4c 4d 4a    pvt_v2_linear: 4c 4d 4a
    regnet: 5c 4s       resnet: 5c 1p       rt_detr_resnet: 7c 4p                   sam: 1w 1a 1c
    sam2: 1c 4w 1a 3p   segformer: 4c 4d 4a siglip: 3a          superpoint: 10c 4p  swiftformer: 5c 4d 4g
    swin: 4w            swin2sr: 6c 2w      swinv2: 4w          textnet: 34c        upernet: 3w 1a 6c 1p
    vit: 2a             vit_mae: 2a         vit_msn: 2a         vitdet: 1w 1a       vitpose: 2a
    yolos: 2a           zoedepth: 4a 21c
"""
KINDS = {
    "c": "convolution",
    "d": "depthwise_conv",
    "p": "pooling",
    "a": "attention",
    "w": "window_attention",
    "s": "squeeze_excitation",
    "r": "response_norm",
    "f": "focal_modulation",
    "g": "gate",
    "l": "linear_attention",
    "x": "sampling",
}
# mixers that do not mix by experiment, and why
EXCUSED = {
    "deformable_detr": {"encoder.layers.0.self_attn"},  # queries and values are two inputs of one origin
    "mask2former": {
        "model.pixel_level_module.decoder.encoder.layers.0.self_attn",
        "model.transformer_module.decoder.mask_predictor",  # the pooled factor is an input
    },
    # kernels of which only the middle lies on a map of 2 x 2
    "mobilevit": {f"segmentation_head.aspp.convs.{i}.convolution" for i in (1, 2, 3)},
}


def expected() -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for word in EXPECTED.split():
        if word.endswith(":"):
            counts = table.setdefault(word[:-1], {})
        else:
            counts[KINDS[word[-1]]] = int(word[:-1])
    return table


def looked_at(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model, size = build(name)
    return model, torch.randn(1, 3, *(size or default_image_size(model)))


def test_each_network_is_expected():
    assert set(expected()) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_finds_the_mixers_of(name):
    model, images = looked_at(name)
    mixers = found_mixers(model, images=images)
    assert Counter(mixer.kind for mixer in mixers) == expected()[name]
    assert not [way for mixer in mixers for way in mixer.seen if way.startswith("unknown")]


@pytest.mark.parametrize("name", RECIPES)
def test_agrees_with_perturbation_on(name):
    missed, wrong, confirmed = missed_and_wrong(*looked_at(name))
    assert not missed
    assert set(wrong) == EXCUSED.get(name, set())
    assert confirmed or name in ("mobilenet_v1", "mobilenet_v2")  # these pad every map before they convolve it


def mixers_of(name: str) -> dict[str, FoundMixer]:
    model, images = looked_at(name)
    return {mixer.path: mixer for mixer in found_mixers(model, images=images)}


def test_prefix_tokens_windows_and_blocks():
    registers = mixers_of("dinov2_with_registers")["encoder.layer.1.attention"]
    assert (registers.input.prefix_tokens, registers.input.size, registers.order) == (5, (4, 4), 2)
    assert registers.block_path == "encoder.layer.1"
    swin = mixers_of("swin")["swin.encoder.layers.0.blocks.1.attention"]
    assert (swin.input.layout, swin.input.size, swin.order) == ("windows", (16, 16), 2)
    assert sorted(swin.input.cells.flatten().tolist()) == list(range(256))
    pvt = mixers_of("pvt")["pvt.encoder.block.3.0.attention.self"]
    assert (pvt.input.prefix_tokens, pvt.input.size) == (1, (2, 2))


def test_attention_that_thins_and_attention_out_of_which_no_position_comes():
    levit = mixers_of("levit")["levit.encoder.stages.0.layers.2"]
    assert (levit.kind, levit.stride, levit.place) == ("attention", 2, "block")
    head = mixers_of("aimv2")["head"]
    assert (head.kind, head.place, head.order) == ("attention", "head", None)
    decoder = mixers_of("detr")["model.decoder.layers.0.encoder_attn"]
    assert (decoder.kind, decoder.place) == ("attention", "head")
