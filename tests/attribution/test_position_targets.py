import pytest
import torch

from horinsight.attribution.position_targets import PositionTarget, class_targets, position_targets


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (7, [(1, 2), (1, 2)]),
        ((2, 4), [(2, 4), (2, 4)]),
        ([0, 14], [(0, 0), (2, 4)]),
        ([(0, 1), (2, 0)], [(0, 1), (2, 0)]),
        (torch.tensor(7), [(1, 2), (1, 2)]),
        (torch.tensor([7]), [(1, 2), (1, 2)]),
        (torch.tensor([3, 5]), [(0, 3), (1, 0)]),
    ],
)
def test_every_form_of_captum(target, expected):
    found = position_targets(target, 2, (3, 5))
    assert [(one.row, one.col) for one in found] == expected


def test_a_channel_comes_first_as_in_an_output():
    assert position_targets([(3, 0, 1), (0, 2, 2)], 2, (3, 3), 4) == [PositionTarget(0, 1, 3), PositionTarget(2, 2, 0)]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (15, "from 0 to 14 of the 3x5 map, got 15"),
        (-1, "got -1"),
        ((0, 5), "column from 0 to 4, got 0, 5"),
        ((-1, 0), "got -1, 0"),
        ((4, 0, 0), "channel from 0 to 3, got 4"),
        ((0, 0, 0, 0), "got .0, 0, 0, 0"),
        ([0], "each of 2 examples, got a list of 1"),
        ([0, 1, 2], "got a list of 3"),
        (None, "got None"),
        (1.0, "got 1.0"),
        (True, "got True"),
        ("0", "got '0'"),
        (torch.zeros(2, 2, dtype=torch.int64), "got a tensor .2, 2"),
        (torch.zeros(2), "got a tensor"),
    ],
)
def test_targets_that_are_not_there_are_one_line(target, said):
    with pytest.raises(ValueError, match=said) as error:
        position_targets(target, 2, (3, 5), 4)
    assert "\n" not in str(error.value)


def test_channels_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="target expects the query"):
        position_targets((0, 1, 1), 1, (3, 3))


def test_classes():
    assert class_targets(torch.tensor([1, 2]), 2, 3).tolist() == [1, 2]
    assert class_targets([2], 2, 3).tolist() == [2, 2]
    for wrong, said in ((-1, "got -1"), (3, "from 0 to 2, got 3"), ([0, 1, 2], "for each of 2"), (0.5, "0.5")):
        with pytest.raises(ValueError, match=said):
            class_targets(wrong, 2, 3)
