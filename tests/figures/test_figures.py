import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from horinsight import (
    Provenance,
    Tradeoff,
    create_model,
    draw_complexity_curves,
    draw_filters,
    draw_interaction_spectra,
    draw_mixing_maps,
    draw_reach_maps,
    draw_tradeoffs,
    filter_kernels,
    image_batch,
    model_influence,
    model_interaction_spectra,
    model_view,
    order_growth,
    query_maps,
    sample_images,
    save_figure,
    size_growth,
)


@pytest.fixture(scope="module")
def maps():
    model = create_model("hornet_test")
    images = image_batch(model, [sample_images()["coffee"]])
    return query_maps(model, images, [[(3, 4), (20, 11)]], model_name="hornet_test", image_names=["coffee"])


def texts(figure) -> str:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
    return "\n".join(found)


def test_figure_4_says_what_it_shows(maps):
    figure = draw_mixing_maps(maps)
    words = texts(figure)
    assert "UNTRAINED WEIGHTS: random, seed 0" in words
    assert "hornet_test" in words
    assert [f"block {i}" in words for i in (1, 2, 3, 4)] == [True] * 4
    assert "coffee, query 3, 4" in words
    limit = np.abs(maps.maps["stages.1.0.gnconv"][1]).max()
    assert f"± {limit:.1e}" in words
    assert len(figure.axes) == 2 * 5


def test_maps_are_centred_at_zero_with_their_own_limits(maps):
    figure = draw_mixing_maps(maps)
    values = maps.maps["stages.0.0.gnconv"][0]
    overlay = figure.axes[1].images[1]
    low, high = overlay.get_clim()
    assert -low == high == pytest.approx(np.abs(values).max())
    np.testing.assert_array_equal(overlay.get_array(), values)
    assert overlay.get_interpolation() == "nearest"
    alpha = np.asarray(overlay.get_alpha())
    assert (alpha[values == 0] == 0).all()
    assert (alpha[values != 0] > 0.5).all()


def test_the_query_is_outlined_at_its_place(maps):
    figure = draw_mixing_maps(maps)
    for column, (block, rows) in enumerate([("stages.0.0.gnconv", 24), ("stages.1.0.gnconv", 12)], start=1):
        outlines = figure.axes[column].patches
        row, col = maps.queries[block][0]
        assert len(outlines) == 2
        assert outlines[0].get_xy() == (col * 96 / rows, row * 96 / rows)
        assert outlines[0].get_width() == 96 / rows


def test_trained_weights_are_not_called_untrained(maps):
    from dataclasses import replace

    trained = replace(maps, provenance=replace(maps.provenance, trained=True, weights="checkpoint w.pth"))
    assert "UNTRAINED" not in texts(draw_mixing_maps(trained))
    assert "weights: checkpoint w.pth" in texts(draw_mixing_maps(trained))


@pytest.mark.parametrize("suffix", [".pdf", ".png", ".svg", ".PNG"])
def test_figures_are_written_by_suffix_and_reproducibly(maps, tmp_path, suffix):
    contents = []
    for name in ("a", "b"):
        save_figure(draw_mixing_maps(maps), tmp_path / f"{name}{suffix}")
        contents.append((tmp_path / f"{name}{suffix}").read_bytes())
    head = {".pdf": b"%PDF", ".png": b"\x89PNG", ".svg": b"<?xml"}[suffix.lower()]
    assert contents[0].startswith(head)
    if suffix != ".svg":  # matplotlib gives the parts of an SVG random names
        assert contents[0] == contents[1]
    if suffix == ".png":
        pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
        assert pixels.shape[1] > 1000
        assert pixels.std() > 20


def test_other_suffixes_are_refused(maps, tmp_path):
    with pytest.raises(ValueError, match=re.escape(".pdf, .png, .svg, got figure.jpg")):
        save_figure(draw_mixing_maps(maps), tmp_path / "figure.jpg")
    assert list(tmp_path.iterdir()) == []


def test_reach_shows_fields_with_the_circles_that_hold_them():
    model = create_model("hornet_test")
    images = image_batch(model, [sample_images()[name] for name in ("coffee", "chelsea")])
    reaches = model_influence(model, images, blocks=[1, 4], scope="image", queries=[(20, 3)], probes=2)
    pictures = model_view(model, images)
    titles = {"stages.0.0.gnconv": "1: first", "stages.3.0.gnconv": "4: " + "long" * 10}
    figure = draw_reach_maps(reaches, pictures, titles=titles, image_names=["a/coffee.png (sha256 1)", "chelsea"])
    words = texts(figure)
    assert "hornet_test: effective receptive field" in words
    assert "UNTRAINED WEIGHTS" in words
    assert [part in words for part in ("coffee.png\n", "chelsea", "query 20, 3", "1: first")] == [True] * 4
    assert len(figure.axes) == 2 * 3
    assert max(len(axes.get_title()) for axes in figure.axes) == 26
    reach = reaches["stages.3.0.gnconv"]
    axes = figure.axes[5]  # the second picture, the last block
    circles = [patch for patch in axes.patches if hasattr(patch, "radius")]
    assert [circle.radius for circle in circles] == reach.radii_pixels[1, 0].tolist()
    assert {circle.center for circle in circles} == {(16.0, 80.0)}, "the middle of cell 2, 0 of 3x3 on 96 pixels"
    shown = np.asarray(axes.images[1].get_alpha())
    values = reach.influence.maps[1, 0]
    assert np.unravel_index(shown.argmax(), shown.shape) == np.unravel_index(values.argmax(), values.shape)
    assert (shown[values == 0] == 0).all()
    with pytest.raises(ValueError, match="expects 2 pictures, got 1"):
        draw_reach_maps(reaches, pictures[:1])
    with pytest.raises(ValueError, match="at least one block"):
        draw_reach_maps({}, pictures)


def test_filters():
    model = create_model("hornet_test_gf")
    provenance = Provenance("hornet_test_gf", "random, seed 0", False, "", (), 0)
    layer = model.stages[2][0].gnconv.dwconv
    figure = draw_filters(filter_kernels(layer, (6, 6), name="block 3", provenance=provenance), num_channels=3)
    assert len(figure.axes) == 8
    assert "UNTRAINED" in texts(figure)
    assert "block 3: global filters on a 6x6 map" in texts(figure)
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array(), filter_kernels(layer, (6, 6)).kernel[0])


def test_spectra_show_zeros_as_such_and_name_their_weights(tmp_path):
    model = create_model("hornet_test")
    images = image_batch(model, [sample_images()["coffee"]])
    spectra = model_interaction_spectra(model, images, num_tuples=3, model_name="hornet_test")
    figure = draw_interaction_spectra(spectra, titles={"stages.0.0.gnconv": "the first"})
    words = texts(figure)
    assert "UNTRAINED WEIGHTS: random, seed 0" in words
    assert "hornet_test: explicit interaction effects of each mixer" in words
    assert "the first\norder 2" in words
    assert "stages.3.0.gnconv\norder 5" in words
    shown = [axes for axes in figure.axes if axes.get_visible()]
    for axes, (name, spectrum) in zip(shown, spectra.items(), strict=True):
        dots, zeros = (next(line for line in axes.lines if line.get_marker() == marker) for marker in ("o", "s"))
        order = spectrum.location_order
        assert dots.get_xdata().tolist() == list(range(order + 1)), name
        np.testing.assert_allclose(10 ** dots.get_ydata(), spectrum.effects[: order + 1])
        assert zeros.get_xdata().tolist() == list(range(order + 1, 8))
        assert zeros.get_ydata()[0] == axes.get_yticks()[-1]
    assert shown[0].get_yticklabels()[-1].get_text() == "0"
    assert len({axes.get_ylim() for axes in shown}) == 1, "one scale for all"
    save_figure(figure, tmp_path / "spectra.png")
    assert Image.open(tmp_path / "spectra.png").size[0] > 600


def test_spectra_with_open_orders_and_without_any_effect():
    model = create_model("hornet_test")
    images = image_batch(model, [sample_images()["coffee"]])
    spectra = model_interaction_spectra(model, images, num_tuples=2, max_order=1)
    assert "order ≥1" in texts(draw_interaction_spectra(spectra))
    assert "order ≥1" in texts(draw_interaction_spectra(next(iter(spectra.values()))))
    with pytest.raises(ValueError, match="at least one spectrum"):
        draw_interaction_spectra({})


def test_complexity_curves_show_the_numbers():
    orders, sizes = [order_growth(dim) for dim in (64, 128)], size_growth(64, 3, sides=[7, 14, 28])
    figure = draw_complexity_curves(orders, sizes)
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), orders[0].macs / orders[0].bound)
    assert {line.get_label() for line in right.lines} == {"self-attention", "bound of Eq. 3.6", "g3Conv"}
    assert "multiply-accumulates" in texts(figure)
    with pytest.raises(ValueError, match="at least one width"):
        draw_complexity_curves([], sizes)


def test_tradeoffs_name_their_machine():
    family = [Tradeoff("T", 82.8, 22.4, 4.0, 100, 90, 120), Tradeoff("S", 83.8, 49.5, 8.8, 200, 190, 220)]
    figure = draw_tradeoffs({"HorNet": family}, machine="a laptop")
    assert "a laptop" in texts(figure)
    assert figure.axes[2].lines[0].get_xdata().tolist() == [100, 200]
    with pytest.raises(ValueError, match="at least one family"):
        draw_tradeoffs({}, machine="none")


def test_matplotlib_keeps_remarks_on_its_cache_to_itself():
    environment = {key: value for key, value in os.environ.items() if key not in ("MPLCONFIGDIR", "XDG_CACHE_HOME")}
    code = "import logging, horinsight.figures; print(logging.getLogger('matplotlib').level)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "HOME": "/proc/none", "XDG_CONFIG_HOME": "/proc/none"},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == "0\n", "its other remarks are heard"
