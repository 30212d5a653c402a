import re
import subprocess
import sys
from importlib import import_module

import pytest
from captum.attr import Attribution

from horinsight.attribution.attribution_methods import ATTRIBUTION_METHODS, attribution_method
from horinsight.attribution.captum_methods import _CALLS


def test_every_method_has_its_constructor_and_its_call():
    for name, method in ATTRIBUTION_METHODS.items():
        module, kind = method.constructor.split(":")
        assert name == method.name
        assert issubclass(getattr(import_module(module), kind), Attribution), name
        assert (name in _CALLS) == (method.family != "mixing"), name
        assert ("samples" in method.needs) == (method.samples is not None), name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("integrated", "got 'integrated': did you mean integrated_gradients or layer_integrated_gradients"),
        ("deeplift", "did you mean deep_lift"),
        ("zzz", "got 'zzz': choose from saliency, "),
        (None, "got None"),
    ],
)
def test_unknown_methods_name_the_nearest(name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        attribution_method(name)


def test_a_method_that_cannot_answer_says_so():
    with pytest.raises(
        ValueError, match="mixing_weights tells of a position, not of a prediction: choose from saliency"
    ):
        attribution_method("mixing_weights", "prediction")


def test_names_and_needs_are_read_without_torch():
    names = "horinsight.attribution.attribution_methods", "horinsight.attribution.attribution_results"
    code = f"import sys, {', '.join(names)}; print('torch' in sys.modules, 'captum' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_captum_is_imported_by_what_needs_it_alone():
    code = "import sys, horinsight.attribution.position_attribution, horinsight.attribution.prediction_attribution; "
    found = subprocess.run(
        [sys.executable, "-c", code + "print('captum' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False"]
