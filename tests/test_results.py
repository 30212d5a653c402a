import json
import os

import numpy as np
import pytest
import torch

from horinsight import GnConv, InteractionSpectrum, Provenance, interaction_spectrum, load_result, save_result
from horinsight.results import plain


def spectrum_with_provenance(provenance: bool) -> InteractionSpectrum:
    spectrum = interaction_spectrum(GnConv(4, 1).eval(), torch.randn(1, 4, 3, 3), max_order=2, num_tuples=2)
    if not provenance:
        return spectrum
    origin = Provenance("m", "random, seed 0", False, "ab", ("cat",), 0)
    return InteractionSpectrum(**{**vars(spectrum), "provenance": origin})


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("provenance", [False, True])
def test_save_and_load(tmp_path, suffix, provenance):
    spectrum = spectrum_with_provenance(provenance)
    save_result(spectrum, tmp_path / f"r{suffix}")
    restored = load_result(InteractionSpectrum, tmp_path / f"r{suffix}")
    for name, value in vars(spectrum).items():
        found = getattr(restored, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found, value)
            assert found.dtype == value.dtype
        else:
            assert found == value, name
    assert os.listdir(tmp_path) == [f"r{suffix}"]


def test_a_file_with_something_else(tmp_path):
    for name, content in {"a.json": "{}", "b.json": "[1]", "c.json": "not json", "d.npz": "zip"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match="does not hold a horinsight result"):
            load_result(InteractionSpectrum, tmp_path / name)
    save_result(spectrum_with_provenance(False), tmp_path / "e.json")
    with pytest.raises(ValueError, match="holds a InteractionSpectrum, expected a Provenance"):
        load_result(Provenance, tmp_path / "e.json")
    with pytest.raises(ValueError, match=r"\.json or \.npz"):
        save_result(spectrum_with_provenance(False), tmp_path / "e.pkl")
    with pytest.raises(TypeError, match="results"):
        save_result({"a": 1}, tmp_path / "e.json")


def test_plain_json_has_no_nan():
    value = {"a": (np.float32(1.5), np.bool_(True), float("inf")), "b": np.array([[1, 2]])}
    assert json.dumps(plain(value), allow_nan=False) == '{"a": [1.5, true, null], "b": [[1, 2]]}'
