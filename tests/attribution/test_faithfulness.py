"""Insertion and deletion where it is known what a network reads: one quadrant, or a weight for each pixel."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from horinsight.attribution.faithfulness import faithfulness, faithfulness_by_picture
from horinsight.attribution.faithfulness_parts import merged_faithfulness
from horinsight.attribution.faithfulness_report import faithfulness_report
from horinsight.attribution.faithfulness_results import Faithfulness
from horinsight.attribution.perturbation_curves import cell_order
from horinsight.attribution.picture_baselines import others_baseline, tensor_baseline

EPS = np.finfo(np.float64).eps
SIDE, HALF = 16, 8
Method = Callable[[Tensor, Tensor], Tensor]


class QuadrantReader(nn.Module):
    """Four classes, told apart by the pattern in the upper left quadrant; the rest has no weight at all."""

    def __init__(self) -> None:
        super().__init__()
        patterns = torch.randn(4, 3, HALF, HALF, generator=torch.Generator().manual_seed(0))
        patterns = patterns - patterns.mean((2, 3), keepdim=True)  # one colour says nothing
        self.patterns = nn.Parameter(patterns)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :HALF, :HALF].flatten(1) @ self.patterns.flatten(1).T / 15


def quadrant_pictures(model: QuadrantReader, count: int) -> tuple[Tensor, Tensor]:
    """The pattern of a class, and around it noise that is stronger."""
    generator = torch.Generator().manual_seed(1)
    images = 2 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    targets = torch.arange(count) % 4
    images[:, :, :HALF, :HALF] = model.patterns.detach()[targets]
    return images, targets


def constant(marked: tuple[slice, slice]) -> Method:
    """A map that is 1 somewhere, the same for all pictures."""
    values = torch.zeros(SIDE, SIDE)
    values[marked] = 1

    def method(x: Tensor, targets: Tensor) -> Tensor:
        return values.expand(len(x), SIDE, SIDE)

    return method


METHODS = {
    "wrong": constant((slice(HALF, None), slice(HALF, None))),
    "true": constant((slice(HALF), slice(HALF))),
    "half": constant((slice(HALF // 2), slice(HALF))),
}
BASELINES = ("black", "mean", "blur", "others")


@pytest.fixture(scope="module")
def read_quadrant() -> Faithfulness:
    model = QuadrantReader().eval()
    images, targets = quadrant_pictures(model, 16)
    return faithfulness(model, images, targets, METHODS, baselines=BASELINES, rows=8, columns=8, steps=16)


@pytest.mark.parametrize("baseline", BASELINES)
def test_what_a_network_reads_beats_every_control(read_quadrant, baseline):
    row = next(row for row in read_quadrant.rows if (row.map, row.baseline) == ("true", baseline))
    assert row.beats == {"random": "yes", "blob": "yes", "intensity": "yes"}
    wrong = next(row for row in read_quadrant.rows if (row.map, row.baseline) == ("wrong", baseline))
    assert wrong.beats["random"] == "no"
    assert read_quadrant.left(baseline) < 0.5, "each takes away what is read"
    if baseline != "others":  # half of another class's pattern is more than half of nothing
        assert read_quadrant.difference("true", "half", baseline).interval[0] > 0


def test_methods_are_ranked_as_the_network_was_built(read_quadrant):
    assert read_quadrant.ranking() == (("true",), ("half",), ("wrong",))
    places = [read_quadrant.maps.index(name) for name in ("true", "half", "wrong")]
    insertion, deletion = read_quadrant.insertion_areas.mean(2)[places], read_quadrant.deletion_areas.mean(2)[places]
    assert (insertion[:2].min(0) > insertion[2] + 0.1).all(), "half of the pattern is enough to know it"
    assert (np.diff(deletion, axis=0) > 0.01).all(), "and not to forget it"
    assert read_quadrant.ranking_in_words == "true > half > wrong"
    assert read_quadrant.warnings == ()
    groups = read_quadrant.ranking(with_controls=True)
    assert groups == (("true",), ("half",), ("random", "blob"), ("wrong", "intensity"))  # intensity is the noise


def test_the_quadrant_is_all_that_counts(read_quadrant):
    """64 cells, 16 of them in the quadrant: after a quarter of the steps the true map has said all."""
    place = read_quadrant.maps.index("true")
    insertion, deletion = read_quadrant.insertion[place], read_quadrant.deletion[place]
    whole, nothing = deletion[..., :1], insertion[..., :1]
    single = 64 * np.finfo(np.float32).eps
    np.testing.assert_allclose(insertion[..., 4:], np.broadcast_to(whole, insertion[..., 4:].shape), rtol=single)
    np.testing.assert_allclose(deletion[..., 4:], np.broadcast_to(nothing, deletion[..., 4:].shape), rtol=single)


def test_one_baseline_is_no_ranking(read_quadrant):
    def of(places: list[int], **changed: object) -> Faithfulness:
        parts = {"insertion": read_quadrant.insertion[:, places], "deletion": read_quadrant.deletion[:, places]}
        return replace(read_quadrant, baselines=tuple(f"b{place}" for place in range(len(places))), **parts, **changed)

    assert len(of([0]).ranking()) == 1
    assert "no ranking: 1 useful" in of([0]).ranking_in_words
    twice = of([0, 0])  # the same pictures under two names
    assert twice.useful == ("b0",)
    assert "counted once" in twice.warnings[0]
    assert len(twice.ranking()) == 1
    assert len(of([0, 1]).ranking()) == 3
    against = of([0, 1, 2])
    against.insertion[:, 2], against.deletion[:, 2] = -against.insertion[:, 2], -against.deletion[:, 2]
    assert len(against.ranking()) == 1, "a third says the opposite"


def test_a_baseline_that_leaves_the_score_is_useless(read_quadrant):
    model = QuadrantReader().eval()
    images, targets = quadrant_pictures(model, 4)
    same = tensor_baseline(images, "same")
    found = faithfulness(model, images, targets, METHODS, baselines=["black", same], rows=4, columns=4, steps=4)
    assert found.left("same") == 1
    assert found.useful == ("black",)
    assert found.warnings == ("same: leaves 100% of the score, so that curves under it say little.",)
    assert "warning: same: leaves 100%" in faithfulness_report(found).text()


class Linear(nn.Module):
    """A weight for each pixel, in float64."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, height, width, dtype=torch.float64))
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return (x[:, None] * self.weight).sum((2, 3, 4)) + 0.5


def logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits[torch.arange(len(logits)), targets]


def first_moment(x: Tensor, targets: Tensor) -> Tensor:
    return (x * torch.arange(x.shape[3])).sum(1)


def test_curves_of_a_linear_model_are_sums():
    """deletion_k = f(x) - Σ w (x - b) over the first n_k cells, written pixel by pixel; 3x4 cells do not divide 8x7."""
    torch.manual_seed(2)
    model = Linear(8, 7).eval()
    images = torch.randn(3, 3, 8, 7, dtype=torch.float64)
    targets = torch.tensor([0, 1, 0])
    baseline = torch.randn(3, 8, 7, dtype=torch.float64)
    found = faithfulness(
        model, images, targets, {"moment": first_moment}, baselines=[tensor_baseline(baseline)], score=logit,
        rows=3, columns=4, steps=5, seed=4, batch_size=3,
    )  # fmt: skip
    assert max(model.batches) <= 3
    counts = [0, 2, 5, 7, 10, 12]  # round(12 k / 5)
    for index in range(3):
        x, w = images[index], model.weight[targets[index]].detach()
        parts, values = np.zeros(12), [[] for _ in range(12)]
        for r in range(8):
            for c in range(7):
                cell = (r * 3 // 8) * 4 + c * 4 // 7
                parts[cell] += float((w[:, r, c] * (x[:, r, c] - baseline[:, r, c])).sum())
                values[cell].append(float(x[:, r, c].sum() * c))
        order = np.argsort([-np.mean(value) for value in values])
        gone = np.array([parts[order[:count]].sum() for count in counts])
        whole = float((w * x).sum()) + 0.5
        size = float((w * x).abs().sum() + (w * baseline).abs().sum())
        tolerance = {"rtol": 0, "atol": 3 * 8 * 7 * EPS * size}
        np.testing.assert_allclose(found.deletion[0, 0, index], whole - gone, **tolerance)
        np.testing.assert_allclose(found.insertion[0, 0, index], whole - parts.sum() + gone, **tolerance)
        by_hand = sum((gone[k] + gone[k + 1]) * (counts[k + 1] - counts[k]) / 24 for k in range(5))
        assert found.areas[0, 0, index] == pytest.approx(2 * by_hand - parts.sum(), rel=0, abs=20 * tolerance["atol"])


def test_what_goes_alike_differs_by_nothing():
    """A method that is a control, and one that says the same in other numbers: no rounding makes them differ."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4)).eval()
    images, targets = torch.randn(6, 3, SIDE, SIDE), torch.arange(6) % 4
    methods = {
        "intensity again": lambda x, t: x.abs().mean(1),
        "other": lambda x, t: torch.rand(1, 4, 4),
        "intensity squared": lambda x, t: x.abs().mean(1) ** 2,
    }
    given = {"rows": SIDE, "columns": SIDE, "steps": 8, "background": (0.0, 0.0, 0.0), "batch_size": 5}
    found = faithfulness(model, images, targets, methods, baselines=["mean"], **given)
    for name in ("intensity again", "intensity squared"):
        difference = found.difference(name, "intensity", "mean")
        assert (difference.value, difference.standard_error) == (0, 0)
        row = next(row for row in found.rows if row.map == name)
        assert row.beats["intensity"] == "undecided"
    assert 0 < found.rounding < 1e-4


def test_ties_go_by_the_seed_and_the_picture():
    flat = np.zeros(9)
    orders = {tuple(cell_order(flat, seed=seed, index=index).tolist()) for seed in (0, 1) for index in range(3)}
    assert len(orders) == 6
    values = np.array([1.0, 0, 1, 0, 1, 0, 0, 0, 2])
    order = cell_order(values, seed=0, index=0)
    assert values[order].tolist() == sorted(values, reverse=True)
    assert cell_order(-values, seed=0, index=0)[:5].tolist() == [cell for cell in cell_order(flat, seed=0, index=0)
                                                                 if values[cell] == 0]  # fmt: skip


def test_what_is_finished_is_kept_and_goes_on_the_same():
    model = QuadrantReader().eval()
    images, targets = quadrant_pictures(model, 4)
    calls = []

    def noisy(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return torch.rand(len(x), 5, 5)

    given = {"rows": 4, "columns": 4, "steps": 4, "baselines": ("mean", "others")}
    kept: list[Faithfulness] = []
    with pytest.raises(KeyboardInterrupt):
        faithfulness(model, images, targets, {"noisy": noisy}, on_picture=kept.append, **given)
    assert [part.pictures.tolist() for part in kept] == [[0], [1]]
    state = torch.get_rng_state()
    rest = faithfulness(model, images, targets, {"noisy": noisy}, finished=[merged_faithfulness(kept)], **given)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(calls) == 3 + 2
    whole = faithfulness(model, images, targets, {"noisy": noisy}, **given)
    assert rest == whole
    with pytest.raises(ValueError, match="got other methods"):
        faithfulness(model, images, targets, {"other": noisy}, finished=kept, **given)
    parts = [*faithfulness_by_picture(model, images, targets, {"noisy": noisy}, **given)]
    assert merged_faithfulness(parts[::-1]) == whole
    with pytest.raises(ValueError, match="one in two"):
        merged_faithfulness([parts[0], whole])
    with pytest.raises(ValueError, match="got other seed"):
        merged_faithfulness([parts[0], replace(parts[1], seed=9)])


def test_the_model_is_left_as_it_was_and_methods_meet_it_in_eval_mode():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3 * SIDE * SIDE, 4)).train()
    images, targets = torch.rand(2, 3, SIDE, SIDE), torch.tensor([1, 2])
    seen = []

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        seen.append((model.training, torch.is_grad_enabled(), model[2].weight.requires_grad))
        x.requires_grad_()
        (found,) = torch.autograd.grad(model(x)[0, int(t)], x)
        return found.sum(1)

    state = {name: value.clone() for name, value in model.state_dict().items()}
    given = {"baselines": ["mean"], "rows": 2, "columns": 2, "steps": 2}
    parts = faithfulness_by_picture(model, images, targets, {"gradient": gradient}, **given)
    next(parts)
    assert model.training, "between two pictures it is as it was"
    next(parts)
    assert seen == [(False, True, False)] * 2
    assert all(module.training for module in model.modules())
    assert model[2].weight.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_a_method_draws_goes_by_picture_and_name():
    model = QuadrantReader().eval()
    images, targets = quadrant_pictures(model, 2)
    drawn: dict[str, list[Tensor]] = {"a": [], "b": []}

    def drawing(name: str) -> Method:
        def method(x: Tensor, t: Tensor) -> Tensor:
            drawn[name].append(torch.rand(1, 4, 4))
            return drawn[name][-1]

        return method

    methods = {name: drawing(name) for name in drawn}
    for seed in (0, 0, 1):
        faithfulness(model, images, targets, methods, baselines=["mean"], rows=4, columns=4, steps=2, seed=seed)
    for maps in drawn.values():
        assert torch.equal(maps[0], maps[2])
        assert torch.equal(maps[1], maps[3])
    assert len({tuple(one.flatten().tolist()) for maps in drawn.values() for one in maps}) == 2 * (2 + 2)


def test_another_picture_never_stands_for_itself():
    images = torch.rand(3, 3, 2, 2)
    images[2] = images[0]
    for index in range(3):
        assert not torch.equal(others_baseline(seed=5).picture(images, index), images[index])
    pool = torch.rand(9, 3, 2, 2)
    drawn = [others_baseline(pool, seed=seed).picture(images, 0) for seed in range(20)]
    assert len({tuple(one.flatten().tolist()) for one in drawn}) > 1
    with pytest.raises(ValueError, match="give it a pool"):
        others_baseline().picture(images[:1], 0)


def test_the_table(read_quadrant):
    frame = read_quadrant.to_frame().set_index(["map", "baseline"])
    assert frame.loc[("true", "black"), "beats_blob"] == "yes"
    areas = read_quadrant.areas[1, 0] - read_quadrant.areas[4, 0]
    assert frame.loc[("true", "black"), "over_blob"] == pytest.approx(areas.mean(), rel=1e-12)
    half = 2.13145 * areas.std(ddof=1) / 4  # Student's with 15 degrees
    assert frame.loc[("true", "black"), "over_blob_low"] == pytest.approx(areas.mean() - half, abs=1e-5)
    report = faithfulness_report(read_quadrant)
    text = report.text()
    assert "ranking: true > half > wrong" in text
    assert "blob (control)" in text
    assert "NaN" not in report.json()
    assert report.csv().count("\n") == 1 + 6 * 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methods": {"m": lambda x, t: x}}, r"as \(1, h, w\).*sum or take the largest"),
        ({"methods": {"m": lambda x, t: x.sum(1) / 0}}, "not finite"),
        ({"methods": {"m": lambda x, t: [1]}}, "one tensor"),
        ({"methods": {"blob": lambda x, t: x.sum(1)}}, "'blob' twice"),
        ({"methods": {}}, "at least one method"),
        ({"baselines": ["grey"]}, "got 'grey'"),
        ({"baselines": ["mean", "mean"]}, "'mean' twice"),
        ({"targets": torch.tensor([0.0, 1.0])}, "whole numbers"),
        ({"targets": torch.tensor([0, 7])}, "a class 7"),
        ({"steps": 17}, "at most the number of cells, 16"),
        ({"rows": 17, "steps": 2}, "at most 16x16"),
        ({"score": lambda logits, targets: logits}, "a number a picture"),
        ({"stps": 2}, "unexpected keyword"),
        ({"background": (0.0,)}, "each of 3 channels"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(changed, message):
    model = QuadrantReader().eval()
    images, targets = quadrant_pictures(model, 2)
    given = {"targets": targets, "methods": METHODS, "baselines": ["mean"], "rows": 4, "columns": 4, "steps": 4}
    given |= changed
    with pytest.raises((ValueError, TypeError), match=message):
        faithfulness(model, images, given.pop("targets"), given.pop("methods"), **given)
