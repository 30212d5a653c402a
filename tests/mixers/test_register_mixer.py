import pytest
import torch
from torch import nn

from horinsight.mixers.found import found_mixers
from horinsight.mixers.mixer_registry import MixerFamily, family_of, mixer_kinds, register_mixer, unregister_mixer


class Mean3(nn.Module):
    """Each position and its two neighbours in the row, written as nobody else would."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 0.5


@pytest.fixture
def mean3():
    yield register_mixer(MixerFamily("mean3", lambda m: isinstance(m, Mean3), lambda m: 7))
    unregister_mixer("mean3")


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 2, 2), Mean3(), nn.AdaptiveAvgPool2d(1))


def test_a_family_names_what_it_recognises_and_takes_what_lies_inside(mean3):
    (mixer,) = found_mixers(network(), image_size=(8, 8))
    assert (mixer.path, mixer.kind, mixer.kind_known, mixer.order) == ("1", "mean3", True, 7)


def test_without_the_family_what_lies_inside_is_found():
    (mixer,) = found_mixers(network(), image_size=(8, 8))
    assert (mixer.path, mixer.kind, mixer.order) == ("1.inner", "convolution", 0)


def test_the_last_family_is_asked_first(mean3):
    other = register_mixer(MixerFamily("other mean3", lambda m: isinstance(m, Mean3), lambda m: 1))
    try:
        assert family_of(Mean3()) is other
        assert mixer_kinds()[:2] == ["other mean3", "mean3"]
    finally:
        unregister_mixer("other mean3")
    assert family_of(Mean3()) is mean3


def test_a_kind_is_entered_once_and_taken_out_once(mean3):
    with pytest.raises(ValueError, match="has a family 'mean3' already"):
        register_mixer(MixerFamily("mean3", lambda m: False, lambda m: 0))
    with pytest.raises(ValueError, match="knows no family 'nothing'"):
        unregister_mixer("nothing")


def test_a_family_of_something_that_mixes_nothing_is_not_listed():
    register_mixer(MixerFamily("linear", lambda m: isinstance(m, nn.Linear), lambda m: 0))
    try:
        assert found_mixers(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), image_size=(4, 4)) == []
    finally:
        unregister_mixer("linear")
