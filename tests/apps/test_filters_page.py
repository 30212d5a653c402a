"""The page of filters: every channel once, sorted by what is said."""

import re
from dataclasses import replace

import numpy as np
from streamlit.testing.v1 import AppTest
from test_service import DIGITS, said, told, turn_to, visit

from horinsight.viewer.service.block_filters import blocks_with_filters, filters_of, ordered_channels
from horinsight.viewer.service.model_pool import shared_model
from horinsight.viewer.service.pictures import Source


def page_of(**address: str) -> AppTest:
    at = turn_to(visit(**address), "Filters").run(timeout=60)
    assert not at.exception, [one.value for one in at.exception]
    return at


def channels(at: AppTest) -> list[int]:
    return [int(number) for number in re.findall(r"<figcaption><b>(\d+)</b>", said(at))]


def test_channels_are_sorted_and_paged():
    found = filters_of(Source("digit_3"), DIGITS, 8, None)
    order = ordered_channels(found, "adaptivity").tolist()
    assert sorted(order) == list(range(64))
    assert (np.diff(found.location_adaptivity[order]) <= 0).all()
    first = page_of(filter_block="8")
    assert channels(first) == order[:48]
    assert "Sorted by adaptivity" in said(first)
    assert f"adapts {found.location_adaptivity[order[0]]:.3f}" in said(first)
    assert channels(page_of(filter_block="8", filter_page="2")) == order[48:]
    by_norm = ordered_channels(found, "norm").tolist()
    assert channels(page_of(filter_block="8", filter_order="norm")) == by_norm[:48]


def test_what_does_not_adapt_is_sorted_by_its_norm_and_says_so():
    at = page_of(model="convnext_tiny", image="coffee")
    assert "No weight of this block adapts, so that they are sorted by norm" in said(at)
    assert len(channels(at)) == 48


def test_attention_has_no_filters(monkeypatch):
    monkeypatch.setattr("horinsight.viewer.views.filters.blocks_with_filters", lambda blocks: [])
    assert any("attention alone" in line for line in told(page_of(), "info"))
    attention = replace(shared_model(DIGITS).blocks[0], mixer="window_attention")
    assert blocks_with_filters((*shared_model(DIGITS).blocks[:2], attention)) == list(shared_model(DIGITS).blocks[:2])
