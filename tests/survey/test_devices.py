"""Where tensors are made: sums over pictures on the CPU, whatever device the model is on or a program has chosen.

Without a GPU: on fake tensors, which have a device and no numbers, and under a default device that holds no numbers, on
which a tensor that is made without saying where would be lost.
"""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import TensorDataset

from horinsight import (
    EffectsAsked,
    InfluenceOptions,
    MixingAsked,
    ReachAsked,
    SpectrumOptions,
    SurveyOptions,
    create_model,
    load_survey,
    model_adaptivity,
    model_influence,
    model_interaction_spectra,
    model_mixing_weights,
    model_spectrum_comparisons,
    picture_stream,
    run_survey,
)
from horinsight.interaction.point_scales import RunningScales
from horinsight.mixing import factored_weights
from horinsight.mixing.running_adaptivity import RunningAdaptivity
from horinsight.mixing.variance_sums import VarianceSums
from horinsight.mixing.weight_cells import weight_cells
from horinsight.mixing.weights_by_offset import weights_by_offset
from horinsight.operators.positions import positions_of

MODELS = ("hornet_test_gf", "test_vit")


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    import timm

    if request.param == "test_vit":
        return timm.create_model("test_vit", img_size=64).eval()
    return create_model(request.param)


@pytest.fixture(autouse=True)
def nothing_cached():
    """Targets of offsets are kept by size: here each test makes them anew, and leaves none that has no numbers."""
    kept = factored_weights._window_targets, factored_weights._circular_targets
    for cache in kept:
        cache.cache_clear()
    yield
    for cache in kept:
        cache.cache_clear()


def streamed(images):
    return picture_stream(TensorDataset(images), torch.nn.Identity(), batch_size=3, num_workers=0)


def everything(model, images):
    """All that is streamed."""
    both = streamed(images), streamed(images)
    few = {"num_tuples": 2, "max_order": 2}
    return {
        "adaptivity": model_adaptivity(model, streamed(images), blocks=[1]),
        "influence": model_influence(model, streamed(images), blocks=[1], probes=2),
        "reach": model_influence(model, streamed(images), blocks=[1], probes=1, scope="image"),
        "effects": model_interaction_spectra(model, streamed(images), blocks=[1], **few),
        "comparison": model_spectrum_comparisons((model, model), both, blocks=([1], [2]), **few),
    }


def test_a_default_device_elsewhere_changes_nothing(model, images):
    with torch.device("meta"):
        found = everything(model, images)
    expected = everything(model, images)
    for name, results in expected.items():
        assert dict(found[name]) == dict(results), name


def test_surveys_under_a_default_device_elsewhere(tmp_path):
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{index}.png")
    model = create_model("hornet_test_iso")
    options = SurveyOptions(workers=0, part_size=2, image_size=32)
    for asked in (
        EffectsAsked(SpectrumOptions(num_tuples=2, max_order=2), blocks=[1]),
        MixingAsked(blocks=[1]),
        ReachAsked("image", 1, InfluenceOptions(probes=1), blocks=[1]),
    ):
        run_survey(model, tmp_path / "pictures", tmp_path / asked.name, question=asked, options=options)
        with torch.device("meta"):
            run_survey(model, tmp_path / "pictures", tmp_path / f"meta_{asked.name}", question=asked, options=options)
        assert load_survey(tmp_path / f"meta_{asked.name}").equals(load_survey(tmp_path / asked.name))


def test_sums_of_weights_that_are_on_a_gpu_are_on_the_cpu(images):
    """In float64: a GPU's memory holds no sums, and a survey's files are the same wherever it ran."""
    model = create_model("hornet_test_iso")
    weights = model_mixing_weights(model, images, blocks=[1])["blocks.0.gnconv"]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        moved = {
            field.name: mode.from_tensor(value).to("cuda")
            for field in dataclasses.fields(weights)
            if isinstance(value := getattr(weights, field.name), torch.Tensor)
        }
        there = dataclasses.replace(weights, **moved)
        assert there.gate.device.type == "cuda"
        assert there.dense().device.type == "cuda"
        (part,) = weights_by_offset(there)
        cells = weight_cells(part)
        sums = VarianceSums.of_batch(cells, part.gate)
        alone = sums.without(VarianceSums.of_each(cells, part.gate))
    for one in (sums, alone):
        for tensor in (one.mean, one.images, one.image, one.cells.valid, one.cells.kernel):
            assert tensor.device.type == "cpu"
        assert one.mean.dtype == one.images.dtype == torch.float64


def test_how_much_points_on_a_gpu_vary_is_known_on_the_cpu():
    running = RunningScales()
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.randn(2, 4, 8, 8, device="cuda")
        rows = positions_of(x).flat(x).transpose(0, 1).flatten(1)
        assert rows.device.type == "cuda"
        running._input.update(rows)
        running._input.update(rows)
        assert running._input.deviation().device.type == "cpu"
        assert running._input.deviation().dtype == torch.float64


def test_sums_from_a_file_are_on_the_cpu(images):
    model = create_model("hornet_test_iso")
    running = RunningAdaptivity()
    running.update(model_mixing_weights(model, images, blocks=[1])["blocks.0.gnconv"])
    arrays = running.arrays()
    with torch.device("meta"):
        again = RunningAdaptivity.of_arrays(arrays)
        again.merge(running)
        found = again.compute()
    assert found.num_images == 10
    assert found.location_adaptivity.value == pytest.approx(running.compute().location_adaptivity.value, rel=1e-9)
