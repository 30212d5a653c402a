"""What the cost page draws."""

import pytest

import horinsight
from horinsight.models.registry import model_without_weights
from horinsight.viewer.components.cost_charts import bound_chart, bound_rows, distinct_bounds


@pytest.fixture(scope="module")
def bounds():
    return horinsight.gnconv_bounds(model_without_weights("hornet_tiny_7x7"), 224)


def test_each_kind_of_gnconv_is_one_row(bounds):
    kinds = distinct_bounds(bounds)
    assert [(one.order, one.dim, number) for one, number in kinds] == [
        (2, 64, 2),
        (3, 128, 3),
        (4, 256, 18),
        (5, 512, 2),
    ]
    assert sum(number for _, number in kinds) == len(bounds)
    assert list(bound_rows(bounds)["ratio"]) == [one.ratio for one, _ in kinds]


def test_the_axis_is_where_the_differences_are(bounds):
    axis = bound_chart(bounds).to_dict()["layer"][0]["encoding"]["x"]["scale"]["domain"]
    least = min(one.ratio for one in bounds)
    assert 0.75 < axis[0] < least < 1 < axis[1] < 1.02
