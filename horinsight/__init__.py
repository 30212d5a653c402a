"""Opens up vision backbones and measures how their positions interact.

Importing it is quick: a public name is imported when it is first used (`__init__.pyi` says from where), and torch with
it where it needs torch. timm is told of the models as soon as both packages are imported, whichever comes first.
"""

from importlib import import_module
from types import ModuleType

import lazy_loader
import wrapt

__version__ = "0.1.0"
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return __all__


@wrapt.when_imported("timm")
def _register_models(timm: ModuleType) -> None:
    for name in (
        "hornet",
        "hornet_isotropic",
        "ablations",
        "order_ablation",
        "separable_net",
        "convnext_isotropic",
    ):
        import_module(f"horinsight.models.{name}")
