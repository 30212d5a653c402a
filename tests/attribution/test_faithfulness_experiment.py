"""The experiment on digits: what its methods give, and what a stopped run leaves."""

import json

import faithfulness as experiment
import pytest
import torch

from horinsight.attribution.faithfulness import faithfulness
from horinsight.attribution.faithfulness_parts import merged_faithfulness
from horinsight.attribution.faithfulness_report import faithfulness_report
from horinsight.results import result_bytes

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")


@pytest.fixture(scope="module")
def digits():
    return experiment.prepared([*experiment.METHODS], 2)


def test_every_method_gives_a_map(digits):
    _, images, targets, methods, _ = digits
    for name, method in methods.items():
        found = method(images[:1].clone(), targets[:1])
        assert found.shape in ((1, 56, 56), (1, 14, 14)), name
        assert found.isfinite().all(), name
        assert len(found.unique()) > 20, name


def test_a_line_that_was_cut_off_is_taken_away(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)).eval()
    parts = []
    faithfulness(
        model, torch.rand(3, 3, 4, 4), torch.tensor([0, 1, 0]), {"sum": lambda x, t: x.sum(1)}, on_picture=parts.append,
        baselines=["mean", "others"], rows=2, columns=2, steps=2,
    )  # fmt: skip
    lines = [json.dumps(json.loads(result_bytes(part, ".json"))) + "\n" for part in parts]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(lines)[:-20])
    assert experiment.kept_parts(path) == parts[:2]
    assert path.read_text() == "".join(lines[:2])
    assert experiment.kept_parts(tmp_path / "none.jsonl") == []
    table = experiment.markdown(faithfulness_report(merged_faithfulness(parts))).splitlines()
    assert [line.count("|") for line in table if line.startswith("|")] == [7] * (2 + 4 * 2)
