"""Names that timm does not promise to keep: what we expect of them, where it was checked."""

import timm

from horinsight.models.blocks import named_blocks
from horinsight.models.timm_private import SqueezeExcite, feature_take_indices

CHECKED = "timm 1.0.20 and 1.0.31"  # with torch 2.14


def test_feature_take_indices():
    said = f"checked on {CHECKED}, this is timm {timm.__version__}: see models/timm_private.py"
    assert feature_take_indices(5) == ([0, 1, 2, 3, 4], 4), said
    assert feature_take_indices(5, 2) == ([3, 4], 4), said
    assert feature_take_indices(5, [1, -2]) == ([1, 3], 3), said


def test_the_squeeze_and_excitation_of_efficientnets():
    said = f"checked on {CHECKED}, this is timm {timm.__version__}: see models/timm_private.py"
    model = timm.create_model("test_efficientnet")
    names = [name for name, module in model.named_modules() if isinstance(module, SqueezeExcite)]
    assert names, said
    assert [block.name for block in named_blocks(model) if block.mixer == "squeeze_excitation"] == names, said
