import numpy as np
import pytest

from horinsight import draw_attribution_maps
from horinsight.figures.attribution_maps import map_over_picture
from horinsight.figures.style import figure_bytes
from horinsight.results import Provenance

PICTURES = np.full((2, 8, 12, 3), 200, np.uint8)
SIGNED = np.linspace(-1, 3, 2 * 4 * 6).reshape(2, 4, 6)
ORIGIN = Provenance("vit", "random, seed 0", False, "ab", ("a/cat.png (sha256 12)", "dog"), seed=0)


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def test_a_row_a_picture_and_a_panel_a_method():
    maps = {"integrated_gradients": SIGNED, "mixing_rollout": np.abs(SIGNED) + 5}
    figure = draw_attribution_maps(
        maps, PICTURES, title="vit: class 3", names=ORIGIN.images, query=(1, 2), query_grid=(4, 6), provenance=ORIGIN
    )
    shown = panels(figure)
    assert [axes.get_title() for axes in shown] == ["picture", "integrated gradients", "mixing rollout"] * 2
    assert [axes.get_xlabel() for axes in shown[:1]] == ["cat.png"]
    assert shown[1].get_xlabel() == f"{SIGNED[0].min():.2g} to {SIGNED[0].max():.2g}"
    texts = [text.get_text() for text in figure.texts]
    assert "vit: class 3" in texts
    assert any("UNTRAINED" in text for text in texts)
    assert all(axes.patches for axes in shown), "the query is marked in every panel"
    assert figure_bytes(figure, ".png")[:4] == b"\x89PNG"


def test_signed_maps_are_symmetrical_and_others_start_at_their_least():
    figure = draw_attribution_maps({"signed": SIGNED, "not": np.abs(SIGNED) + 5}, PICTURES, title="t")
    signed, other = (panels(figure)[index].images[1] for index in (1, 2))
    colours = signed.get_array()
    red, blue = colours[..., 0], colours[..., 2]
    np.testing.assert_array_equal((red > blue)[SIGNED[0] > 0.2], True)
    np.testing.assert_array_equal((blue > red)[SIGNED[0] < -0.2], True)
    assert float(other.get_array()[..., 3].min()) == 0.0, "the least value shows the picture"
    assert float(signed.get_array()[..., 3].max()) < 1.0


def test_the_viewer_shows_the_same():
    pixels = map_over_picture(SIGNED[0], PICTURES[0])
    assert (pixels.shape, pixels.dtype) == ((8, 12, 3), np.uint8)
    assert pixels[0, 0, 2] > pixels[0, 0, 0], "blue speaks against"
    assert pixels[-1, -1, 0] > pixels[-1, -1, 2], "red speaks for"
    zero = map_over_picture(np.zeros((4, 6)), PICTURES[0])
    assert len(np.unique(zero)) == 1, "the picture alone"


def test_a_map_of_zeros_says_so():
    figure = draw_attribution_maps({"nothing": np.zeros((2, 4, 6))}, PICTURES, title="t")
    assert panels(figure)[1].get_xlabel() == "zero everywhere"


def test_many_methods_wrap():
    figure = draw_attribution_maps({f"m{number}": SIGNED for number in range(9)}, PICTURES, title="t")
    assert len(panels(figure)) == 20
    lefts = {round(axes.get_position().x0, 3) for axes in panels(figure)}
    assert len(lefts) == 6


def test_bad_maps_are_one_line():
    with pytest.raises(ValueError, match="at least one method"):
        draw_attribution_maps({}, PICTURES, title="t")
    with pytest.raises(ValueError, match=r"expects maps \(2, rows, columns\), got \(1, 4, 6\) of m"):
        draw_attribution_maps({"m": SIGNED[:1]}, PICTURES, title="t")
