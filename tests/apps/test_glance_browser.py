"""Maps at a glance in a real browser: the slider and the pointer without the server, a telephone, open menus."""

import re

import numpy as np
import pytest
from viewer_process import Visitor

pytestmark = pytest.mark.slow

STACK = ".stack[data-ready]"
PATIENCE = 150_000  # ms: the first visit of a server computes all blocks, also where others keep the machine busy
PIXELS = """canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"""


def cell(page, row: int, col: int, size: int = 14) -> tuple[float, float]:
    """Where a cell of the picture is on the page."""
    box = page.locator(".picker").bounding_box()
    return box["x"] + box["width"] * (col + 0.5) / size, box["y"] + box["height"] * (row + 0.5) / size


def pictures(page) -> list[np.ndarray]:
    """The pixels of all small maps."""
    return [np.array(one.evaluate(PIXELS)) for one in page.locator(".thumbs canvas").all()]


def depth(page, at: int) -> None:
    page.locator(f".stack[data-depth='{at}']").wait_for()


def test_slider_and_pointer_need_no_server_and_the_address_keeps_the_depth(visitor):
    visitor.context.set_default_timeout(PATIENCE)
    page = visitor.page("/blocks?row=2&col=3")
    page.locator(f"{STACK[:-1]}$=':2:3']").wait_for()
    page.locator(".tables[data-ready]").wait_for(state="attached")
    slider = page.get_by_role("slider", name="Depth")
    page.context.set_offline(True)
    slider.focus()
    slider.press("End")
    depth(page, 13)
    assert page.locator(".large b").inner_text() == "rollout"
    assert "first block's map contributes to the query" in page.locator(".stack .said").inner_text()
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    depth(page, 11)
    assert slider.get_attribute("aria-valuetext") == "block 12"
    page.mouse.move(*cell(page, 9, 10))
    page.locator(".stack[data-followed='9:10']").wait_for()
    followed, note = pictures(page), page.locator(".large .note").inner_text()
    page.mouse.move(1, 1)
    page.locator(".stack[data-followed='']").wait_for()
    page.context.set_offline(False)
    page.wait_for_url(re.compile("depth=12"))  # sent when the slider has come to rest

    page.mouse.click(*cell(page, 9, 10))
    page.locator(".stack[data-ready$=':9:10']").wait_for()
    page.mouse.move(1, 1)
    page.locator(".stack[data-followed='']").wait_for()
    depth(page, 11)
    assert page.locator(".large .note").inner_text() == note
    clicked = pictures(page)
    assert len(clicked) == len(followed) == 14
    for one, other in zip(clicked, followed, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 8, "halves move a colour by one of 256 at most"
        assert len(np.unique(one)) > 2

    page.get_by_role("button", name="Enlarge block 3").click()
    depth(page, 2)
    page.wait_for_url(re.compile("depth=3"))
    page.go_back()
    page.wait_for_url(re.compile("depth=12"))
    depth(page, 11)


def in_sight(page, selector: str) -> bool:
    box = page.locator(selector).first.bounding_box()
    return box["y"] >= 0 and box["y"] + box["height"] <= 844


def test_on_a_telephone_a_tap_brings_the_maps_in_sight(browser, server):
    one = Visitor(browser, server.url, viewport={"width": 390, "height": 844}, has_touch=True)
    one.context.set_default_timeout(PATIENCE)
    for path, maps in (("/", ".gallery"), ("/blocks", ".stack")):
        page = one.page(f"{path}?row=2&col=2")
        page.locator(f"{maps}[data-ready$=':2:2']").wait_for()
        assert not in_sight(page, f"{maps} .map"), "else the tap has nothing to do"
        page.locator(".picker").scroll_into_view_if_needed()
        page.touchscreen.tap(*cell(page, 5, 5))
        page.locator(f"{maps}[data-ready$=':5:5']").wait_for()
        for _ in range(600):  # it scrolls
            if in_sight(page, f"{maps} .map"):
                break
            page.wait_for_timeout(50)
        assert in_sight(page, f"{maps} .map")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        details = page.locator(f"{maps} .detail span")
        for detail in details.all():
            assert detail.evaluate("span => span.scrollWidth <= span.parentElement.clientWidth"), "nothing is cut off"
        page.close()
    one.close()


def overlap(one: dict, other: dict) -> float:
    """Pixels of width that two boxes share."""
    wide = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
    tall = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
    return max(0.0, wide) if tall > 0 else 0.0


def test_menus_leave_the_maps_in_sight_and_one_scale_says_its_numbers(browser, server):
    one = Visitor(browser, server.url, viewport={"width": 1440, "height": 900})
    one.context.set_default_timeout(PATIENCE)
    page = one.page("/?row=6&col=9")
    page.locator(".gallery[data-ready$=':6:9']").wait_for()
    for name in ("Blocks", "Display"):
        page.get_by_role("button", name=name).click()
        menu = page.locator("[data-testid=stPopoverBody]")
        menu.wait_for()
        page.wait_for_timeout(300)  # it moves while it opens
        for panel in page.locator(".gallery .map").all():
            assert overlap(menu.bounding_box(), panel.bounding_box()) < 1, name
        page.keyboard.press("Escape")
        menu.wait_for(state="hidden")
    page.get_by_text("One scale").click()
    page.wait_for_url(re.compile("one_scale=true"))
    page.locator(".tables[data-ready]").wait_for(state="attached")
    limits = set()
    for row in (1, 12):
        page.mouse.move(*cell(page, row, 4))
        page.locator(f".gallery[data-followed='{row}:4']").wait_for()
        notes = {note.inner_text() for note in page.locator(".gallery .note").all()}
        assert len(notes) == 1
        limits |= notes
        end = page.locator(".scale.signed .high").inner_text()
        assert notes == {f"max |h| {end.removeprefix('+')}"}
    assert len(limits) == 2, "the ends follow the pointer too"
    one.close()
