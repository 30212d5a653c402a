"""What visitors see where: menus beside the maps that they change, the page that is shown, and why a side is empty."""

import numpy as np
import pytest
from test_saved_results import maps
from viewer_process import wait_until

from horinsight.viewer.views.compare import empty_side

BODY = "[data-testid=stPopoverBody]"


def scaled(by: float):
    found = maps()
    return type(found)(**{**vars(found), "maps": {name: by * values for name, values in found.maps.items()}})


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [(1, 0.5, ""), (1, 0, ""), (1, 1 / 20, "B looks empty"), (1 / 60, 1, "A looks empty"), (1e9, 1, "1e+09 times")],
)
def test_a_side_that_one_scale_leaves_empty_is_told(first, second, said):
    found = empty_side([scaled(first), scaled(second)])
    assert said in found
    assert bool(found) == bool(said)


def test_cells_that_no_kernel_covers_do_not_count():
    holed = scaled(1e-3)
    holed.maps["a"][0, 0, 0] = np.nan
    assert "1000 times" in empty_side([scaled(1), holed]) or "1e+03 times" in empty_side([scaled(1), holed])


@pytest.mark.slow
def test_menus_do_not_lie_over_the_maps_that_they_change(visitor):
    page = visitor.page("/")
    page.set_viewport_size({"width": 1024, "height": 768})
    page.locator(".gallery[data-ready]").first.wait_for()
    left = page.locator(".gallery").first.bounding_box()["x"]
    for menu, words in (("Display", "Opacity of the maps"), ("Blocks", "Blocks, up to six")):
        page.get_by_role("button", name=menu, exact=True).click()
        page.locator(BODY).get_by_text(words).wait_for()
        wait_until(page, f"document.querySelector('{BODY}').getBoundingClientRect().right <= {left}")
        page.keyboard.press("Escape")
        page.locator(BODY).wait_for(state="detached")


@pytest.mark.slow
def test_a_telephone_shows_the_link_of_the_page_that_it_is_on(visitor):
    page = visitor.page("/results")
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_text("Nothing yet").wait_for()
    page.reload()
    page.locator(".st-key-page_here a", has_text="Results").wait_for()
    box = "document.querySelector('.st-key-page_here').getBoundingClientRect()"
    wait_until(page, f"{box}.left >= 0 && {box}.right <= 390")


@pytest.mark.slow
def test_places_to_drop_files_are_groups_with_a_name(visitor):
    page = visitor.page("/results?source=Upload")
    for name in ("Upload a picture", "One result or two, to look at or to compare"):
        page.get_by_role("group", name=name).wait_for()
