"""A model in a wrapper: every public function gives for it what it gives for the model itself."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from horinsight import (
    count_macs,
    create_model,
    gnconv_bounds,
    image_batch,
    interaction_spectrum,
    load_checkpoint,
    mixing_rollout,
    mixing_weights,
    model_adaptivity,
    model_interaction_spectra,
    model_mixing_weights,
    model_view,
    named_blocks,
    preprocessing,
    query_maps,
    sample_images,
)
from horinsight.data.images import sample_image
from horinsight.description import normalisation_before
from horinsight.mixers.blocks import block_map_sizes
from horinsight.models.origin import WeightsOrigin, set_weights_origin, weights_origin
from horinsight.models.predictions import class_names, predictions
from horinsight.models.provenance import model_provenance, weights_sha256
from horinsight.models.registry import input_size
from horinsight.training.accuracy import accuracy

SIZE = (56, 56)
DIGITS = [sample_image("digit_3"), sample_image("digit_8")]


class Normalise(nn.Module):
    """(x - mean) / std, with both as buffers."""

    def __init__(self, mean, std) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Holder(nn.Module):
    """Somebody's module around a backbone: it calls timm's methods, not the module, on pictures of 0 to 255."""

    def __init__(self, backbone: nn.Module, mean, std) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalise = Normalise(mean, std)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.forward_head(self.backbone.forward_features(self.normalise(images / 255)))


def small(**options) -> nn.Module:
    model = create_model("hornet_digits_iso", depth=2, dim=16, order=3, layer_scale_init_value=0.5, **options)
    set_weights_origin(model, WeightsOrigin("trained: here", trained=True))
    return model


def statistics(model: nn.Module) -> tuple:
    return model.pretrained_cfg["mean"], model.pretrained_cfg["std"]


def compiled(model: nn.Module) -> nn.Module:
    wrapped = torch.compile(model, backend="eager")
    with torch.no_grad():
        wrapped(torch.zeros(1, 3, *SIZE))  # compiled before any hook is there
    return wrapped


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    with torch.no_grad():
        model(torch.zeros(1, 3, *SIZE))
    return model


WRAPPERS = {  # name → (wrapper, what it puts before the names of modules)
    "distributed": (DistributedDataParallel, "module."),
    "parallel": (nn.DataParallel, "module."),
    "compiled": (compiled, "_orig_mod."),
    "compiled_in_place": (compiled_in_place, ""),
    "compiled_distributed": (lambda model: torch.compile(DistributedDataParallel(model), backend="eager"),
                             "_orig_mod.module."),
    "averaged": (AveragedModel, "module."),
    "ema": (ModelEmaV3, "module."),
    "alone": (nn.Sequential, "0."),
    "normalised": (lambda model: nn.Sequential(Normalise(*statistics(model)), model), "1."),
    "normalised_compiled": (lambda model: nn.Sequential(Normalise(*statistics(model)), compiled(model)),
                            "1._orig_mod."),
    "normalised_otherwise": (lambda model: nn.Sequential(Normalise([0.5] * 3, [0.25, 0.5, 1.0]), model), "1."),
    "held": (lambda model: Holder(model, *statistics(model)), "backbone."),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_process(tmp_path_factory):
    file = tmp_path_factory.mktemp("processes") / "store"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=WRAPPERS, scope="module")
def pair(request) -> tuple[nn.Module, nn.Module, str]:
    """The model, the same in a wrapper, and the prefix of names."""
    wrap, prefix = WRAPPERS[request.param]
    return small(), wrap(small()).eval(), prefix


def test_pictures_and_what_is_said_of_them(pair):
    model, wrapped, _ = pair
    own, other = image_batch(model, DIGITS), image_batch(wrapped, DIGITS)
    assert other.shape == own.shape == (2, 3, *SIZE)
    assert image_batch(wrapped, DIGITS, image_size=(32, 64)).shape == (2, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(other), model(own), rtol=1e-4, atol=1e-4)
    assert np.array_equal(model_view(wrapped, other), model_view(model, own))
    assert class_names(wrapped) == [str(digit) for digit in range(10)]
    for found, expected in zip(predictions(wrapped, other), predictions(model, own), strict=True):
        assert [(p.index, p.name) for p in found] == [(p.index, p.name) for p in expected]
        np.testing.assert_allclose([p.probability for p in found], [p.probability for p in expected], rtol=1e-4)


def test_what_the_model_is(pair):
    model, wrapped, _ = pair
    assert input_size(wrapped) == SIZE
    assert weights_origin(wrapped) == WeightsOrigin("trained: here", trained=True)
    assert weights_sha256(wrapped) == weights_sha256(model)
    assert model_provenance(wrapped) == model_provenance(model)
    assert model_provenance(wrapped).model == "hornet_digits_iso"


def test_cost_and_blocks(pair):
    model, wrapped, prefix = pair
    own, other = count_macs(model, SIZE), count_macs(wrapped, SIZE)
    assert (other.model, other.params, other.macs) == (own.model, own.params, own.macs)
    assert {name: other.by_module[prefix + name] for name in own.by_module if name} == {
        name: columns for name, columns in own.by_module.items() if name
    }
    expected = [dataclasses.replace(bound, name=prefix + bound.name) for bound in gnconv_bounds(model, SIZE)]
    assert gnconv_bounds(wrapped, SIZE) == expected
    assert [block.name for block in named_blocks(wrapped)] == [prefix + block.name for block in named_blocks(model)]
    assert all(wrapped.get_submodule(block.name) is block.module for block in named_blocks(wrapped))
    assert block_map_sizes(wrapped, SIZE) == {
        prefix + name: size for name, size in block_map_sizes(model, SIZE).items()
    }


def test_measurements(pair):
    model, wrapped, prefix = pair
    own, other = image_batch(model, DIGITS), image_batch(wrapped, DIGITS)
    close = {"rtol": 1e-3, "atol": 1e-6}  # pictures that a wrapper normalises arrive to within rounding
    expected = model_mixing_weights(model, own)
    for name, weights in model_mixing_weights(wrapped, other).items():
        torch.testing.assert_close(weights.channel_mean(), expected[name.removeprefix(prefix)].channel_mean(), **close)
    np.testing.assert_allclose(mixing_rollout(wrapped, other).weights, mixing_rollout(model, own).weights, **close)
    distances = [a.mean_distance.value for a in model_adaptivity(model, own).values()]
    np.testing.assert_allclose(
        [a.mean_distance.value for a in model_adaptivity(wrapped, other).values()], distances, rtol=1e-5
    )
    queries = [[(3, 4)], [(5, 6)]]
    maps, expected_maps = query_maps(wrapped, other, queries), query_maps(model, own, queries)
    assert np.array_equal(maps.pictures, expected_maps.pictures)
    assert maps.provenance == expected_maps.provenance
    for scope in ("mixer", "block"):
        options = {"blocks": [2], "max_order": 2, "num_tuples": 2, "scope": scope, "method": "nested"}
        (spectrum,) = model_interaction_spectra(wrapped, other, **options).values()
        (expected_spectrum,) = model_interaction_spectra(model, own, **options).values()
        np.testing.assert_allclose(spectrum.effects, expected_spectrum.effects, rtol=1e-3)
        assert spectrum.provenance == expected_spectrum.provenance


def test_nothing_of_a_wrapper_is_left_changed(pair):
    _, wrapped, _ = pair
    before = {name: dict(vars(module)) for name, module in wrapped.named_modules()}
    model_mixing_weights(wrapped, image_batch(wrapped, DIGITS))
    after = {name: vars(module) for name, module in wrapped.named_modules()}
    assert before.keys() == after.keys()
    for name, attributes in before.items():
        assert attributes.keys() == after[name].keys(), name
        assert all(after[name][key] == value for key, value in attributes.items() if key != "_parameters"), name


def test_other_processes_are_not_waited_for(monkeypatch):
    """One process of many may ask."""

    def waits(*_: object, **__: object) -> None:
        raise AssertionError("the parallel forward pass was used")

    wrapped = DistributedDataParallel(small())
    monkeypatch.setattr(DistributedDataParallel, "forward", waits)
    images = image_batch(wrapped, DIGITS)
    assert len(predictions(wrapped, images)) == 2
    assert len(model_mixing_weights(wrapped, images)) == 2
    assert count_macs(wrapped, SIZE).macs > 0


def test_operators_in_wrappers():
    gnconv = small().blocks[0].gnconv
    x = torch.randn(1, 16, 7, 7)
    expected = interaction_spectrum(gnconv, x, max_order=4, num_tuples=2)
    for wrapped in (nn.DataParallel(gnconv), torch.compile(gnconv, backend="eager"), nn.Sequential(gnconv)):
        assert len(named_blocks(wrapped)) == 1
        assert mixing_weights(wrapped, x).reconstruction_error < 1e-5
        spectrum = interaction_spectrum(wrapped, x, max_order=4, num_tuples=2)
        assert (spectrum.location_order, spectrum.degree_order) == (3, 3)
        np.testing.assert_allclose(spectrum.effects, expected.effects, rtol=1e-3)


def test_accuracy_of_a_wrapped_model():
    from horinsight.data.datasets import LabelledImages, digits

    held_out = digits()[1]
    few = LabelledImages(held_out.name, held_out.classes, held_out.labels[:8], held_out.pictures[:8])
    model = create_model("hornet_digits_iso")
    assert accuracy(nn.Sequential(Normalise(*statistics(model)), model), few) == accuracy(model, few) == 1.0


@pytest.mark.parametrize("name", ["hornet_test", "convnext_atto", "hornet_test_iso"])
def test_feature_extractors(name):
    model, features = create_model(name), create_model(name, features_only=True)
    picture = [next(iter(sample_images().values()))]
    for wrapped in (features, nn.Sequential(features), nn.DataParallel(features)):
        assert input_size(wrapped) == input_size(model)
        assert torch.equal(image_batch(wrapped, picture), image_batch(model, picture))
        assert predictions(wrapped, image_batch(wrapped, picture)) == [[]]
        assert len(named_blocks(wrapped)) == len(named_blocks(model)) == len(block_map_sizes(wrapped, (64, 64)))
        assert 0 < count_macs(wrapped, 64).macs <= count_macs(model, 64).macs
    gray = create_model(name, features_only=True, in_chans=1)
    with pytest.raises(ValueError, match="takes 1: prepare its input yourself"):
        preprocessing(gray)
    assert count_macs(gray, 64).macs < count_macs(features, 64).macs


def test_the_channels_are_the_wrappers():
    adapted = nn.Sequential(nn.Conv2d(1, 3, 1), create_model("hornet_test"))
    assert count_macs(adapted, 96).macs == count_macs(create_model("hornet_test"), 96).macs + 3 * 96 * 96
    with pytest.raises(ValueError, match="Sequential takes 1"):
        preprocessing(adapted)


def test_weights_beside_the_model():
    """A new head: pictures as the backbone wants them, but neither its classes nor its origin."""
    backbone = create_model("hornet_digits_iso")
    probe = nn.Sequential(backbone, nn.Linear(10, 10))
    images = image_batch(probe, DIGITS)
    assert torch.equal(images, image_batch(backbone, DIGITS))
    assert class_names(probe) is None
    origin = weights_origin(probe)
    assert origin.source == f"{weights_origin(backbone).source}, of unknown origin: 1.weight, 1.bias"
    assert origin.trained is None
    assert weights_sha256(probe) != weights_sha256(backbone)
    assert model_provenance(probe).model == "Sequential"


def test_parts_that_contradict_one_another():
    both = nn.ModuleList([create_model("hornet_test"), create_model("hornet_digits_iso")])
    with pytest.raises(ValueError, match=r"made for different pictures \(HorNet, IsotropicHorNet\)"):
        preprocessing(both)
    assert weights_origin(both) == WeightsOrigin("unknown", trained=None)
    twins = nn.ModuleList([create_model("hornet_test"), create_model("hornet_test")])
    assert input_size(twins) == (96, 96)


def test_a_model_that_states_nothing_says_so():
    with pytest.raises(ValueError, match="Conv2d does not state its image size"):
        input_size(nn.Conv2d(3, 8, 3))
    assert weights_origin(nn.Conv2d(3, 8, 3)) == WeightsOrigin("unknown", trained=None)


@pytest.mark.parametrize(
    "before",
    [nn.Identity(), nn.ZeroPad2d(4), nn.Sigmoid(), nn.Conv2d(3, 3, 1), nn.ChannelShuffle(3)],
    ids=lambda module: type(module).__name__,
)
def test_what_is_no_normalisation_is_taken_for_none(before):
    m, s = normalisation_before(nn.Sequential(before, create_model("hornet_test")))
    assert bool((m == 0).all() and (s == 1).all())


def test_weights_are_loaded_into_the_model_inside(tmp_path):
    source = create_model("hornet_test", seed=7)
    torch.save({"model": source.state_dict()}, tmp_path / "seven.pth")
    for wrapped in (
        DistributedDataParallel(create_model("hornet_test")),
        torch.compile(create_model("hornet_test")),
        nn.Sequential(create_model("hornet_test")),
    ):
        load_checkpoint(wrapped, tmp_path / "seven.pth")
        assert weights_origin(wrapped).source == "checkpoint seven.pth, model"
        assert weights_sha256(wrapped) == weights_sha256(source)
