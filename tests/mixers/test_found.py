import pytest
from foreign_networks import FOREIGN

from horinsight.mixers.found import found_mixers


@pytest.mark.parametrize("name", FOREIGN)
def test_finds_what_nobody_listed(name):
    model, expected = FOREIGN[name]
    mixers = found_mixers(model, image_size=(24, 24))
    assert sorted((mixer.name, mixer.kind) for mixer in mixers) == sorted(expected)
