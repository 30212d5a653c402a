import numpy as np
import pytest
import timm
import torch
from oracles import large_weights
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import Attention
from torch import nn

from horinsight import GnConv, create_model, interaction_spectrum, model_interaction_spectra, model_mixing_weights
from horinsight.mixers.blocks import named_blocks


@pytest.mark.parametrize("name", ["hornet_test", "hornet_test_gf", "hornet_test_iso"])
def test_every_block_has_its_declared_order(name):
    model = create_model(name)
    images = torch.randn(2, 3, 96, 96)
    seen = []
    spectra = model_interaction_spectra(
        model, images, num_tuples=3, on_block=lambda block, spectrum: seen.append(block.index)
    )
    blocks = named_blocks(model)
    assert list(spectra) == [block.name for block in blocks]
    assert seen == [block.index for block in blocks]
    for block in blocks:
        spectrum = spectra[block.name]
        assert spectrum.location_order == spectrum.degree_order == block.order
        assert len(spectrum.effects) == max(b.order for b in blocks) + 3
        assert spectrum.num_draws == 6


def test_chosen_blocks_and_provenance():
    model = create_model("hornet_test", seed=4)
    spectra = model_interaction_spectra(
        model,
        torch.randn(1, 3, 96, 96),
        blocks=[2],
        max_order=4,
        num_tuples=2,
        seed=7,
        model_name="hornet_test",
        image_names=["cat"],
    )
    (spectrum,) = spectra.values()
    assert list(spectra) == ["stages.1.0.gnconv"]
    assert spectrum.provenance.model == "hornet_test"
    assert spectrum.provenance.weights == "random, seed 4"
    assert spectrum.provenance.trained is False
    assert spectrum.provenance.images == ("cat",)
    assert spectrum.provenance.seed == 7
    assert len(spectrum.provenance.weights_sha256) == 64


def test_the_block_sees_what_the_image_makes_of_its_input():
    """The effects are those of the mixer at the features of the image, so another image gives others."""
    model = create_model("hornet_test_iso")
    a, b = (
        model_interaction_spectra(model, factor * torch.ones(1, 3, 96, 96).cumsum(3), num_tuples=4)
        for factor in (0.01, -0.3)
    )
    assert not np.allclose(a["blocks.0.gnconv"].effects, b["blocks.0.gnconv"].effects)


def test_half_precision_models_are_analysed_in_float32():
    model = create_model("hornet_test").to(torch.bfloat16)
    spectra = model_interaction_spectra(model, torch.randn(1, 3, 96, 96).bfloat16(), num_tuples=2)
    assert [s.location_order for s in spectra.values()] == [2, 3, 4, 5]
    assert {s.convention["dtype"] for s in spectra.values()} == {"float32"}
    assert next(model.parameters()).dtype == torch.bfloat16


def test_the_model_is_left_as_it_was():
    model = create_model("hornet_test").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    model_interaction_spectra(model, torch.randn(1, 3, 96, 96, generator=torch.Generator()), num_tuples=1)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_clear_refusals():
    with pytest.raises(ValueError, match="scope expects one of mixer, block, got 'stage'"):
        model_interaction_spectra(create_model("hornet_test"), torch.randn(1, 3, 64, 64), scope="stage")
    with pytest.raises(ValueError, match="not in the operator: Softmax2d"):
        model_interaction_spectra(create_model("hornet_test"), torch.randn(1, 3, 64, 64), nonlinear=["Softmax2d"])
    with pytest.raises(ValueError, match=r"block 1 \(stages.0.blocks.0.conv_dw, depthwise_conv\)"):
        model_interaction_spectra(timm.create_model("convnext_atto"), torch.zeros(1, 3, 64, 64), blocks=[1])
    with pytest.raises(ValueError, match=r"map of 1x1, where no position has a neighbour"):
        model_interaction_spectra(create_model("hornet_test"), torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="no block in which positions of an image are mixed"):
        model_interaction_spectra(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"block 4 \(stages.3.0.gnconv, gnconv\): .* map of 2x2: use a larger image"):
        model_interaction_spectra(create_model("hornet_test"), torch.randn(1, 3, 64, 64), max_order=7)


def test_by_default_small_maps_are_measured_as_far_as_they_reach():
    spectra = model_interaction_spectra(create_model("hornet_test"), torch.randn(1, 3, 64, 64), num_tuples=2)
    assert [len(spectrum.effects) for spectrum in spectra.values()] == [8, 8, 8, 4]
    last = spectra["stages.3.0.gnconv"]
    assert (last.location_order, last.at_least) == (None, 3), "four cells cannot tell more"


class Idle(nn.Module):
    """Holds a gnConv that its forward pass never calls on images as large as it is made for."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = GnConv(3, 1), GnConv(3, 1)

    def forward(self, x):
        return self.used(x) if x.shape[-1] > 8 else x


def test_blocks_that_never_run():
    assert [block.name for block in named_blocks(Idle())] == ["used"]
    for measure in (model_interaction_spectra, model_mixing_weights):
        with pytest.raises(ValueError, match="Idle has blocks 1 to 1, got 2"):
            measure(Idle(), torch.randn(1, 3, 16, 16), blocks=[2])
        with pytest.raises(ValueError, match="Idle has no block"):
            measure(Idle(), torch.randn(1, 3, 8, 8))


def test_inference_mode_does_not_turn_derivatives_to_zero():
    model = create_model("hornet_test")
    images = torch.randn(1, 3, 96, 96)
    for method in ("auto", "nested"):
        with torch.inference_mode():
            spectra = model_interaction_spectra(model, images, num_tuples=2, method=method)
        assert [s.location_order for s in spectra.values()] == [2, 3, 4, 5]


def test_weights_that_are_not_finite():
    model = create_model("hornet_test")
    torch.nn.init.constant_(model.stages[1][0].norm1.weight, float("nan"))
    for analyse in (model_interaction_spectra, model_mixing_weights):
        with pytest.raises(ValueError, match=r"block 2 \(stages.1.0.gnconv, gnconv\): .*NaN"):
            analyse(model, torch.randn(1, 3, 96, 96))


class Repeats(nn.Module):
    """One gnConv, called three times; the second and the third see other features than the first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixer = nn.Conv2d(3, 4, 1), GnConv(4, 2)
        large_weights(self)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = self.mixer(x=x)
        return x


def test_each_call_is_measured_at_its_own_input():
    model, image = Repeats().double(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    found = model_interaction_spectra(model, image, num_tuples=3)
    assert list(found) == ["mixer", "mixer#2", "mixer#3"]
    x = model.stem(image)
    for spectrum in found.values():
        alone = interaction_spectrum(model.mixer, x, max_order=4, num_tuples=3)
        np.testing.assert_array_equal(spectrum.effects, alone.effects)
        x = model.mixer(x)
    (second,) = model_interaction_spectra(model, image, blocks=[2], max_order=4, num_tuples=3).values()
    np.testing.assert_array_equal(second.effects, found["mixer#2"].effects)
    rest = model_interaction_spectra(model, image, num_tuples=3, finished={"mixer#2": second})
    assert rest["mixer#2"] is second
    np.testing.assert_array_equal(rest["mixer#3"].effects, found["mixer#3"].effects)


class InPlace(nn.Module):
    """A network that overwrites what enters its mixer: inside the mixer, and once more after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixer = nn.Conv2d(3, 4, 1), ScalesItsInput(4, 2)
        large_weights(self)

    def forward(self, x):
        x = self.stem(x)
        return x.add_(self.mixer(x))


class ScalesItsInput(GnConv):
    def forward(self, x):
        return super().forward(x.mul_(3.0))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_mixer_that_writes_into_its_input_is_measured_where_it_was_called(mode):
    model, image = InPlace().double(), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    with mode():
        (found,) = model_interaction_spectra(model, image, max_order=3, num_tuples=3, method="nested").values()
    x = model.stem(image)
    alone = interaction_spectrum(model.mixer, x, max_order=3, num_tuples=3, method="nested")
    np.testing.assert_array_equal(found.effects, alone.effects)


class Masked(nn.Module):
    """Attention that is called with a mask: no position looks past the middle of the map."""

    def __init__(self, keyword: bool, entries: int) -> None:
        super().__init__()
        self.keyword, self.entries = keyword, entries
        self.stem, self.attn = nn.Conv2d(3, 4, 1), Attention(4, num_heads=2)
        large_weights(self)

    def mask(self):
        return (torch.arange(9) < 5).expand(self.entries, 1, 9, 9)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        mask = self.mask()
        return self.attn(attn_mask=mask, x=x) if self.keyword else self.attn(x, mask)


@pytest.mark.parametrize("keyword", [True, False])
def test_further_inputs_are_held_as_they_were(keyword):
    model, image = Masked(keyword, 1).double(), torch.randn(2, 3, 3, 3, dtype=torch.float64)
    (found,) = model_interaction_spectra(model, image, max_order=2, num_tuples=4).values()
    x = model.stem(image).flatten(2).transpose(1, 2)
    settings = {"max_order": 2, "num_tuples": 4, "grid": (3, 3)}
    alone = interaction_spectrum(lambda z: model.attn(z, model.mask()), x, **settings)
    without = interaction_spectrum(model.attn, x, **settings)
    np.testing.assert_allclose(found.effects, alone.effects, rtol=1e-12)
    assert not np.allclose(found.effects, without.effects)


FAMILIES = {
    "deit_tiny_patch16_224": (2, 2),
    "swin_tiny_patch4_window7_224": (2, 2),
    "convnext_atto": (0, 0),
    "seresnet18": (1, 1),
    "focalnet_tiny_srf": (1, 2),  # degree: query, gates and context are three factors
    "mixer_s16_224": (0, 0),
    "gmlp_ti16_224": (1, 1),
    "poolformer_s12": (0, 0),
    "resmlp_12_224": (0, 0),
    "hornet_tiny_7x7": (2, 2),
    "hornet_tiny_gf": (2, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["mixer", "block"])
@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_timm(name, scope):
    model = create_model(name)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    kind = "squeeze_excitation" if name == "seresnet18" else named_blocks(model)[0].mixer
    first = next(block.index for block in named_blocks(model) if block.mixer == kind)
    (spectrum,) = model_interaction_spectra(model, images, blocks=[first], num_tuples=3, scope=scope).values()
    assert (spectrum.location_order, spectrum.degree_order) == FAMILIES[name]
    assert spectrum.convention["scope"] == scope
    assert spectrum.unlisted == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks"), [("seresnet18", None), ("swin_tiny_patch4_window7_224", [2, 3]), ("hornet_test_gf", None)]
)
def test_strided_shifted_and_deep_blocks(name, blocks):
    model = create_model(name)
    images = torch.randn(1, 3, *model.default_cfg["input_size"][1:])
    if name == "seresnet18":  # in strided blocks as well
        gates = [block.index for block in named_blocks(model) if block.mixer == "squeeze_excitation"]
        blocks = [gates[2], gates[4], gates[6]]
    found = model_interaction_spectra(model, images, blocks=blocks, num_tuples=3, scope="block")
    declared = {block.name: block.order for block in named_blocks(model)}
    assert {block: s.location_order for block, s in found.items()} == {block: declared[block] for block in found}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("std", [None, 0.3])
def test_whole_hornet_blocks_have_the_order_of_their_gnconv(dtype, std):
    """With the initial layer scale of 1e-6, and with large weights."""
    model = create_model("hornet_test")
    if std:
        large_weights(model, std)
    spectra = model_interaction_spectra(
        model.to(dtype), torch.randn(1, 3, 96, 96).to(dtype), scope="block", num_tuples=3
    )
    assert [s.location_order for s in spectra.values()] == [2, 3, 4, 5]
    assert [s.degree_order for s in spectra.values()] == [2, 3, 4, 5]


@pytest.mark.slow
def test_functional_orders_are_open():
    model = create_model("hornet_test_iso")
    images = torch.randn(1, 3, 96, 96)
    mixers = model_interaction_spectra(model, images, explicit=False, num_tuples=2)
    assert [s.location_order for s in mixers.values()] == [3] * 3, "gnConv without norms is a polynomial as it is"
    blocks = model_interaction_spectra(model, images, explicit=False, num_tuples=2, scope="block")
    assert [(s.location_order, s.at_least) for s in blocks.values()] == [(None, 3)] * 3
    for name, kind in (("deit_tiny_patch16_224", "attention"), ("seresnet18", "squeeze_excitation")):
        images, model = torch.randn(1, 3, 224, 224), create_model(name)
        first = next(block.index for block in named_blocks(model) if block.mixer == kind)
        (spectrum,) = model_interaction_spectra(model, images, blocks=[first], explicit=False, num_tuples=2).values()
        assert (spectrum.location_order, spectrum.at_least) == (None, 3)


def test_finished_blocks_are_not_measured_again():
    model, images = create_model("hornet_test"), torch.randn(1, 3, 96, 96)
    first = model_interaction_spectra(model, images, num_tuples=2)
    some = {name: first[name] for name in list(first)[:3]}
    seen = []
    second = model_interaction_spectra(
        model, images, num_tuples=2, finished=some, on_block=lambda block, spectrum: seen.append(block.index)
    )
    assert seen == [4]
    assert list(second) == list(first)
    assert all(second[name] is some[name] for name in some)
    np.testing.assert_array_equal(second["stages.3.0.gnconv"].effects, first["stages.3.0.gnconv"].effects)


def test_declared_classes_reach_the_blocks_that_have_them():
    model, images = create_model("hornet_test"), torch.randn(1, 3, 96, 96)
    spectra = model_interaction_spectra(model, images, num_tuples=2, nonlinear=["GnConv"], scope="block")
    assert [s.location_order for s in spectra.values()] == [0, 0, 0, 0], "a gnConv's tangent mixes, and no more"


def test_a_model_in_training_mode_is_measured_in_eval_mode():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Dropout(0.5), GnConv(8, 2, kernel_size=3))
    images = torch.randn(2, 3, 32, 32)
    expected = model_interaction_spectra(model.eval(), images, num_tuples=3)
    found = model_interaction_spectra(model.train(), images, num_tuples=3)
    for name, spectrum in found.items():
        np.testing.assert_array_equal(spectrum.effects, expected[name].effects)
    assert model[1].num_batches_tracked == 0
    assert model.training


def test_windows_on_a_small_map_are_measured_as_far_as_it_reaches():
    """Swin's last map of 2x2 has three neighbours, and its window attention the order 2."""
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1, 1, 1), embed_dim=24)
    (spectrum,) = model_interaction_spectra(model.eval(), torch.randn(1, 3, 56, 56), blocks=[4], num_tuples=2).values()
    assert len(spectrum.effects) == 4
    assert (spectrum.location_order, spectrum.degree_order) == (2, 2)


def test_mixers_of_tokens_are_linear_along_their_positions():
    model = MlpMixer(img_size=96, patch_size=32, num_blocks=1, embed_dim=16).eval()
    (spectrum,) = model_interaction_spectra(model, torch.randn(1, 3, 96, 96), num_tuples=2).values()
    assert (spectrum.location_order, spectrum.degree_order) == (0, 0)
    assert "channels_first" in spectrum.convention["layout"]
