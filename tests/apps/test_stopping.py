"""Long work in the viewer ends at once when nobody waits for it: a stop, another choice, a closed tab."""

import os
import re
import time
from pathlib import Path

import pytest

from horinsight.cancellation import Cancelled, watched_by
from horinsight.interaction.measurement_cost import BESIDE
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.viewer.service import gate
from horinsight.viewer.service.block_spectra import STORE, Measurement, Store, measure
from horinsight.viewer.service.gate import Gate
from horinsight.viewer.service.model_pool import ModelKey, shared_model
from horinsight.viewer.service.model_room import SHARE, model_bytes
from horinsight.viewer.service.pictures import Source
from horinsight.viewer.service.settings import Settings
from horinsight.viewer.service.stopping import ShownProgress

LONG = "/spectra?model=test_vit&scope=block&kind=functional&max_order=5&tuples=256&ie_blocks=1"
MOVING = re.compile("measuring block .* · .* left")


def leaves_after(num: int):
    """Somebody who leaves at the num-th look."""
    looks = []

    def look(share: float | None) -> None:
        looks.append(share)
        if len(looks) == num:
            raise Cancelled

    return look


def test_the_bar_moves_within_a_part_and_says_what_is_left():
    now, shown = [0.0], []
    progress = ShownProgress(lambda share, words: shown.append((share, words)), 4, 1, clock=lambda: now[0])
    progress.start("block 2")
    for now[0], share in ((0.05, 0.2), (3.0, 0.3), (3.01, 0.4), (6.0, None), (12.0, 0.9)):
        progress.watch(share)
    progress.finish()
    progress.start("block 3")
    assert [round(share, 3) for share, _ in shown] == [0.25, 0.325, 0.35, 0.475, 0.5], "no more than ten times a second"
    assert [words for _, words in shown][:2] == ["block 2", "block 2 · about 25 s left"], "3 s for 0.3 of three"
    assert shown[-1][1] == "block 3 · about 25 s left"


def test_who_leaves_the_queue_waits_no_more():
    busy = Gate(2, wait_seconds=60)
    with busy.long_slot():
        start = time.monotonic()
        with watched_by(leaves_after(3)), pytest.raises(Cancelled), busy.long_slot():
            pass
        assert time.monotonic() - start < 5
    with busy.slot(), busy.slot():
        pass


@pytest.mark.parametrize("looks", [2, 40])
def test_a_measurement_that_is_not_wanted_gives_its_slot_back_and_leaves_nothing(looks):
    options = SpectrumOptions(scope="block", explicit=False, max_order=4, num_tuples=4, seed=looks)
    measurement = Measurement(ModelKey("hornet_test_iso"), "digit_1", options)
    with watched_by(leaves_after(looks)), pytest.raises(Cancelled):
        measure(measurement, 1, Source("digit_1"))
    assert STORE.get(measurement, 1) is None
    with gate.GATE.slot(), gate.GATE.slot():
        pass


def test_a_measurement_stays_within_the_memory_of_the_viewer(monkeypatch):
    from horinsight.viewer.service import block_spectra

    monkeypatch.setattr(block_spectra, "memory", lambda: 0.01)
    options = SpectrumOptions(scope="block", explicit=False, max_order=9, num_tuples=4)
    measurement = Measurement(ModelKey("hornet_digits_iso"), "digit_1", options)
    measure(measurement, 1, Source("digit_1"))
    assert "10 MB are given: ask for order" in STORE.get(measurement, 1)


def test_the_memory_of_the_viewer_is_that_of_all_it_does(monkeypatch):
    from horinsight.viewer.service import block_spectra

    for given in (8.0, 0.05):
        monkeypatch.setattr(block_spectra, "settings", lambda given=given: Settings((), None, given))
        taken = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
        left = given - int(taken) * 1024 / 1e9 - BESIDE / 1e9
        assert block_spectra.memory() == pytest.approx(max(left, block_spectra.LEAST_MEMORY), abs=0.2)


def test_models_leave_for_others_and_too_large_ones_are_refused(monkeypatch):
    from horinsight.viewer.service import model_pool

    size = model_bytes("hornet_test")
    taken = model_pool._bytes_of_libraries()
    monkeypatch.setattr(model_pool, "settings", lambda: Settings((), None, (taken + size * 1.1 / SHARE) / 1e9))
    first = shared_model(ModelKey("hornet_test_iso"))
    assert shared_model(ModelKey("hornet_test_iso")) is first
    with pytest.raises(ValueError, match=r"takes 778 MB, and .* are for models: choose a smaller one"):
        shared_model(ModelKey("hornet_large_7x7"))
    shared_model(ModelKey("hornet_test"))
    assert shared_model(ModelKey("hornet_test_iso")) is not first


def test_a_refusal_is_tried_again_after_a_while(monkeypatch):
    from horinsight.viewer.service import block_spectra

    store, measurement = Store(), Measurement(ModelKey("hornet_test_iso"), "digit_1", SpectrumOptions())
    store.put(measurement, 1, "refused")
    assert store.get(measurement, 1) == "refused"
    monkeypatch.setattr(block_spectra, "REFUSED_SECONDS", -1.0)
    assert store.get(measurement, 1) is None


# in a browser


def seconds_of_work(process_id: int) -> float:
    """Of a processor, that a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_a_closed_tab_frees_the_slot(visitor, server):
    page = visitor.page(LONG)
    page.get_by_role("button", name="Measure 1 block").click(timeout=120_000)  # the server may be at its start
    page.get_by_text(MOVING).wait_for(timeout=120_000)
    page.close()
    time.sleep(2)
    before, start = seconds_of_work(server.process.pid), time.monotonic()
    time.sleep(1)
    busy = (seconds_of_work(server.process.pid) - before) / (time.monotonic() - start)
    other = visitor.page(LONG.replace("ie_blocks=1", "ie_blocks=2"))
    other.get_by_role("button", name="Measure 1 block").click()
    other.get_by_text(MOVING).wait_for(timeout=120_000)  # the one slot for what is long is free
    other.get_by_role("button", name="Stop").click()
    other.get_by_role("button", name="Measure 1 block").wait_for(timeout=10_000)
    assert busy < 0.5, "nobody waits for anything"


@pytest.mark.slow
def test_stop_ends_a_method_that_runs(visitor):
    page = visitor.page("/attribution?model=test_vit&image=coffee&methods_class=shapley_value_sampling")
    page.get_by_role("button", name="Ask 1 method").click(timeout=120_000)
    page.get_by_text("shapley value sampling …").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Ask 1 method").wait_for(timeout=10_000)
    page.get_by_text("Press Ask").wait_for()
