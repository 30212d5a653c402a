"""Threads that share a model: each gets what it would alone, and everything is as before when the last one is done."""

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import pytest
import timm
import torch
from torch import nn

from horinsight import (
    GnConv,
    capture,
    count_macs,
    create_model,
    interaction_spectrum,
    model_adaptivity,
    model_interaction_spectra,
    model_mixing_weights,
    named_blocks,
)
from horinsight.capture import evaluation, own_copy, wrapped_forward

PATIENCE = 60  # seconds, after which threads that wait for each other are found out


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    """Threads take turns fifty times as often as usual, so that what can meet does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


def at_once(*jobs: Callable[[], object], times: int = 1) -> list[list[object]]:
    """What each job gives, `times` in a row, all jobs running side by side."""
    start = threading.Barrier(len(jobs))
    found: list[list[object]] = [[] for _ in jobs]
    errors: list[BaseException] = []

    def work(job: Callable[[], object], results: list[object]) -> None:
        try:
            start.wait(PATIENCE)
            results.extend(job() for _ in range(times))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in zip(jobs, found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "threads wait for each other"
    if errors:
        raise errors[0]
    return found


def state(model: nn.Module) -> dict[str, object]:
    """Everything that an analysis borrows."""
    return {
        "modes": [part.training for part in model.modules()],
        "gradients": [parameter.requires_grad for parameter in model.parameters()],
        "devices": [tensor.device.type for tensor in chain(model.parameters(), model.buffers())],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
        "forwards": ["forward" in part.__dict__ for part in model.modules()],
        "fused": [getattr(part, "fused_attn", None) for part in model.modules()],
        "kernels": [
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ],
    }


def mixed_state() -> nn.Module:
    """A model some of whose parts are in eval mode and some of whose parameters are frozen."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Dropout(), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)).train()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    return model


def test_each_thread_captures_its_own_calls():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    before = state(model)

    def captured(number: int) -> Callable[[], None]:
        def job() -> None:
            x = torch.full((number, 3), float(number))
            with capture({"first": model[0], "last": model[2]}) as calls:
                y = model(x)
            assert [len(made) for made in calls.values()] == [1, 1]
            assert calls["first"][0].input is x
            assert calls["last"][0].output is y

        return job

    at_once(*map(captured, range(1, 9)), lambda: model(torch.zeros(1, 3)), times=40)
    assert state(model) == before


def test_who_leaves_last_gives_the_flags_back():
    model = mixed_state()
    before = state(model)
    first, second = evaluation(model), evaluation(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(part.training for part in model.modules()), "the second still has it"
    assert not any(parameter.requires_grad for parameter in model.parameters())
    second.__exit__(None, None, None)
    assert state(model) == before


@pytest.mark.parametrize("other", ["the model", "a part", "a replica that shares its weights"])
def test_overlapping_evaluations(other):
    model = mixed_state()
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    second = {"the model": model, "a part": model[2], "a replica that shares its weights": None}[other]
    second = second if second is not None else copy.deepcopy(model, shared)
    before, before_second = state(model), state(second)

    def lent(what: nn.Module) -> Callable[[], None]:
        def job() -> None:
            with evaluation(what):
                assert not any(part.training for part in what.modules())
                assert not any(parameter.requires_grad for parameter in what.parameters())

        return job

    at_once(*[lent(model), lent(second)] * 4, times=50)
    assert state(model) == before
    assert state(second) == before_second


def test_two_models_in_either_order():
    a, b = mixed_state(), mixed_state()
    before = state(a)
    x = torch.randn(1, 2, 3, 3)

    def nested(outer: nn.Module, inner: nn.Module) -> Callable[[], None]:
        def job() -> None:
            double = wrapped_forward(outer[0], lambda forward: lambda x: 2 * forward(x))
            with evaluation(outer), capture({"": outer}), double, evaluation(inner), capture({"": inner}) as calls:
                inner(outer(x))
            assert len(calls[""]) == 1

        return job

    at_once(*[nested(a, b), nested(b, a)] * 3, times=30)
    assert state(a) == state(b) == before


def test_a_replaced_forward_pass_is_replaced_for_one_thread():
    layer, x = nn.Linear(1, 1), torch.ones(1, 1)
    expected = layer(x)

    def multiplied(factor: float) -> Callable[[], None]:
        def job() -> None:
            with wrapped_forward(layer, lambda forward: lambda x: factor * forward(x)):
                assert torch.equal(layer(x), factor * expected)
                with wrapped_forward(layer, lambda forward: lambda x: 1 + forward(x)):
                    assert torch.equal(layer(x), 1 + factor * expected)

        return job

    def plain() -> None:
        assert torch.equal(layer(x), expected)
        assert torch.equal(own_copy(layer).double()(x.double()), expected.double())

    def doubled_copy() -> None:
        twin = own_copy(layer)
        with torch.no_grad():
            twin.weight.mul_(2)
            twin.bias.mul_(2)
        assert torch.equal(twin(x), 2 * expected), "a copy runs its own weights"

    at_once(multiplied(2.0), multiplied(3.0), multiplied(5.0), plain, doubled_copy, times=60)
    assert "forward" not in layer.__dict__


class ReadsKernels(nn.Module):
    """Attention that notes which of torch's kernels are switched on for the process while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.seen: list[bool] = []

    def forward(self, x):
        self.seen.append(torch.backends.cuda.flash_sdp_enabled())
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("explicit", [True, False])
def test_no_kernel_is_switched_off_for_the_process(explicit):
    attention = ReadsKernels().double()
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    spectrum = interaction_spectrum(attention, x, max_order=2, num_tuples=1, explicit=explicit)
    assert spectrum.location_order is None
    assert all(attention.seen)


def test_torchs_own_attention_module_has_second_derivatives():
    """Its fused kernel is called from inside a function of torch, and has none."""

    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    x = torch.randn(1, 6, 4, dtype=torch.float64)
    spectrum = interaction_spectrum(SelfAttention().double(), x, max_order=3, num_tuples=2, explicit=False)
    assert spectrum.location_order is None
    assert (spectrum.effects > 0).all()


def numbers(found: object) -> list[np.ndarray]:
    """What is compared of a result."""
    if isinstance(found, torch.Tensor):
        return [found.detach().numpy()]
    if isinstance(found, dict):
        return [array for value in found.values() for array in numbers(value)]
    return [np.asarray(value) for value in found]  # type: ignore[attr-defined]


def questions(model: nn.Module, images: torch.Tensor) -> list[Callable[[], list[np.ndarray]]]:
    """One of each kind, on the first block."""

    def spectra(scope: str, explicit: bool) -> list[np.ndarray]:
        found = model_interaction_spectra(
            model, images, blocks=[1], num_tuples=1, max_order=2, scope=scope, explicit=explicit, method="nested"
        )
        return [spectrum.effects for spectrum in found.values()]

    def maps() -> list[np.ndarray]:
        return numbers(model_mixing_weights(model, images, blocks=[1], keep=lambda weights: weights.channel_mean()))

    def adapted() -> list[np.ndarray]:
        found = model_adaptivity(model, images, blocks=[1])
        return [np.array([part.static_share.value, part.mean_distance.value]) for part in found.values()]

    def macs() -> list[np.ndarray]:
        return [np.array(list(count_macs(model, images.shape[-1]).by_column.values()))]

    def plain() -> list[np.ndarray]:
        with torch.no_grad():
            return numbers(model(images))

    return [
        lambda: spectra("block", True),
        lambda: spectra("mixer", False),
        maps,
        adapted,
        macs,
        plain,
    ]


@pytest.mark.parametrize("name", ["hornet_test_iso", "test_vit"])
def test_all_questions_at_once_on_one_model_and_its_replica(name):
    model = timm.create_model(name).eval() if name == "test_vit" else create_model(name)
    side = model.pretrained_cfg["input_size"][-1]
    images = torch.randn(1, 3, side, side)
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    replica = copy.deepcopy(model, shared)
    jobs = [*questions(model, images), *questions(replica, images)[2:]]
    expected = [job() for job in jobs]
    before = state(model), state(replica)
    for results, alone in zip(at_once(*jobs, times=2), expected, strict=True):
        for found in results:
            for array, other in zip(found, alone, strict=True):
                np.testing.assert_array_equal(array, other)
    assert (state(model), state(replica)) == before


def test_blocks_are_listed_at_once():
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = GnConv(3 + 1, 2)

        def forward(self, x):
            return self.layer(self.layer(x))

    model = Repeated()
    for names in chain(*at_once(*[lambda: [block.name for block in named_blocks(model)]] * 6, times=5)):
        assert names == ["layer", "layer#2"]
