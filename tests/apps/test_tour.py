"""The guided start, as a visitor goes through it, and the words above every page."""

import re

import pytest
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest
from test_public_viewer import VIEWER
from viewer_process import wait_until

from horinsight.models.packaged_weights import packaged_weights
from horinsight.viewer.service.choices import whole
from horinsight.viewer.service.tour import RESET, STEPS
from horinsight.viewer.views.lead import SENTENCES, WORDS


def lead_of(at: AppTest) -> list[str]:
    """What stands above the page."""
    return [one.proto.body for one in at.get("html") if 'class="lead"' in one.proto.body]


def visit(**address: str) -> AppTest:
    at = AppTest.from_file(VIEWER, default_timeout=60)
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    return at


def test_steps_are_on_pages_with_words_and_choose_what_is_reset():
    assert len(STEPS) == 5
    assert {step.page for step in STEPS} <= SENTENCES.keys()
    assert {step.page for step in STEPS} <= WORDS.keys()
    for step in STEPS:
        assert step.choices.keys() <= set(RESET)
        assert packaged_weights(step.choices["model"]), "the tour is on trained weights"


def test_the_first_page_says_what_this_is_and_the_tour_is_in_the_address():
    at = visit()
    (words,) = lead_of(at)
    assert "horinsight shows how positions act on each other" in words
    next(one for one in at.button if one.key == "tour_begin").click().run()
    (words,) = lead_of(at)
    assert "Tour, 1 of 5" in words
    assert at.query_params["tour"] == "1"
    assert at.query_params["image"] == "chelsea"
    next(one for one in at.button if one.key == "tour_next").click().run()
    assert "Tour, 2 of 5" in lead_of(at)[0]
    next(one for one in at.button if one.key == "tour_back").click().run()
    assert "Tour, 1 of 5" in lead_of(at)[0]
    next(one for one in at.button if one.key == "tour_end").click().run()
    assert "horinsight shows" in lead_of(at)[0]
    assert "tour" not in at.query_params
    assert at.query_params["image"] == "chelsea", "where it ended, everything stays"


@pytest.mark.parametrize("bad", ["6", "-1", "x", "<b>"])
def test_no_such_step(bad):
    with pytest.raises(ValueError, match="number"):
        whole(0, len(STEPS)).read([bad])


@pytest.mark.slow
def test_the_tour_goes_through_the_pages_and_back_undoes_a_step(visitor):
    page = visitor.page("/")
    page.get_by_role("button", name="Tour", exact=True).click()
    for number, step in enumerate(STEPS, 1):
        expect(page.get_by_role("heading", name=re.compile(f"Tour, {number} of 5"))).to_be_visible()
        wait_until(page, f"location.href.includes('/{step.page}?') && location.href.includes('tour={number}')")
        if number < len(STEPS):
            page.get_by_role("button", name="Next", exact=True).click()
    page.locator(".pairs[data-ready]").wait_for()
    page.get_by_role("link", name="Cost").first.click()
    page.get_by_role("button", name="Go on", exact=True).click()
    expect(page.get_by_role("heading", name=re.compile("Tour, 5 of 5"))).to_be_visible()
    wait_until(page, "location.href.includes('tour=5')")
    page.get_by_role("button", name="Back", exact=True).click()
    wait_until(page, "/attribution.*tour=4/.test(location.href)")
    page.get_by_role("button", name="End", exact=True).click()
    expect(page.get_by_role("button", name="Tour", exact=True)).to_be_visible()
