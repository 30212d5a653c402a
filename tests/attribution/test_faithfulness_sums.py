"""Faithfulness of pictures in batches is that of all at once, and its table comes from sums alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from horinsight import (
    CaptumSettings,
    RunningFaithfulness,
    captum_scores,
    faithfulness,
    faithfulness_by_picture,
    map_agreement,
    merged_comparisons,
    others_baseline,
    picture_stream,
    randomized_maps,
)
from horinsight.attribution.faithfulness_report import faithfulness_report
from horinsight.attribution.picture_baselines import colour_baseline, tensor_baseline
from horinsight.result_fields import fields_of, same

COUNT = 7
ASKED = {"rows": 4, "columns": 4, "steps": 5, "seed": 3, "background": torch.zeros(3)}
MODEL: list[nn.Module] = []
METHODS = {
    "sum": lambda x, t: x.sum(1),
    "minus": lambda x, t: -x.sum(1),
    "drawn": lambda x, t: torch.rand(len(x), 8, 8, dtype=x.dtype),
}


@pytest.fixture(scope="module")
def shown():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 3)).double()
    with torch.no_grad():
        model[2].weight.copy_(torch.randn(3, 48, generator=generator))
    images = torch.randn(COUNT, 3, 8, 8, generator=generator, dtype=torch.float64)
    MODEL[:] = [model]
    return model, images, torch.arange(COUNT) % 3


def in_batches(images, size):
    return picture_stream(TensorDataset(images), nn.Identity(), batch_size=size)


def baselines_of(images):
    """One that needs no picture, others from a pool, one for each picture, and the first again."""
    grey = colour_baseline([0.1, 0.0, 0.0], "grey")
    each = tensor_baseline(images.flip(0).clone(), "each")
    return ["blur", grey, others_baseline(images[:4], seed=3), each, colour_baseline([0.1, 0.0, 0.0], "again")]


@pytest.fixture(scope="module")
def whole(shown):
    model, images, targets = shown
    return faithfulness(model, images, targets, METHODS, baselines=baselines_of(images), **ASKED)


@pytest.mark.parametrize("size", [1, 3])
def test_batches_give_what_all_at_once_give(shown, whole, size):
    """Each picture by itself, bit for bit: draws go by the number among all, not by the place in a batch."""
    model, images, targets = shown
    found = faithfulness(model, in_batches(images, size), targets, METHODS, baselines=baselines_of(images), **ASKED)
    for name in ("insertion", "deletion", "pictures", "targets", "shares", "convention"):
        assert same(getattr(found, name), getattr(whole, name)), name
    assert len(found.provenance.images) == COUNT
    some = faithfulness_by_picture(
        model, in_batches(images, size), targets, METHODS, baselines=baselines_of(images), pictures=[5, 2], **ASKED
    )
    assert [int(one.pictures[0]) for one in some] == [2, 5]


def test_the_first_batch_is_what_others_are_drawn_from(shown):
    model, images, targets = shown
    found = faithfulness(model, in_batches(images, 3), targets, METHODS, baselines=["others", "black"], **ASKED)
    expected = faithfulness(
        model, images, targets, METHODS, baselines=[others_baseline(images[:3], seed=3), "black"], **ASKED
    )
    np.testing.assert_array_equal(found.insertion, expected.insertion)


def test_sums_give_the_same_table(shown, whole):
    """To 1e-9 of the largest number: three groups of pictures, merged in another order than they came."""
    model, images, targets = shown
    parts = [
        *faithfulness_by_picture(
            model, in_batches(images, 3), targets, METHODS, baselines=baselines_of(images), **ASKED
        )
    ]
    running = [RunningFaithfulness() for _ in range(3)]
    for number, part in enumerate(parts):
        running[number % 3].update(part)
    running[2].merge(running[0])
    running[2].merge(running[1])
    running[2].merge(RunningFaithfulness())
    sums = running[2].compute()
    assert sums.num_pictures == COUNT
    assert sums.useful == whole.useful
    assert "again" in whole.warnings[-1], "twins are counted once"
    assert sums.warnings == whole.warnings
    assert sums.ranking(with_controls=True) == whole.ranking(with_controls=True)
    assert sums.ranking_in_words == whole.ranking_in_words
    np.testing.assert_allclose(sums.insertion, whole.insertion.mean(2), rtol=1e-12, atol=1e-15)
    for row, expected in zip(sums.lines(), whole.lines(), strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name
            else:
                assert row[name] == value, name
    report = faithfulness_report(sums).rendered("table")
    assert report.splitlines()[0].endswith(f"{COUNT} pictures")
    few = RunningFaithfulness()
    few.update(parts[0])
    assert num_bytes(sums) == num_bytes(few.compute()), "what is kept does not grow with the pictures"


def test_agreement_and_redrawn_weights_of_batches_are_those_of_all(shown):
    model, images, targets = shown
    methods = {"gradient": gradient, "sum": METHODS["sum"]}
    maps = {name: method(images, targets) for name, method in methods.items()}
    parts = [
        map_agreement({name: values[some] for name, values in maps.items()}) for some in (slice(3), slice(3, COUNT))
    ]
    assert merged_comparisons(parts) == map_agreement(maps)
    redrawn = [randomized_maps(model, images[some], targets[some], methods) for some in (slice(3), slice(3, COUNT))]
    found, whole = merged_comparisons(redrawn), randomized_maps(model, images, targets, methods)
    np.testing.assert_array_equal(found.correlations, whole.correlations)
    np.testing.assert_array_equal(found.magnitudes, whole.magnitudes)
    with pytest.raises(ValueError, match="measured alike, got other share, chance"):
        merged_comparisons([parts[0], map_agreement(maps, share=0.5)])
    with pytest.raises(ValueError, match="got none"):
        merged_comparisons([])


def gradient(x, targets):
    """Through the model's own weights, whatever they are now: a linear model's."""
    weight = MODEL[0][2].weight.detach()[targets].unflatten(1, (3, 4, 4))
    return weight.repeat_interleave(2, 2).repeat_interleave(2, 3).sum(1) * x.sum(1)


def num_bytes(result):
    return sum(value.nbytes for value in fields_of(result).values() if isinstance(value, np.ndarray))


def test_what_was_measured_otherwise_is_refused(whole):
    running = RunningFaithfulness()
    with pytest.raises(ValueError, match="at least one picture, got none"):
        running.compute()
    running.update(whole)
    with pytest.raises(ValueError, match="measured alike, got other seed"):
        running.update(replace(whole, seed=4))


def test_captum_s_numbers_in_batches(shown):
    model, images, targets = shown
    asked = {
        "methods": {"sum": (METHODS["sum"], "gradient"), "minus": (METHODS["minus"], "multiplied")},
        "reference": torch.zeros(3, 1, 1, dtype=torch.float64),
        "settings": CaptumSettings(square=2, num_squares=4, num_draws=2),
    }
    found = captum_scores(model, in_batches(images, 3), targets, **asked)
    expected = captum_scores(model, images, targets, **asked)
    for name in ("infidelities", "scaled", "zero_infidelities", "sensitivities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(found.provenance.images) == COUNT
