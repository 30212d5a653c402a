"""Sums over pictures against everything recomputed, whatever the batches, the order and the scale."""

import dataclasses

import numpy as np
import pytest
import torch
from adaptivity_oracle import recomputed_adaptivity
from oracles import large_weights
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from horinsight import GnConv, RunningAdaptivity, adaptivity, adaptivity_of_parts, mixing_weights
from horinsight.mixing.left_out_adaptivity import LeftOutAdaptivity
from horinsight.mixing.mixing_results import Adaptivity
from horinsight.stats import Estimate

SIZE = (64, 80)
NUM_PICTURES = 7
KINDS = ("3x3", "pool", "gf", "vit", "swin", "convolution")


def mixer_and_input(kind: str, num: int = NUM_PICTURES) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    if kind == "swin":
        block = SwinTransformerBlock(8, (8, 8), num_heads=2, head_dim=4, window_size=4, shift_size=2)
        return block.double().eval(), torch.randn(num, 8, 8, 8, dtype=torch.float64)
    if kind == "vit":
        return Attention(8, num_heads=2).double(), torch.randn(num, 16, 8, dtype=torch.float64)
    x = torch.randn(num, 4, 4, 5, dtype=torch.float64)
    if kind == "convolution":
        return large_weights(nn.Conv2d(4, 4, 3, padding=1, groups=4).double()), x
    options = {"3x3": {"kernel_size": 3}, "pool": {"depthwise": "pool"}, "gf": {"depthwise": "gf"}}[kind]
    return large_weights(GnConv(4, 1, **options).double()), x


def assert_alike(found: Adaptivity, expected: Adaptivity, tolerance: float = 1e-9) -> None:
    for name, value in vars(expected).items():
        if isinstance(value, Estimate):
            other = getattr(found, name)
            assert other.value == pytest.approx(value.value, rel=tolerance, abs=1e-14, nan_ok=True), name
            assert other.standard_error == pytest.approx(value.standard_error, rel=1e-7, abs=1e-12, nan_ok=True), name
            assert other.count == value.count, name


def streamed(mixer: nn.Module, x: Tensor, sizes: list[int]) -> tuple[RunningAdaptivity, LeftOutAdaptivity]:
    """Two passes over batches of these sizes, each batch of its own sums, which are merged."""
    batches = [mixing_weights(mixer, part) for part in x.split(sizes)]
    running = RunningAdaptivity(image_size=SIZE)
    for weights in batches:
        one = RunningAdaptivity(image_size=SIZE)
        one.update(weights)
        running.merge(one)
    left_out = LeftOutAdaptivity(running)
    for weights in batches:
        other = LeftOutAdaptivity(running)
        other.update(weights)
        left_out.merge(other)
    return running, left_out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 4]])
def test_batches_give_what_is_recomputed_for_each_picture_left_out(kind, sizes):
    mixer, x = mixer_and_input(kind)
    expected = recomputed_adaptivity(mixing_weights(mixer, x), image_size=SIZE)
    running, left_out = streamed(mixer, x, sizes)
    assert_alike(running.compute(left_out), expected)
    assert_alike(adaptivity(mixing_weights(mixer, x), image_size=SIZE), expected)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_pictures(num):
    mixer, x = mixer_and_input("3x3", num)
    expected = recomputed_adaptivity(mixing_weights(mixer, x), image_size=SIZE)
    running, left_out = streamed(mixer, x, [1] * num)
    assert_alike(running.compute(left_out), expected)


def test_small_differences_on_large_weights_do_not_cancel():
    """Gates of 1 + 1e-6 noise: plain sums of squares would keep four digits of the spread, and it has them all here."""
    mixer, x = mixer_and_input("3x3", 40)
    weights = mixing_weights(mixer, x)
    noise = torch.randn(weights.gate.shape, dtype=torch.float64)
    plain = dataclasses.replace(weights, gate=noise)
    shifted = dataclasses.replace(weights, gate=1 + 1e-6 * noise)
    running = RunningAdaptivity()
    for b in range(40):
        running.update(dataclasses.replace(shifted, gate=shifted.gate[b : b + 1], offset=weights.offset[b : b + 1]))
    expected = adaptivity(plain)
    for name in ("input_deviation", "location_deviation"):
        assert getattr(running.compute(), name).value == pytest.approx(1e-6 * getattr(expected, name).value, rel=1e-8)


@pytest.mark.parametrize("kind", ["3x3", "vit", "gf"])
def test_what_is_kept_in_a_file_goes_on(kind, tmp_path):
    mixer, x = mixer_and_input(kind)
    parts = [RunningAdaptivity(image_size=SIZE) for _ in range(NUM_PICTURES)]
    for index, part in enumerate(parts):
        part.update(mixing_weights(mixer, x[index : index + 1]))
        np.savez(tmp_path / f"{index}.npz", **part.arrays())

    def read():
        return (RunningAdaptivity.of_arrays(np.load(tmp_path / f"{index}.npz")) for index in range(NUM_PICTURES))

    assert_alike(adaptivity_of_parts(read), recomputed_adaptivity(mixing_weights(mixer, x), image_size=SIZE))
    with pytest.raises(ValueError, match="Expected the arrays of a RunningAdaptivity, got nonsense"):
        RunningAdaptivity.of_arrays({"nonsense": np.zeros(1)})


def test_parts_of_several_pictures_leave_those_out_together():
    mixer, x = mixer_and_input("3x3", 9)
    parts = []
    for part in x.split(3):
        parts.append(RunningAdaptivity())
        parts[-1].update(mixing_weights(mixer, part))
    found = adaptivity_of_parts(lambda: parts)
    left = [
        adaptivity(mixing_weights(mixer, torch.cat([p for k, p in enumerate(x.split(3)) if k != out])))
        for out in range(3)
    ]
    values = np.array([one.input_adaptivity.value for one in left])
    assert found.input_adaptivity.value == pytest.approx(adaptivity(mixing_weights(mixer, x)).input_adaptivity.value)
    expected = np.sqrt(2 / 3 * np.square(values - values.mean()).sum())
    assert found.input_adaptivity.standard_error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_by_itself(kind):
    mixer, x = mixer_and_input(kind)
    found = RunningAdaptivity(image_size=SIZE).update(mixing_weights(mixer, x))
    for b in range(NUM_PICTURES):
        alone = recomputed_adaptivity(mixing_weights(mixer, x[b : b + 1]), image_size=SIZE)
        for name, values in vars(found).items():
            assert values[b] == pytest.approx(getattr(alone, name).value, rel=1e-9, abs=1e-12), name


def test_what_does_not_belong_together():
    mixer, x = mixer_and_input("3x3")
    other, _ = mixer_and_input("pool")
    running = RunningAdaptivity(image_size=SIZE)
    with pytest.raises(ValueError, match="at least one picture"):
        running.compute()
    running.update(mixing_weights(mixer, x))
    with pytest.raises(ValueError, match="another kernel"):
        running.update(mixing_weights(large_weights(other), x))
    with pytest.raises(ValueError, match="another map"):
        running.update(mixing_weights(mixer, x[..., :4]))
    with pytest.raises(ValueError, match="pixels cannot be added"):
        running.merge(RunningAdaptivity())
    left_out = LeftOutAdaptivity(running)
    left_out.update(mixing_weights(mixer, x[:3]))
    with pytest.raises(ValueError, match="each of 7 pictures to be left out once, got 3"):
        running.compute(left_out)
