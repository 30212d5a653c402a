"""Filters, classes, results and the paper in a real browser."""

import json
import re

import pytest
from test_saved_results import HOSTILE, maps
from viewer_process import wait_until

import horinsight
from horinsight.results import result_bytes

pytestmark = pytest.mark.slow

NAME = "![x](http:&#47;&#47;evil.invalid&#47;x.png) :red[r] $x$"


def test_a_result_is_dropped_in_looked_at_and_downloaded(visitor, tmp_path):
    page = visitor.page("/results")
    page.get_by_text("Nothing yet").wait_for()
    field = page.locator("input[type=file]")
    content = result_bytes(maps(), ".npz")
    field.set_input_files({"name": f"{NAME}.npz", "mimeType": "application/zip", "buffer": content})
    page.locator("img[alt^='Figure of QueryMaps']").wait_for()
    page.get_by_text(f"{NAME}.npz · QueryMaps").wait_for()
    page.get_by_text("random, seed 0 (untrained").wait_for()
    assert page.locator("img[src*='evil'], a[href*='evil'], .stMarkdownColoredText").count() == 0
    page.get_by_text("Download", exact=True).first.click()
    with page.expect_download() as waiting:
        page.locator("[data-testid=stDownloadButton] button", has_text="NPZ").click()
    waiting.value.save_as(tmp_path / "again.npz")
    assert horinsight.load_result(horinsight.QueryMaps, tmp_path / "again.npz") == maps()


def test_two_results_and_a_hostile_one(visitor):
    page = visitor.page("/results")
    field = page.locator("input[type=file]")
    files = [(f"{place}.json", result_bytes(maps(shift), ".json")) for place, shift in enumerate((0.0, 0.5))]
    field.set_input_files([{"name": name, "mimeType": "x/y", "buffer": content} for name, content in files])
    page.locator("img[alt^='Difference of']").wait_for()
    page = visitor.page("/results")
    name, content, words = HOSTILE["pickle"]
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "x/y", "buffer": content})
    page.locator(".told.error").get_by_text(words).wait_for()


def test_measuring_classes_is_stopped_and_goes_on(visitor):
    page = visitor.page("/classes?class_count=64&model=hornet_s_iso")  # half a minute, if nobody stopped it
    page.get_by_role("button", name="Measure 128 pictures").click()
    page.get_by_text(re.compile(r"class \d of 2, picture \d+ of 64")).first.wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name=re.compile(r"Measure (128|64) pictures")).wait_for()
    assert page.locator("img[alt^='Mean mixing weights']").count() == 0
    page.goto(visitor.own + "/classes?class_count=4&row=3&col=5")
    page.get_by_role("button", name="Measure 8 pictures").click()
    page.locator("img[alt^='Mean mixing weights']").wait_for()
    page.locator("img[alt^='Numbers of each class']").wait_for()
    assert page.get_by_label("Row, 0").input_value() == "3"
    page.get_by_label("Row, 0").fill("9")
    page.get_by_label("Row, 0").press("Enter")
    page.wait_for_url(re.compile("row=9"))


def test_filters_and_the_paper_by_the_menu_and_back(visitor):
    page = visitor.page("/")
    page.locator(".gallery[data-ready]").first.wait_for()
    page.get_by_text("More", exact=True).click()
    page.get_by_role("menuitem", name="Filters").click()
    page.locator(".filters figure").first.wait_for()
    assert page.locator(".filters figure").count() == 48
    page.get_by_text("More", exact=True).click()
    page.get_by_role("menuitem", name="The paper").click()
    page.get_by_role("radio", name="Figure 4").or_(page.get_by_role("button", name="Figure 4")).first.click()
    page.locator("img[alt^='Mixing weights']").wait_for()
    page.wait_for_url(re.compile(r"/paper\?part=Figure\+4"))
    page.go_back()
    page.wait_for_url(re.compile(r"/paper$"))
    page.go_back()
    page.locator(".filters figure").first.wait_for()
    wait_until(page, "document.title == 'Filters · horinsight'")


def test_hostile_content_of_a_file_is_plain_text(visitor):
    content = json.loads(result_bytes(maps(), ".json"))
    content["provenance"] |= {"model": NAME, "weights": "<img src=http://evil.invalid/y.png>"}
    content["convention"] = {"<script>": "http://evil.invalid"}
    page = visitor.page("/results")
    file = {"name": "a.json", "mimeType": "x/y", "buffer": json.dumps(content).encode()}
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("<img src=http://evil.invalid/y.png> (untrained").wait_for()
    assert page.locator("img[src*='evil'], a[href*='evil'], .stMarkdownColoredText").count() == 0
