"""The tables that go to the browser, read back as the browser reads them."""

import json
import struct

import numpy as np
import torch

import horinsight
from horinsight.mixing.query_places import same_place
from horinsight.mixing.query_table import query_table
from horinsight.viewer.components.follow import tables_message


def tables_of(name: str, size: int, blocks: list[int] | None = None):
    torch.manual_seed(0)
    model = horinsight.create_model(name)
    found = horinsight.model_mixing_weights(model, torch.randn(1, 3, size, size), blocks=blocks)
    return {block: query_table(weights) for block, weights in found.items()}


def read_back(message: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<I", message[:4])
    assert length % 4 == 0
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def test_the_browser_finds_what_was_sent():
    tables = tables_of("hornet_test", 96)
    first = next(iter(tables.values())).size
    header, body = read_back(tables_message(tables, first, scope="gallery", stamp="x"))
    assert (header["scope"], header["stamp"]) == ("gallery", "x")

    def numbers(place: list[int], kind: type) -> np.ndarray:
        return np.frombuffer(body, kind)[place[0] : place[0] + place[1]]

    for name, table in tables.items():
        block = header["blocks"][name]
        values = numbers(block["values"], np.float32).reshape(-1, block["width"])
        np.testing.assert_array_equal(values, table.values)
        assert (block["cells"] is None) == (table.cells is None)
        if table.cells is not None:
            np.testing.assert_array_equal(numbers(block["cells"], np.int32), table.cells.ravel())
        assert (block["rows"], block["cols"]) == table.looked_at
        row, col = same_place((3, 2), first, table.size)
        assert numbers(block["places"], np.int32)[3 * first[1] + 2] == row * block["queryCols"] + col


def test_all_blocks_of_hornet_s_fit_into_one_and_a_half_megabytes():
    tables = tables_of("hornet_s_iso", 224)
    message = tables_message(tables, (14, 14), scope="gallery", stamp="x")
    assert len(read_back(message)[0]["blocks"]) == 13
    # 13 blocks of 196 queries, 49 values of 4 bytes each; the positions of one of them serve all
    assert 14 * 196 * 49 * 4 < len(message) < 1.5 * 2**20
    assert len(message) < 1.05 * 14 * 196 * 49 * 4


def test_what_does_not_fit_is_left_out():
    tables = tables_of("hornet_test", 96)
    header, body = read_back(tables_message(tables, (24, 24), scope="a", stamp="", max_bytes=1000))
    assert set(header["blocks"]) < set(tables)
    assert len(body) < 1000 + 4 * 24 * 24 * len(header["blocks"])
