"""The viewer in a real browser, as people use it."""

import csv
import io
import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NAN_WEIGHTS
from PIL import Image
from viewer_process import Server, Visitor, wait_until

import horinsight
from horinsight.attribution.picture_baselines import black_colour
from horinsight.data.images import read_image, sample_image
from horinsight.mixing.map_difference import map_difference
from horinsight.viewer.service.gate import Gate

pytestmark = pytest.mark.slow

READY = ".gallery[data-ready]"
BLOCKS = list(horinsight.FIGURE_4_BLOCKS)


def ready(page, ending: str = "", where: str = ".st-key-gallery") -> str:
    """Wait until maps are painted whose stamp ends so."""
    found = page.locator(f"{where} .gallery[data-ready$='{ending}']" if ending else f"{where} {READY}")
    found.first.wait_for()
    return found.first.get_attribute("data-ready")


def click_cell(page, row: int, col: int, size: int = 14) -> None:
    picker = page.locator(".picker")
    box = picker.bounding_box()
    picker.click(position={"x": box["width"] * (col + 0.5) / size, "y": box["height"] * (row + 0.5) / size})


def values_at(page, row: int, col: int, size: int = 14, panel: int = 0) -> list[float]:
    """What the page says of position j, by hovering over a map."""
    box = page.locator(".map").nth(panel).bounding_box()
    page.mouse.move(box["x"] + box["width"] * (col + 0.5) / size, box["y"] + box["height"] * (row + 0.5) / size)
    text = page.locator(".read").inner_text()
    assert text.startswith(f"j = row {row}, column {col}:"), text
    said = re.findall(r"block \d+ (?:\(\d+, \d+\) )?([+−]?[\d.e+-]+)", text.replace("\u2212", "-").replace("+", ""))
    return [float(value) for value in said]


def maps_of(model_name: str, image: Image.Image, query: tuple[int, int], **options):
    model = horinsight.create_model(model_name)
    batch = horinsight.image_batch(model, [image])
    return horinsight.query_maps(model, batch, [[query]], model_name=model_name, **options)


def upload(page, name: str, content: bytes, kind: str = "image/png") -> None:
    page.get_by_role("radio", name="Upload").or_(page.get_by_role("button", name="Upload", exact=True)).first.click()
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": kind, "buffer": content})


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, without the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * 64)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", rows)
    )


def test_a_click_shows_the_numbers_of_the_package(visitor):
    page = visitor.page()
    ready(page)
    click_cell(page, 6, 9)
    ready(page, ":6:9")
    page.wait_for_url(re.compile(r"row=6&col=9"))  # the address follows the maps
    expected = maps_of("hornet_digits_iso", sample_image("digit_3"), (6, 9), blocks=BLOCKS)
    for j in ((5, 8), (6, 9), (8, 11)):
        found = values_at(page, *j)
        np.testing.assert_allclose(found, [values[0][j] for values in expected.maps.values()], rtol=6e-3)
    assert values_at(page, 0, 0) == [0.0] * 6, "beyond the kernel"
    assert page.get_by_label("Row, 0").input_value() == "6"
    assert "Prediction" in page.locator("body").inner_text()
    page.get_by_label("Row, 0").fill("2")
    page.get_by_label("Row, 0").press("Enter")
    ready(page, ":2:9")


def test_maps_follow_the_pointer_without_the_server_and_a_path_is_played(visitor):
    page = visitor.page("/?row=1&col=2")
    ready(page, ":1:2")
    page.locator(".tables[data-ready]").wait_for(state="attached")
    before = values_at(page, 1, 2)
    page.locator(".map").first.focus()
    box = page.locator(".picker").bounding_box()
    point = lambda row, col: (box["x"] + box["width"] * (col + 0.5) / 14, box["y"] + box["height"] * (row + 0.5) / 14)  # noqa: E731
    page.context.set_offline(True)  # nothing more comes from the server
    for query in ((0, 0), (6, 9), (13, 4)):
        page.mouse.move(*point(*query))
        page.locator(f".gallery[data-followed='{query[0]}:{query[1]}']").wait_for()
        page.keyboard.press("ArrowUp" if query[0] else "ArrowDown")
        expected = maps_of("hornet_digits_iso", sample_image("digit_3"), query, blocks=BLOCKS)
        text = page.locator(".read").inner_text().replace("\u2212", "-").replace("+", "")
        j = tuple(int(number) for number in re.match(r"j = row (\d+), column (\d+):", text).groups())
        found = [float(value) for value in re.findall(r"block \d+ ([-\d.e]+)", text)]
        np.testing.assert_allclose(found, [values[0][j] for values in expected.maps.values()], rtol=6e-3)
    page.mouse.move(*point(2, 2))
    page.mouse.down()
    for cell in ((2, 4), (4, 4), (4, 2)):
        page.mouse.move(*point(*cell))
    page.mouse.up()
    page.mouse.move(1, 1)
    for cell in ("4:2", "2:2", "4:4"):  # goes round by itself
        page.locator(f".gallery[data-followed='{cell}']").wait_for()
    page.locator(".play").click()
    assert "Play" in page.locator(".play").inner_text()
    page.locator(".picker").press("Escape")
    assert page.locator(".play").is_hidden()
    page.locator(".gallery[data-followed='']").wait_for()
    assert "row=1" in page.url, "a path chooses nothing"
    page.context.set_offline(False)
    assert values_at(page, 1, 2) == before


def test_the_keyboard_reaches_what_the_mouse_does(visitor):
    page = visitor.page("/?row=5&col=5")
    ready(page, ":5:5")
    page.locator(".picker").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    ready(page, ":7:4")
    assert page.locator(".picker .said").inner_text() == "row 7, column 4"
    assert "row 7, column 4" in page.locator(".picker").get_attribute("aria-label")
    page.locator(".map").nth(2).focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".read").inner_text().startswith("j = row 7, column 5:")
    page.keyboard.press("Enter")
    ready(page, ":7:5")
    images = page.locator("img").all()
    assert images
    assert all(image.get_attribute("alt") is not None for image in images)
    assert (
        page.locator(".map")
        .first.get_attribute("aria-label")
        .startswith("block 1 (blocks.0.gnconv): weights from row 7")
    )


def test_uploads(visitor):
    page = visitor.page("/?model=hornet_tiny_7x7&image=coffee")
    first = ready(page)
    assert "Untrained weights of hornet_tiny_7x7" in page.locator("body").inner_text()
    photograph = jpeg(sample_image("rocket"))
    upload(page, "my rocket.jpg", photograph, "image/jpeg")
    page.locator(f".gallery[data-ready]:not([data-ready='{first}'])").wait_for()
    click_cell(page, 3, 10)
    ready(page, ":3:10")
    shown = [int(block) for block in ready(page).split(":")[2].split(",")]
    assert shown == [6, 9, 13, 16, 20, 23]
    expected = maps_of("hornet_tiny_7x7", read_image(photograph), (3, 10), blocks=shown)
    np.testing.assert_allclose(values_at(page, 4, 9), [values[0][4, 9] for values in expected.maps.values()], rtol=6e-3)


def hostile() -> dict[str, tuple[bytes, str]]:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "PNG")
    flipped = bytearray(whole.getvalue())
    flipped[len(flipped) // 2] ^= 0xFF
    return {
        "text": (b"not a picture at all", "is not a picture"),
        "empty": (b"", "is not a picture"),
        "cut": (whole.getvalue()[:900], "is damaged or cut short"),
        "flipped": (bytes(flipped), "is damaged or cut short"),
        "header": (b"\x89PNG\r\n\x1a\nbroken", "is not a picture|is damaged"),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is not a picture"),
        "bomb": (png_header(20_000, 20_000), "has .*megapixels"),
        "tiny": (png_header(1, 1), "has .*at least 8 a side"),
        "long": (png_header(5_000, 20), "has .*times as long as wide"),
    }


def test_hostile_uploads_are_one_message_each_and_the_page_goes_on(visitor, server):
    page = visitor.page()
    ready(page)
    before = server.memory_mb()
    for _ in range(2):
        for name, (content, message) in hostile().items():
            upload(page, f"{name}.png", content)
            alert = page.locator(".told")
            alert.filter(has_text=re.compile(f"{name}.png ({message})")).first.wait_for()
            assert alert.count() == 1, name
    upload(page, "fine.png", hostile_free_png())
    ready(page)
    assert server.memory_mb() < before + 200


def hostile_free_png() -> bytes:
    """Pictures that are unusual and fine: CMYK, alpha, 16 bits are in tests/data/test_images.py."""
    stream = io.BytesIO()
    Image.new("LA", (40, 50), (200, 128)).save(stream, "PNG")
    return stream.getvalue()


def test_a_file_of_30_mb_is_refused(visitor, server):
    page = visitor.page()
    ready(page)
    before = server.memory_mb()
    upload(page, "large.png", b"\x89PNG\r\n\x1a\n" + bytes(30 * 2**20))
    page.get_by_text(re.compile("must be 10.*MB or smaller")).first.wait_for()
    assert server.memory_mb() < before + 100


def test_models_steps_and_channels(visitor):
    page = visitor.page("/?model=swin_tiny_patch4_window7_224&image=chelsea&row=3&col=4")
    ready(page, ":3:4")
    text = page.locator(".gallery").inner_text()
    assert "least h of the map" in text, "attention is never negative"
    page.goto(visitor.own + "/?model=test_vit&image=coffee&row=2&col=3")
    ready(page, ":2:3")
    page.goto(visitor.own + "/?step=1&channel=7&row=4&col=4")
    ready(page, "1:7:4:4")
    model = horinsight.create_model("hornet_digits_iso")
    batch = horinsight.image_batch(model, [sample_image("digit_3")])
    weights = horinsight.model_mixing_weights(model, batch, blocks=BLOCKS, step=1)
    expected = [one.at(4, 4)[0, 7, 5, 3].item() for one in weights.values()]
    np.testing.assert_allclose(values_at(page, 5, 3), expected, rtol=6e-3)
    page.goto(visitor.own + "/?model=hornet_tiny_7x7&blocks=1&blocks=9&row=28&col=40")
    ready(page, ":28:40")
    page.goto(visitor.own + "/?model=nonsense&row=99&col=abc&step=77&opacity=9&blocks=55&image=../../etc/passwd")
    ready(page, ":7:7")
    page.get_by_text(
        "The link asks for model 'nonsense', image '../../etc/passwd', opacity '9', blocks '55', step '77', row '99' "
        "and 1 more, which this viewer does not have"
    ).wait_for()


def choose(page, label: str, option: str) -> None:
    """Choose an option of a select box."""
    field = page.get_by_label(label, exact=True)
    field.click()
    page.get_by_role("option", name=option).click()


def test_switching_the_model_and_going_through_the_pages_keeps_the_place(visitor):
    page = visitor.page("/?row=4&col=11")
    ready(page, ":4:11")
    box = page.locator(".st-key-model input")
    box.click()
    box.fill("hornet_s_iso")
    page.get_by_role("option", name="hornet_s_iso", exact=True).click()
    page.locator(".gallery[data-ready^='hornet_s_iso:chelsea']").wait_for()
    page.wait_for_url(re.compile("model=hornet_s_iso"))  # sent at the end of the run, after the maps
    assert "image" not in page.url, "each model brings its own picture"
    page.get_by_role("link", name="Cost").click()
    page.get_by_text("13 of 13 hold").wait_for()
    page.get_by_role("link", name="Compare").click()
    page.locator(PAIRS).wait_for()
    page.get_by_role("link", name="Mixing weights").click()
    assert ready(page, ":4:11").startswith("hornet_s_iso:chelsea")


def test_a_shared_link_opens_the_same_in_another_tab(visitor):
    page = visitor.page()
    ready(page)
    click_cell(page, 10, 3)
    ready(page, ":10:3")
    page.get_by_role("button", name="Blocks").click()
    field = page.locator(".st-key-step input")
    field.click()
    page.get_by_role("option", name="2", exact=True).click()
    stamp = ready(page, ":2:mean:10:3")
    page.wait_for_url(re.compile("step=2"))
    other = visitor.page(page.url.removeprefix(visitor.own))
    assert ready(other, ":2:mean:10:3") == stamp


def test_downloads_can_be_read_back(visitor, tmp_path):
    page = visitor.page("/?row=5&col=6")
    ready(page, ":5:6")
    expected = maps_of("hornet_digits_iso", sample_image("digit_3"), (5, 6), blocks=BLOCKS)
    page.get_by_role("button", name="Download", exact=True).click()
    files: dict[str, Path] = {}
    for kind in ("PNG", "PDF", "CSV", "NPZ"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=kind, exact=True).click()
        files[kind] = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(files[kind])
    assert files["PNG"].name == "mixing_hornet_digits_iso_digit_3_5_6.png"
    image = Image.open(files["PNG"])
    assert image.format == "PNG"
    assert image.width > 1000
    assert files["PDF"].read_bytes().startswith(b"%PDF")
    stored = horinsight.load_result(horinsight.QueryMaps, files["NPZ"])
    assert stored.provenance.weights.startswith("trained: digits")
    assert stored.image_names[0].startswith("digit_3 (sha256 ")
    for name, values in expected.maps.items():
        np.testing.assert_allclose(stored.maps[name], values, rtol=1e-4, atol=1e-6 * np.abs(values).max())
    with files["CSV"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 14 * 14
    table = {(row["name"], int(row["row"]), int(row["col"])): float(row["h"]) for row in rows}
    assert table["blocks.2.gnconv", 5, 7] == pytest.approx(stored.maps["blocks.2.gnconv"][0, 5, 7], rel=1e-6)


def test_checkpoints_of_the_folder_and_no_others(visitor):
    page = visitor.page("/?weights=digits_seed5.pth")
    ready(page)
    text = page.locator("body").inner_text()
    assert "Untrained" not in text
    own = horinsight.create_model("hornet_digits_iso", pretrained=False, seed=5)
    batch = horinsight.image_batch(own, [sample_image("digit_3")])
    expected = horinsight.query_maps(own, batch, [[(7, 7)]], blocks=BLOCKS)
    np.testing.assert_allclose(values_at(page, 6, 6), [values[0][6, 6] for values in expected.maps.values()], rtol=6e-3)
    page.locator(".st-key-weights input").click()
    options = page.get_by_role("option").all_inner_texts()
    assert options == ["built-in", NAN_WEIGHTS, "digits_seed5.pth", "evil.pth", "huge.pth", "wrong.pth"], (
        "the link that leads out is not offered"
    )
    for name in ("../secret.pth", "link.pth", "/etc/passwd", "%2e%2e%2fsecret.pth"):
        page.goto(visitor.own + f"/?weights={name}")
        ready(page)
        page.get_by_text(re.compile("The link asks for weights .*which this viewer does not have")).wait_for()
    for name, message in (
        ("evil.pth", "evil.pth"),
        ("wrong.pth", "another model's: \\d+ parameters missing, 1 parameters of another shape"),
    ):
        page.goto(visitor.own + f"/?weights={name}")
        alert = page.locator(".told")
        alert.filter(has_text=re.compile(message)).first.wait_for()
        assert alert.count() == 1


def test_spectra_are_measured_block_by_block(visitor, tmp_path):
    page = visitor.page("/spectra?tuples=8&ie_blocks=1&ie_blocks=2")
    page.get_by_text("Numbers and convention").wait_for()
    page.get_by_role("button", name="Download", exact=True).click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="JSON", exact=True).click()
    waiting.value.save_as(tmp_path / "ie.json")
    content = json.loads((tmp_path / "ie.json").read_text())
    model = horinsight.create_model("hornet_digits_iso")
    batch = horinsight.image_batch(model, [sample_image("digit_3")])
    expected = horinsight.model_interaction_spectra(model, batch, blocks=[1, 2], num_tuples=8)
    for row, (name, spectrum) in zip(content["blocks"], expected.items(), strict=True):
        assert row["name"] == name
        assert row["location_order"] == 5
        assert row["exact_zero"] == [False] * 6 + [True] * 2
        np.testing.assert_allclose(row["effects"], spectrum.effects, rtol=1e-3)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV", exact=True).click()
    waiting.value.save_as(tmp_path / "ie.csv")
    assert len((tmp_path / "ie.csv").read_text().splitlines()) == 1 + 2 * 8
    for kind, start in (("PNG", b"\x89PNG"), ("PDF", b"%PDF")):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=kind, exact=True).click()
        assert Path(waiting.value.path()).read_bytes().startswith(start)


def test_attributions_of_a_class_and_of_a_position(visitor, tmp_path):
    page = visitor.page("/attribution?methods_class=saliency&methods_class=deep_lift")
    page.get_by_text("One picture proves nothing").wait_for()
    shown = page.locator("img[alt^='deep lift of digit_3']")
    assert shown.count() == 1
    page.get_by_role("button", name="Download", exact=True).click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="NPZ", exact=True).click()
    waiting.value.save_as(tmp_path / "maps.npz")
    kept = horinsight.load_result(horinsight.PredictionAttributions, tmp_path / "maps.npz")
    model = horinsight.create_model("hornet_digits_iso")
    batch = horinsight.image_batch(model, [sample_image("digit_3")])
    black = black_colour(model, (56, 56))[:, None, None].expand(3, 56, 56)
    expected = horinsight.prediction_attribution(model, batch, methods=["deep_lift"], baselines=black)
    np.testing.assert_allclose(kept.maps["deep_lift"], expected.maps["deep_lift"], rtol=1e-3, atol=1e-5)
    page.keyboard.press("Escape")
    page.get_by_role("radio", name="Position").or_(page.get_by_role("button", name="Position")).first.click()
    page.get_by_text("What the residual block 13 computes").wait_for()
    page.get_by_label("Row, 0").fill("2")
    page.get_by_label("Row, 0").press("Enter")
    page.wait_for_url("**row=2*")
    page.locator("img[alt^='influence of digit_3']").wait_for()


def test_what_is_finished_stays_when_a_measurement_is_stopped(visitor):
    page = visitor.page("/spectra?kind=functional&scope=block&tuples=96")
    page.get_by_role("button", name="Measure 13 blocks").click()
    page.get_by_text(re.compile(r"measuring block 3: 2 of 13 finished")).wait_for()
    page.get_by_role("button", name="Stop").click()
    again = page.get_by_role("button", name=re.compile(r"Measure \d+ block"))
    again.wait_for()
    left = int(re.search(r"\d+", again.inner_text()).group())
    assert 0 < left <= 11, "finished blocks are not measured again"
    page.get_by_text("Numbers and convention").wait_for()


def test_orders_of_attention_blocks_and_blocks_that_cannot_be_measured(visitor):
    page = visitor.page("/spectra?model=test_vit&image=coffee&tuples=4&ie_blocks=1")
    page.get_by_role("button", name="Measure 1 block").click()
    page.get_by_text("Numbers and convention").click()
    page.get_by_test_id("stDataFrame").wait_for()
    page.goto(visitor.own + "/spectra?model=test_vit&image=coffee&tuples=4&max_order=12&kind=functional&ie_blocks=1")
    page.get_by_role("button", name=re.compile("Measure|Stop")).first.wait_for()


def test_cost(visitor, tmp_path):
    page = visitor.page("/cost?model=hornet_tiny_7x7")
    page.get_by_text("25 of 25 hold; counted = closed form, as integers, for 25").wait_for()
    for number in ("22.41 M", "3.98 G"):
        page.get_by_text(number, exact=True).first.wait_for()
    page.get_by_role("button", name="Download", exact=True).click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV", exact=True).click()
    waiting.value.save_as(tmp_path / "cost.csv")
    with (tmp_path / "cost.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = horinsight.gnconv_bounds(horinsight.create_model("hornet_tiny_7x7"), 224)
    assert [int(row["macs"]) for row in rows] == [bound.macs for bound in expected]
    page.goto(visitor.own + "/cost?model=hornet_s_iso_gf")
    page.get_by_text("These gⁿConvs use GF").wait_for()
    page.goto(visitor.own + "/cost?model=swin_tiny_patch4_window7_224")
    page.get_by_text("Parts of the network").wait_for()
    page.locator(".printed .here").wait_for()
    ours = page.locator(".printed .here").locator("th, td").all_inner_texts()
    assert ours == ["swin_t", "224", "28", "28.29", "4.5", "4.49", "yes"]
    page.goto(visitor.own + "/cost?model=deit_small_patch16_224&side=96")
    page.get_by_text(re.compile("has no gⁿConv|expects|224")).first.wait_for()


PAIRS = ".st-key-pairs .pairs[data-ready]"


def paired(page, ending: str) -> list[str]:
    """Wait until pairs are painted of this query; what is said of the first of A, B and their difference."""
    page.locator(f".st-key-pairs .pairs[data-ready*='{ending} '][data-ready$='{ending}']").wait_for()
    return page.locator(".st-key-pairs .note").all_inner_texts()[:3]


def test_compare_models_and_pictures_with_one_picker(visitor):
    page = visitor.page("/compare?model_b=hornet_s_iso&row=3&col=8")
    paired(page, ":3:8")
    stamp = page.locator(PAIRS).get_attribute("data-ready")
    assert re.match(r"hornet_digits_iso:digit_3\S* hornet_s_iso:digit_3", stamp)
    assert page.locator("body").inner_text().count("Untrained weights of") == 1
    click_cell(page, 9, 2)
    notes = paired(page, ":9:2")
    maps = [
        maps_of(name, sample_image("digit_3"), (9, 2), blocks=[1]) for name in ("hornet_digits_iso", "hornet_s_iso")
    ]
    first, second = (next(iter(found.maps.values()))[0] for found in maps)
    most = [f"max |h| {abs(values).max():.1e}" for values in (first, second)]
    assert notes == [*most, f"{100 * map_difference(first, second).moved:.0f} % differs"]
    coloured = [page.locator(".st-key-pairs .map canvas").nth(place).evaluate(COLOURED) for place in (0, 1)]
    assert coloured[0] > 20 * coloured[1], "one scale: what is 1e-12 of the largest has no colour"
    page.goto(visitor.own + "/compare?model_b=hornet_digits_iso&weights_b=digits_seed5.pth&row=2&col=2")
    limits = paired(page, ":2:2")
    assert limits[0] != limits[1], "one model, two checkpoints"
    page.goto(visitor.own + "/compare?compare=pictures&image_b=digit_8&row=1&col=1&blocks=5")
    paired(page, ":1:1")
    assert page.locator(".st-key-pairs figure").count() == 3
    assert re.match(
        r"hornet_digits_iso:digit_3\S* hornet_digits_iso:digit_8", page.locator(PAIRS).get_attribute("data-ready")
    )
    page.locator(".st-key-pairs .map").nth(1).click(position={"x": 5, "y": 5})
    paired(page, ":0:0")


# how far a map's colours are from the grey in the middle, the mean of |red - blue| where it is painted
COLOURED = """(canvas) => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0, count = 0;
  for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3]) {
    sum += Math.abs(pixels[i] - pixels[i + 2]);
    count += 1;
  }
  return sum / count;
}"""


def test_compared_maps_follow_the_pointer_as_a_click_would_show_them(visitor):
    page = visitor.page("/compare?model=hornet_digits_iso&model_b=swin_tiny_patch4_window7_224&row=2&col=2")
    page.locator(PAIRS).wait_for()
    for side in "ab":
        page.locator(f".st-key-follow_{side} .tables[data-ready]").wait_for(state="attached")
    box = page.locator(".picker").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 9.5 / 14, box["y"] + box["height"] * 4.5 / 14)
    page.locator(f"{PAIRS}[data-followed='4:9']").wait_for()
    pointed = page.locator(".st-key-pairs .note").all_inner_texts()
    before = page.locator(PAIRS).get_attribute("data-ready")
    click_cell(page, 4, 9)
    page.locator(f".st-key-pairs .pairs[data-ready*=':4:9']:not([data-ready='{before}'])").wait_for()
    page.mouse.move(0, 0)
    page.locator(f"{PAIRS}[data-followed='']").wait_for()
    assert page.locator(".st-key-pairs .note").all_inner_texts() == pointed


@pytest.mark.parametrize(("size", "theme"), [((1280, 720), "light"), ((1440, 900), "dark")])
def test_everything_fits_without_scrolling(browser, server, size, theme):
    one = Visitor(browser, server.url, viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    for address, wait in (
        ("/?model=hornet_s_iso&image=chelsea", READY),
        ("/", READY),
        ("/blocks?model=hornet_tiny_7x7&image=coffee", ".stack[data-ready]"),
        ("/spectra?tuples=2", "text=Numbers and convention"),
        ("/cost?model=hornet_tiny_7x7", "text=of 25 hold"),
        ("/compare", PAIRS),
    ):
        page = one.page(address)
        page.locator(wait).first.wait_for()
        fits = "(main => main.scrollHeight <= main.clientHeight)(document.querySelector('[data-testid=stMain]'))"
        wait_until(page, fits, 10)  # charts take their size a moment after they appear
        page.close()
    one.close()


def test_a_telephone(browser, server):
    one = Visitor(browser, server.url, viewport={"width": 390, "height": 844})
    page = one.page("/?row=2&col=2")
    ready(page, ":2:2")
    click_cell(page, 5, 5)
    ready(page, ":5:5")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "no scrolling to the side"
    panel = page.locator(".map").first.bounding_box()
    assert panel["width"] > 120
    one.close()


def test_behind_a_proxy_path(browser, tmp_path):
    running = Server(tmp_path / "log", base="tools/viewer")
    one = Visitor(browser, running.url)
    page = one.page("/?row=2&col=3")
    ready(page, ":2:3")
    click_cell(page, 8, 8)
    ready(page, ":8:8")
    page.get_by_role("link", name="Cost").click()
    page.get_by_text("13 of 13 hold").wait_for()
    assert "/tools/viewer/cost" in page.url
    one.close()
    running.stop()


def test_torch_is_not_asked_for_more_threads_than_one():
    with Gate().slot():
        assert torch.get_num_threads() == 1
