"""All blocks at a glance, orders by place, and how maps look."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import horinsight
from horinsight.attribution.attribution_results import InteractionPlaces
from horinsight.cancellation import Cancelled, watched_by
from horinsight.capture import capture
from horinsight.data.images import sample_image
from horinsight.mixing.query_places import same_place
from horinsight.mixing.query_table import query_table
from horinsight.viewer.components.depth_stack import moved_to
from horinsight.viewer.components.follow import tables_message
from horinsight.viewer.components.map_panels import SIGNED_COLOURS, UNIFORM, Display, colours, map_scale, map_scales
from horinsight.viewer.service import all_blocks
from horinsight.viewer.service.all_blocks import (
    BLOCKS,
    ROLLOUT,
    ROLLOUTS,
    Seen,
    roll_out,
    rollout_table,
    see_all_blocks,
)
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.mixed import Mixed
from horinsight.viewer.service.model_pool import ModelKey, shared_model
from horinsight.viewer.service.orders_by_place import MEASURED, Places, measure_places, shown_orders
from horinsight.viewer.service.pictures import Source, prepared
from horinsight.viewer.views.glance import stack_maps, tables
from horinsight.viewer.views.orders import order_maps

VIEWER = str(Path(__file__).parents[2] / "apps" / "viewer.py")
COMPONENTS = Path(horinsight.__file__).parent / "viewer" / "components"
TINY, DIGITS = ModelKey("hornet_test"), ModelKey("hornet_digits_iso")
COFFEE = Source("coffee")


@pytest.fixture(scope="module")
def tiny() -> tuple[Mixed, horinsight.Rollout]:
    """All blocks of a small hierarchical network: maps of four sizes."""
    seen = Seen(TINY, "coffee")
    see_all_blocks(seen, COFFEE)
    roll_out(seen, COFFEE, "weights")
    found, rollout = BLOCKS.get(seen), ROLLOUTS.get((seen, "weights"))
    assert isinstance(found, Mixed), found
    assert isinstance(rollout, horinsight.Rollout), rollout
    return found, rollout


def test_the_small_maps_are_those_of_the_package(tiny):
    found, rollout = tiny
    size = found.map_size
    shared = shared_model(TINY)
    maps = stack_maps(found, (5, 17), rollout, "weights")
    expected = horinsight.query_maps(shared.replicas[0], found.picture.batch, [[(5, 17)]])
    assert [one.name for one in maps] == [*expected.maps, ROLLOUT]
    assert [one.title for one in maps] == [*(f"block {block.index}" for block in shared.blocks), "rollout"]
    assert len({one.values.shape for one in maps}) > 2, "stages of their own sizes"
    for one, (name, values) in zip(maps[:-1], expected.maps.items(), strict=True):
        np.testing.assert_allclose(one.values, values[0], rtol=1e-5, atol=1e-7 * np.abs(values).max())
        assert one.query == tuple(expected.queries[name][0])
    whole = horinsight.mixing_rollout(shared.replicas[0], found.picture.batch)
    row, col = same_place((5, 17), size, whole.out_size)
    last = maps[-1].values
    np.testing.assert_allclose(last.ravel(), whole.weights[0, row * whole.out_size[1] + col], rtol=1e-5)
    assert last.shape == size
    assert [one.apart for one in maps] == [False] * (len(maps) - 1) + [True]
    assert last.sum() == pytest.approx(1, rel=1e-5)


def test_prefix_tokens_are_no_place_of_the_rollout():
    weights = np.arange(25.0).reshape(1, 5, 5)
    rollout = horinsight.Rollout(weights, (2, 2), (2, 2), {})
    assert rollout_table(rollout).at(0, 1).tolist() == [[11, 12], [13, 14]], "row and column of the class token"


def read_back(message: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(message[:4], "little")
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def test_halves_are_as_exact_as_they_say_and_positions_are_whole(tiny):
    found, rollout = tiny
    header, body = read_back(tables("test", found, rollout))
    made = {name: query_table(weights) for name, weights in found.weights.items()} | {ROLLOUT: rollout_table(rollout)}
    assert set(header["blocks"]) == set(made)

    def numbers(place: list[int], kind: str) -> np.ndarray:
        return np.frombuffer(body, kind, place[1], offset=4 * place[0])

    for name, block in header["blocks"].items():
        table = made[name]
        scales = numbers(block["scales"], "<f4")[:, None]
        values = numbers(block["values"], "<f2").reshape(-1, block["width"]).astype(np.float64) * scales
        # a half has 11 bits; below 2^-14 of the largest its last bit is 2^-24, and rounding half of that
        np.testing.assert_array_less(
            np.abs(values - table.values), 1.01 * (np.abs(table.values) * 2.0**-11 + scales * 2.0**-25) + 1e-45
        )
        if table.cells is not None:
            assert block["smallCells"]
            np.testing.assert_array_equal(numbers(block["cells"], "<i2"), table.cells.ravel())


def test_all_blocks_and_the_rollout_fit_into_the_first_load():
    model = horinsight.create_model("hornet_s_iso")
    batch = horinsight.image_batch(model, [sample_image("chelsea")])
    made = {name: query_table(one) for name, one in horinsight.model_mixing_weights(model, batch).items()}
    made[ROLLOUT] = rollout_table(horinsight.mixing_rollout(model, batch))
    message = tables_message(made, (14, 14), scope="stack", stamp="", half=True)
    assert len(read_back(message)[0]["blocks"]) == 14
    # 13 blocks of 196 queries that see 49 places, and one that sees all; two bytes each, and 4 for each query's largest
    assert 2 * 196 * (13 * 49 + 196) < len(message) < 2 * 196 * (14 * 49 + 196 + 14 * 2 + 3) + 6000 < 0.5e6


def test_places_that_many_tables_share_are_counted_once():
    table = horinsight.query_table(
        horinsight.mixing_weights(torch.nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.randn(1, 4, 6, 6))
    )
    values, cells = table.values.nbytes, table.cells.nbytes
    header, _ = read_back(
        tables_message({"a": table, "b": table}, (6, 6), scope="", stamp="", max_bytes=values + cells + 36 * 4)
    )
    assert set(header["blocks"]) == {"a", "b"}


def test_a_rollout_beyond_the_memory_is_refused_in_one_line(monkeypatch):
    seen = Seen(TINY, "rocket")
    needed = all_blocks.rollout_gigabytes(shared_model(TINY))
    monkeypatch.setattr(all_blocks, "memory", lambda: needed / 2)
    roll_out(seen, Source("rocket"), "weights")
    said = ROLLOUTS.get((seen, "weights"))
    assert isinstance(said, str)
    assert "--memory" in said


@pytest.mark.parametrize("work", ["blocks", "weights", "influence", "places"])
def test_what_is_not_wanted_any_more_ends_and_leaves_nothing(work):
    source = Source("motorcycle")
    prepared(source, TINY)
    seen, places, looks = Seen(TINY, "motorcycle"), Places(TINY, "motorcycle", 2, (1, 1), 2), []

    def leave(_: float | None) -> None:
        looks.append(1)
        if len(looks) > 20:
            raise Cancelled

    begun = {
        "blocks": partial(see_all_blocks, seen, source),
        "weights": partial(roll_out, seen, source, "weights"),
        "influence": partial(roll_out, seen, source, "influence"),
        "places": partial(measure_places, places, 2, source),
    }
    with watched_by(leave), pytest.raises(Cancelled):
        begun[work]()
    assert MEASURED.get((places, 2)) is None
    assert BLOCKS.get(seen) is None
    assert ROLLOUTS.get((seen, "weights")) is None
    with GATE.long_slot(), GATE.slot():
        pass
    with capture({"": shared_model(TINY).replicas[0]}) as calls:  # nothing is borrowed any more
        shared_model(TINY).replicas[0](torch.randn(1, 3, 96, 96))
    assert len(calls[""]) == 1


def test_orders_by_place_end_at_the_order_of_the_design():
    (block,) = (one for one in shared_model(TINY).blocks if one.index == 2)
    size = shared_model(TINY).map_sizes[block.name]
    places = Places(TINY, "coffee", 2, (4, 6), 2)
    assert shown_orders(block) == list(range(1, block.order + 2))
    assert {one.note for one in order_maps(places, block, size)} == {"not measured"}
    for order in shown_orders(block):
        measure_places(places, order, COFFEE)
    *within, beyond = order_maps(places, block, size)
    rows, columns = np.indices(size)
    near = (abs(rows - 4) <= 3) & (abs(columns - 6) <= 3) & ~((rows == 4) & (columns == 6))
    for order, one in enumerate(within, 1):
        np.testing.assert_array_equal(
            one.values > 0, near, err_msg=f"the 7x7 around the query, without it, k = {order}"
        )
        assert not one.note
    assert not beyond.values.any()
    assert beyond.note == "exactly 0"
    assert beyond.said.startswith(f"Exactly 0: there are no {block.order + 1} neighbours")
    found = MEASURED.get((places, 1))
    assert isinstance(found, InteractionPlaces)
    assert found.provenance.images == (prepared(COFFEE, TINY).label,)


def visit(**address: str) -> AppTest:
    """The page of all blocks."""
    at = AppTest.from_file(VIEWER, default_timeout=60)
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    at._page_hash = next(key for key, page in at._registered_pages.items() if page["page_name"] == "All blocks")
    at.run()
    assert not at.exception, [one.value for one in at.exception]
    return at


def sent(at: AppTest, key: str) -> dict:
    return json.loads(at.get_by_key(key).proto.json)


def send(at: AppTest, key: str, **what: object) -> None:
    """Send what a component would."""
    states = at._tree.get_widget_states()
    states.widgets.add(id=at.get_by_key(key).proto.id, json_value=json.dumps(what))
    at._run(states)
    assert not at.exception, [one.value for one in at.exception]


def test_the_page_of_all_blocks_keeps_depth_and_query():
    at = visit(row="4", col="9", image="digit_8", depth="12")
    data = sent(at, "stack")
    model = horinsight.create_model(DIGITS.name)
    batch = horinsight.image_batch(model, [sample_image("digit_8")])
    expected = horinsight.query_maps(model, batch, [[(4, 9)]])
    assert len(data["panels"]) == 14
    assert data["at"] == 11
    for panel, values in zip(data["panels"], expected.maps.values(), strict=False):
        shown = np.array([0.0 if value is None else value for value in panel["values"]]).reshape(14, 14)
        np.testing.assert_allclose(shown, values[0], rtol=1e-4, atol=1e-5 * np.abs(values).max())
    assert "first block's map contributes" in data["panels"][-1]["said"]
    send(at, "stack", depth={"at": 13})
    assert at.session_state["depth"] == ROLLOUT
    assert sent(at, "stack")["at"] == 13
    for nonsense in ({"at": 14}, {"at": "x"}, {}, 3, {"at": -1}, {"at": None}):
        send(at, "stack", depth=nonsense)
        assert at.session_state["depth"] == ROLLOUT
    send(at, "stack", cell={"panel": 3, "row": 1, "col": 2})
    assert (at.session_state["row"], at.session_state["col"]) == (1, 2)
    assert all(panel["query"] == [1, 2] for panel in sent(at, "stack")["panels"])


def test_the_page_of_orders_measures_and_says_exactly_0():
    at = visit(row="4", col="9", show="Orders", orderings="2", order="6")
    data = sent(at, "orders")
    assert [panel["title"] for panel in data["panels"]] == [f"k = {order}" for order in range(1, 7)]
    assert [panel.get("empty") for panel in data["panels"]] == [None] * 5 + ["exactly 0"]
    assert data["at"] == 5
    assert data["stamp"].endswith(":6:4:9")


def test_what_the_slider_sends_is_taken_only_where_it_is_a_place(monkeypatch):
    import streamlit as st

    monkeypatch.setattr(st, "session_state", {"stack": {"depth": {"at": 2}}, "other": {}})
    assert moved_to("stack", 3) == 2
    assert moved_to("stack", 2) is None
    assert moved_to("other", 2) is None


# how maps look


def lab(colour: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of sRGB from 0 to 255, white point D65 (IEC 61966-2-1 and CIE 15)."""
    share = np.asarray(colour, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = matrix @ linear / matrix.sum(1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_colours_are_measured_as_they_are_published():
    np.testing.assert_allclose(lab(np.array([255, 0, 0])), [53.24, 80.09, 67.20], atol=0.05)
    np.testing.assert_allclose(lab(np.array([255, 255, 255])), [100, 0, 0], atol=0.02)


@pytest.mark.parametrize("name", [*SIGNED_COLOURS, "viridis"])
@pytest.mark.parametrize("sign", [1, -1])
def test_cells_at_half_and_at_two_thirds_of_the_limit_are_told_apart(name, sign):
    table = np.array(colours(name)).reshape(256, 3)

    def shown(share: float, below: float) -> np.ndarray:
        place = (1 + sign * share) / 2 if name != "viridis" else share
        opacity = Display().opacity
        return lab(table[round(place * 255)] * opacity + below * (1 - opacity))

    pictures = (70.0, 255.0)  # black and white, as the light grey picture shows them
    for below in pictures:
        for other in pictures:  # the two cells lie on different parts of the picture
            assert np.linalg.norm(shown(0.48, below) - shown(0.69, other)) >= 10  # CIE76


def test_nearly_uniform_maps_say_so_and_do_not_fill_the_scale():
    generator = np.random.default_rng(0)
    found = map_scale(generator.uniform(4.7e-3, 5.6e-3, (14, 14)))
    assert found.uniform
    assert found.note == "nearly uniform, 4.7e-03 to 5.6e-03"
    assert found.low == 0
    edge = np.array([[1.0, 1 + UNIFORM], [1.25, 1.25]])  # the mean is 1.25, the spread 0.5
    assert map_scale(edge).uniform
    structured = map_scale(np.array([[1.0, 2.0], [1.0, 1.0]]))
    assert not structured.uniform
    assert (structured.low, structured.high) == (1.0, 2.0)
    assert not map_scale(np.array([[1.0, -1.05], [1.02, 1.0]])).uniform
    assert map_scale(np.zeros((2, 2))).note == "all 0"
    maps = [np.ones((2, 2)), np.full((2, 2), 9.0), np.array([[70.0, 700.0]])]
    together = map_scales(maps, one_scale=True, apart=[False, False, True])
    assert together[0] == together[1] == map_scale(np.array([1.0, 9.0]))
    assert together[2] == map_scale(maps[2])


def test_the_browser_has_the_same_rule():
    script = (COMPONENTS / "maps.js").read_text()
    assert float(re.search(r"const UNIFORM = ([\d.]+);", script).group(1)) == UNIFORM


def test_a_digit_is_shown_whole_and_a_cropped_one_is_said():
    picture = prepared(Source("digit_3"), DIGITS)
    whole = sample_image("digit_3").convert("L").resize((56, 56), 3)
    np.testing.assert_array_equal(picture.view[..., 0], np.array(whole))
    assert picture.said.startswith("The whole digit")
    assert not prepared(COFFEE, TINY).said
