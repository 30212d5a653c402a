"""A short run of `experiments/coverage.py`: intervals at the default numbers of draws hold the truth."""

import importlib.util
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from horinsight import GnConv

PATH = Path(__file__).parents[2] / "experiments" / "coverage.py"
REPETITIONS = 60


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("coverage_experiment", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses ask for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def small_gf(experiment):
    """The experiment's take ten times as long."""
    operator = experiment.drawn_weights(GnConv(16, 2, depthwise="gf", gf_size=(8, 5)))
    return experiment.Setting(operator, experiment.drawn_points((16, 8, 8)), 2)


@pytest.mark.parametrize(
    ("name", "num_pictures"),
    [("g5Conv C=16", 1), ("g2Conv GF 8x8", 1), ("attention C=32", 1)],
)
def test_intervals_at_these_images_hold_the_truth(experiment, name, num_pictures):
    """95 % is meant; so few as this of 60 repetitions are covered with a chance of 1 in 1000 if it is 93 %."""
    torch.manual_seed(0)
    setting = {**dict(experiment.settings()), "g2Conv GF 8x8": partial(small_gf, experiment)}[name]()
    row = experiment.measured(setting, num_pictures, REPETITIONS)
    least = stats.binom.ppf(1e-3, REPETITIONS, 0.93) / REPETITIONS
    assert min(row["now"]["covered"]) >= least
    assert min(row["before"]["covered"]) < least, "which single neighbours and the bootstrap are not"
    assert max(np.abs(row["now"]["median_bias"])) < max(np.abs(row["before"]["median_bias"]))
