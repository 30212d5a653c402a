"""What a measurement is said to cost, beside what its graphs hold; and that it stays within what it is given."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from horinsight import InteractionSpectrum, SpectrumOptions, interaction_spectrum, measurement_cost
from horinsight.interaction import graph_meter, nested_draws
from horinsight.interaction import measurement_cost as module
from horinsight.interaction.graph_growth import BYTES_RATE, GraphGrowth, continued, rate
from horinsight.memory_budget import budget_bytes, free_bytes
from horinsight.models.gnconv import GnConv
from horinsight.options import fingerprint

MB = 2**20


def held_bytes(operator: nn.Module, x: Tensor, order: int) -> int:
    """Of all distinct tensors that the graph of one chain keeps when D_order is to be taken from it; written out."""
    pieces: dict[int, int] = {}

    def kept(tensor: Tensor) -> Tensor:
        pieces[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    generator = torch.Generator().manual_seed(3)
    z = x[:1].clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        output = operator(z)
        output = output.flatten(2).transpose(1, 2) if output.ndim == 4 else output
        scalar = output[0, 5] @ torch.randn(output.shape[2], generator=generator, dtype=x.dtype)
        for _ in range(order):
            (gradient,) = torch.autograd.grad(scalar, z, create_graph=True)
            scalar = (gradient * torch.randn(z.shape, generator=generator, dtype=x.dtype)).sum()
    return sum(pieces.values())


def tokens() -> Tensor:
    return torch.randn(1, 64, 48)


def a_map() -> Tensor:
    return torch.randn(1, 32, 12, 12)


def smooth_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 32, 1), nn.Sigmoid())


NETWORKS = {
    "attention": (lambda: Attention(48, num_heads=4), tokens),
    "transformer block": (lambda: Block(48, num_heads=4), tokens),
    "convolutions": (smooth_convolutions, a_map),
    "normalised": (lambda: nn.Sequential(nn.GroupNorm(1, 32), nn.Conv2d(32, 32, 3, padding=1), nn.Softplus()), a_map),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_hold_what_is_predicted_from_three_orders(name, monkeypatch):
    """Measured ≤ 1.1 times what is predicted, and ≥ a third of it, up to four orders above those that are run."""
    monkeypatch.setattr(module, "DRY_SECONDS", 0.0)
    build, point = NETWORKS[name]
    operator, x = build().eval().requires_grad_(False), point()
    for part in operator.modules():
        if isinstance(part, Attention):
            part.fused_attn = False  # the fused kernels have no second derivative
    seen: list[GraphGrowth] = []
    monkeypatch.setattr(module, "first_growth", lambda *a, **kw: seen.append(found := found_by(*a, **kw)) or found)
    found_by = nested_draws.first_growth
    grid = {"grid": (8, 8)} if x.ndim == 3 else {}
    cost = measurement_cost(operator, x, max_order=7, explicit=False, num_tuples=4, batch_size=1, **grid)
    growth = seen[0][0]
    assert cost.num_orders_run == growth.num_orders == graph_meter.SETTLED
    for order in (2, 4, 5, 7):
        predicted = continued(growth.tensor_bytes, order - 1, rate(growth.tensor_bytes, BYTES_RATE))
        measured = held_bytes(operator, x, order)
        assert predicted / 3 <= measured <= 1.1 * predicted, (order, measured / predicted)
        assert growth.graph_bytes(order) >= predicted, "nodes take some as well"
    assert (np.diff(cost.memory_bytes) > 0).all()
    assert (np.diff(cost.seconds) > 0).all()


def test_a_polynomial_costs_no_more_above_its_degree():
    """Explicit attention is of degree 3 in x: D_3 and all beyond are zero, and no graph is made for them."""
    cost = measurement_cost(Attention(48, num_heads=4), tokens(), max_order=9, grid=(8, 8), memory=1.0)
    assert cost.memory_bytes[3] == cost.memory_bytes[9]
    assert cost.fits
    assert cost.highest_order == 9
    assert "about" in str(cost)


def test_a_closed_form_costs_little_at_any_order():
    cost = measurement_cost(GnConv(16, 4), torch.randn(2, 16, 9, 9), max_order=6, num_tuples=100)
    assert cost.num_chains == 200
    assert cost.convention["estimator"] == "closed form"
    assert cost.fits
    assert cost.memory_bytes[0] == cost.memory_bytes[-1] < 300 * MB


def test_continued_is_the_geometric_sum():
    seen = [5.0, 7.0, 11.0]
    expected = list(seen)
    for k in range(1, 6):
        expected.append(expected[-1] + 4 * 2.5**k)
    assert [continued(seen, k, 2.5) for k in range(8)] == pytest.approx(expected)
    assert continued([1.0, 2.0], 100_000, 2.0) == float("inf")


@pytest.fixture
def network():
    """An operator in float64, and its point."""
    torch.manual_seed(1)
    return Attention(24, num_heads=2).double().eval(), torch.randn(1, 25, 24, dtype=torch.float64)


def spectrum(network, order: int, memory: float | None, **options) -> InteractionSpectrum:
    operator, x = network
    return interaction_spectrum(
        operator, x, max_order=order, num_tuples=6, explicit=False, memory=memory, grid=(5, 5), **options
    )


def test_fewer_chains_at_a_time_within_little_memory_and_the_same_numbers(network, monkeypatch):
    sizes = []
    nested = nested_draws.nested_derivatives
    monkeypatch.setattr(
        nested_draws,
        "nested_derivatives",
        lambda operator, x, *a, **kw: sizes.append(len(x)) or nested(operator, x, *a, **kw),
    )
    much, little = spectrum(network, 3, 4.0), spectrum(network, 3, 0.0015)
    assert sizes[:2] == [1, 5]
    assert max(sizes[4:]) < 5
    np.testing.assert_allclose(little.effects, much.effects, rtol=1e-11)
    assert (little.location_order, little.degree_order) == (much.location_order, much.degree_order)


def test_what_does_not_fit_is_refused_and_what_is_named_instead_fits(network, monkeypatch):
    held = []
    kept = graph_meter.GraphMeter._kept
    monkeypatch.setattr(
        graph_meter.GraphMeter, "_kept", lambda self, t: (kept(self, t), held.append(self.storage_bytes))[0]
    )
    memory = 0.004
    with pytest.raises(ValueError, match=r"One chain of order 20 would take about .*, and 4 MB are given: ask") as said:
        spectrum(network, 20, memory)
    assert max(held) < memory * 1e9
    named = int(str(said.value).partition("order ")[2].partition("ask for order ")[2].split()[0])
    assert 3 <= named <= 8
    assert len(spectrum(network, named - 1, memory).effects) == named, "it is said of about what fits"
    held.clear()
    with pytest.raises(ValueError, match="One chain of order"):
        spectrum(network, named + 3, memory)
    assert max(held) < memory * 1e9
    with pytest.raises(ValueError, match="give more memory"):
        spectrum(network, 1, 1e-6)
    operator, x = network
    cost = measurement_cost(operator, x, max_order=20, explicit=False, memory=memory, grid=(5, 5))
    assert not cost.fits
    assert abs(cost.highest_order - named) <= 2
    assert f"order {cost.highest_order} at most" in str(cost)


def test_memory_changes_no_result():
    assert fingerprint(SpectrumOptions(memory=1.0)) == fingerprint(SpectrumOptions())
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="memory expects a number above 0"):
            SpectrumOptions(memory=wrong)
    with pytest.raises(TypeError, match="expects max_order"):
        measurement_cost(GnConv(8, 2), torch.randn(1, 8, 5, 5))


def write(root, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_is_free_is_the_least_that_anybody_allows(tmp_path):
    assert free_bytes(tmp_path) == 4e9, "where nobody says anything"
    write(tmp_path, "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:    3000000 kB\n")
    assert free_bytes(tmp_path) == 3_000_000 * 1024
    write(tmp_path, "proc/self/cgroup", "0::/outer/inner\n")
    group = "sys/fs/cgroup/outer"
    write(tmp_path, f"{group}/inner/memory.max", "max\n")
    write(tmp_path, f"{group}/inner/memory.current", "1000\n")
    assert free_bytes(tmp_path) == 3_000_000 * 1024
    write(tmp_path, f"{group}/memory.max", "2000000000\n")
    write(tmp_path, f"{group}/memory.current", "900000000\n")
    write(tmp_path, f"{group}/memory.stat", "anon 5\ninactive_file 400000000\n")
    assert free_bytes(tmp_path) == 1_500_000_000
    write(tmp_path, "proc/self/cgroup", "5:cpu:/\n4:memory:/there/not/visible\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "700000000\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", "800000000\n")
    assert free_bytes(tmp_path) == 0.0


def test_the_budget_is_what_is_said_where_it_is_said(monkeypatch):
    monkeypatch.delenv("HORINSIGHT_MEMORY", raising=False)
    assert budget_bytes(2.0) == 2e9
    assert budget_bytes(free=1e9) == 5e8
    monkeypatch.setenv("HORINSIGHT_MEMORY", "1.5")
    assert (budget_bytes(), budget_bytes(2.0)) == (1.5e9, 2e9)
    for wrong in ("lots", "-1", "nan", "inf"):
        monkeypatch.setenv("HORINSIGHT_MEMORY", wrong)
        with pytest.raises(ValueError, match=r"HORINSIGHT_MEMORY .* expects gigabytes, a number above 0"):
            budget_bytes()


SCRIPT = """
import ctypes
from contextlib import nullcontext
from horinsight.memory_budget import OWN_PIECE, compact_memory

C = ctypes.CDLL(None)
C.malloc.restype = C.memset.restype = ctypes.c_void_p

def left_of_every_second(context):
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
    with context:
        before = resident()
        pieces = [ctypes.c_void_p(C.malloc(OWN_PIECE)) for _ in range(800)]
        for piece in pieces:
            C.memset(piece, 1, OWN_PIECE)
        whole = resident() - before
        for piece in pieces[::2]:
            C.free(piece)
        return (resident() - before) / whole

with compact_memory(), compact_memory():
    pass
compact = left_of_every_second(compact_memory())
print(left_of_every_second(nullcontext()), compact)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="another C library has no such threshold")
def test_compact_memory_gives_back_what_lies_between():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.split()
    usual, compact = map(float, said)
    assert usual > 0.9, "on the heap nothing that lies between is given back"
    assert compact < 0.6
