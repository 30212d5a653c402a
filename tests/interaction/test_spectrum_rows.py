import dataclasses
import json

import numpy as np
import pytest
import torch

from horinsight import GnConv, interaction_spectrum
from horinsight.interaction.spectrum_rows import spectrum_lines, spectrum_of_row, spectrum_row
from horinsight.mixers.blocks import MixingBlock
from horinsight.results import Provenance


def test_intervals_of_images_like_these_come_back_and_have_a_column():
    module, x = GnConv(8, 2).double(), torch.randn(8, 8, 5, 5, dtype=torch.float64)
    found = interaction_spectrum(module, x, max_order=3, num_tuples=3)
    found = dataclasses.replace(found, convention={**found.convention, "scope": "mixer"})
    row = json.loads(json.dumps(spectrum_row(MixingBlock(1, "a", "gnconv", module, 2), found)))
    again = spectrum_of_row(row, 0, None)
    assert again.target == "these images"
    np.testing.assert_array_equal(again.like_low, found.like_low)
    lines = list(spectrum_lines(MixingBlock(1, "a", "gnconv", module, 2), found))
    assert [line["like_high"] for line in lines] == found.like_high.tolist()
    assert found.to_frame()["like_high"].tolist() == found.like_high.tolist()
    assert (found.like_high >= found.like_low).all()
    old = spectrum_of_row(row | {"convention": {"interval": "95 % bootstrap by image"}}, 0, None)
    assert old.target == "images like these", "as results of before meant it"


@pytest.mark.parametrize("explicit", [True, False])
def test_rows_are_read_back_and_have_one_line_an_order(explicit):
    module = GnConv(8, 2).double()
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    found = interaction_spectrum(module, x, max_order=3, num_tuples=3, explicit=explicit, seed=5)
    found = dataclasses.replace(found, unlisted=("erf", "sort"), convention={**found.convention, "scope": "mixer"})
    block = MixingBlock(3, "a.b", "gnconv", module, 2)
    row = json.loads(json.dumps(spectrum_row(block, found)))
    assert [row[key] for key in ("index", "name", "mixer", "declared_order")] == [3, "a.b", "gnconv", 2]
    origin = Provenance("mine", "by hand", True, weights_sha256="0", images=("one",), seed=5)
    again = spectrum_of_row(row, 5, origin)
    for field in dataclasses.fields(found):
        if field.name != "provenance":
            np.testing.assert_equal(getattr(again, field.name), getattr(found, field.name))
    assert again.provenance == origin
    lines = list(spectrum_lines(block, again))
    assert [line["k"] for line in lines] == [0, 1, 2, 3]
    for k, line in enumerate(lines):
        assert (line["model"], line["trained"], line["unlisted"]) == ("mine", True, "erf sort")
        assert (line["kind"], line["scope"]) == ("explicit" if explicit else "functional", "mixer")
        assert line["effect"] == found.effects[k]
        for key in ("ci_low", "ci_high", "exact_zero", "max_share"):
            assert line[key] == getattr(found, key)[k]
        assert (line["target"], line["like_low"], line["like_high"]) == ("these images", None, None)
        assert (line["location_order"], line["degree_order"], line["num_draws"]) == (2, 2, 3)
        assert {"effects", "convention"}.isdisjoint(line)
