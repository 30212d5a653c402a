"""Work that is watched: it says how far it is, ends where it is told to, and comes to the same numbers."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Attention
from torch import nn

from horinsight import interaction_spectrum
from horinsight.cancellation import Cancelled, pause, portion, watched_by
from horinsight.interaction import graph_meter
from horinsight.pauses import pauses_everywhere, pauses_in_graphs


class Leaves:
    """A watcher that leaves at a look."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.shares = at, []

    def __call__(self, share: float | None) -> None:
        self.shares.append(share)
        if len(self.shares) == self.at:
            raise Cancelled


def test_who_does_not_watch_sees_nothing_and_is_not_left_watching():
    seen = []
    pause(0.3)
    with suppress(KeyError), watched_by(seen.append), portion(0.5, 1.0):
        pause(0.5)
        pause()
        raise KeyError
    pause(0.9)
    with watched_by(seen.append):
        pause(0.25)
    assert seen == [0.75, None, 0.25]


def test_watching_within_watching_is_of_the_work_within():
    outer, inner = [], []
    with watched_by(outer.append), portion(0.0, 0.5):
        with watched_by(inner.append):
            pause(1.0)
        pause(1.0)
    assert (outer, inner) == ([0.5], [1.0])


def test_no_handler_of_errors_swallows_it():
    with pytest.raises(Cancelled), watched_by(Leaves(1)), suppress(Exception):
        pause()


@pytest.fixture
def attention():
    """Functional, (1, 17, 8), with dropout that training mode would use."""
    return Attention(8, num_heads=2, attn_drop=0.5).train(), torch.randn(1, 17, 8)


def spectrum(operator, x):
    return interaction_spectrum(operator, x, max_order=4, num_tuples=5, explicit=False, grid=(4, 4))


def test_watched_numbers_are_the_same_to_the_bit(attention, monkeypatch):
    alone = spectrum(*attention)
    monkeypatch.setattr(graph_meter, "LONG_SECONDS", -1.0)  # with pauses in the graphs of all chunks
    seen = Leaves()
    with watched_by(seen):
        watched = spectrum(*attention)
    assert alone == watched
    shares = [share for share in seen.shares if share is not None]
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 1
    assert len(seen.shares) > 2 * len(shares), "between chunks, and within them"


@pytest.mark.parametrize("at", [1, 7, 30])
def test_an_end_at_any_time_leaves_the_module_as_it_was(attention, at, monkeypatch):
    monkeypatch.setattr(graph_meter, "LONG_SECONDS", -1.0)
    module, x = attention
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(Cancelled), watched_by(Leaves(at)):
        spectrum(module, x)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.is_grad_enabled()
    assert spectrum(module, x) == spectrum(module, x), "and it can be measured again"


def test_one_call_of_autograd_ends_in_its_midst():
    x = torch.randn(4, requires_grad=True)
    with pauses_in_graphs():
        y = x
        for _ in range(500):
            y = (y * x).sin()
        for kept in (True, False):
            leaves = Leaves(3)
            with pytest.raises(Cancelled), watched_by(leaves):
                torch.autograd.grad(y.sum(), x, create_graph=kept, retain_graph=True)
            assert len(leaves.shares) == 3
        (gradient,) = torch.autograd.grad(y.sum(), x)
    z = x.detach().clone().requires_grad_()
    w = z
    for _ in range(500):
        w = (w * z).sin()
    assert torch.equal(gradient, torch.autograd.grad(w.sum(), z)[0])


def test_a_forward_pass_ends_between_two_functions():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20))).requires_grad_(False)
    x, leaves = torch.randn(2, 3), Leaves(5)
    with pauses_everywhere():
        assert torch.equal(model(x), model(x))
    with pytest.raises(Cancelled), watched_by(leaves), pauses_everywhere():
        model(x)
    assert len(leaves.shares) == 5


def test_pauses_cost_less_than_a_hundredth():
    """Of a chunk as long as those that have pauses in them: 32 tensors of what one chain of DeiT-S keeps."""
    start = time.thread_time()
    for _ in range(100_000):
        pause()
    a_pause = (time.thread_time() - start) / 100_000
    a, b = torch.randn(197, 384), torch.randn(384, 384)
    start = time.thread_time()
    for _ in range(graph_meter.TENSORS_BETWEEN):
        a = a @ b / 20
    assert a_pause < 0.01 * (time.thread_time() - start)
    assert np.isfinite(a).all()


SCRIPT = """
    import sys
    from horinsight.cli.main import exit_status
    from horinsight.interaction import operator_point

    measured = operator_point.measured_spectrum
    begun = []
    def said(*arguments, **options):
        print("began", file=sys.stderr, flush=True)
        begun.append(1)
        while len(begun) > 1:  # the second takes as long as it is let, however fast the machine
            measured(*arguments, **options)
        return measured(*arguments, **options)
    operator_point.measured_spectrum = said
    sys.exit(exit_status(sys.argv[1:]))
"""


def seconds_of_work(process_id: int) -> float:
    """Of a processor, that a process has used: a machine may have other work."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_sigterm_ends_a_block_half_way_and_keeps_those_before(tmp_path):
    output = tmp_path / "kept.json"
    options = ["ie", "--model", "hornet_test_iso", "--functional", "--method", "nested", "--max-order", "7"]
    options += ["--tuples", "8", "--output", str(output)]
    script = textwrap.dedent(SCRIPT)
    process = subprocess.Popen([sys.executable, "-c", script, *options], stderr=subprocess.PIPE, text=True)
    lines = [process.stderr.readline()]
    while lines.count("began\n") < 2:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    time.sleep(0.3)
    before = seconds_of_work(process.pid)
    process.send_signal(signal.SIGTERM)
    error = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    assert used.ru_utime + used.ru_stime - before < 2
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
    assert "1 of 3 blocks are kept in" in error
    assert error.splitlines()[-1] == "horinsight: interrupted"
    assert output.exists()
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
