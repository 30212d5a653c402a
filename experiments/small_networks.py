"""Networks to look at, small and with random weights: of timm, torchvision, transformers, and those of the tests.

Branches that a constructor starts at zero are opened, see `horinsight.models.zero_branches`, and batch norms have seen
noise.
"""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import timm
import timm.models
import torch
import torchvision
from torch import nn

from horinsight.mixers.found import default_image_size
from horinsight.models.zero_branches import opened_branches

# parts of names of small variants, the smallest first
SMALL = """
    test zepto atto femto pico nano
    xxt xxs micro mini ti tiny xs s0 b0 m0 t0 x0 00 000 0 18 10 12 14 26 small s 19 32 34
    50 f0 base
"""
TORCHVISION = """
    alexnet vgg11 resnet18 densenet121 squeezenet1_1 googlenet inception_v3 shufflenet_v2_x0_5 mobilenet_v2
    mobilenet_v3_small efficientnet_b0 mnasnet0_5 regnet_y_400mf convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t
"""
Built = tuple[nn.Module, tuple[int, int]]


@dataclass(frozen=True)
class Candidate:
    """A network that can be built.

    Attributes:
        source: "timm", "torchvision", "transformers" or "written by hand".
        name: of the file in timm/models, of the model elsewhere.
        build: gives the network's own name, the network in eval mode, and the size of images that it takes.
    """

    source: str
    name: str
    build: Callable[[], tuple[str, nn.Module, tuple[int, int]]]


def candidates() -> Iterator[Candidate]:
    """All of them, in the order of the table."""
    for file in files_of_timm():
        yield Candidate("timm", file, lambda file=file: _of_timm(file))
    for name in TORCHVISION.split():
        yield Candidate("torchvision", name, lambda name=name: _of_torchvision(name))
    yield from _of_transformers()
    yield from _of_tests()


def files_of_timm() -> list[str]:
    """The files of timm/models that hold models."""
    names = [module.name for module in pkgutil.iter_modules(timm.models.__path__) if not module.name.startswith("_")]
    return sorted(name for name in names if timm.list_models(module=name))


def smallest(file: str) -> str:
    """The variant with the fewest parameters among those whose names say that they are small."""

    def rank(name: str) -> tuple[int, int]:
        parts = re.split(r"[_\-.]", name)
        fits = [i for i, word in enumerate(SMALL.split()) if any(part == word or part.endswith(word) for part in parts)]
        return min(fits, default=len(SMALL.split())), len(name)

    def size(name: str) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name).parameters())

    sizes = {}
    for name in sorted(timm.list_models(module=file), key=rank)[:5]:
        try:
            sizes[name] = size(name)
        except Exception:  # a model that cannot be built on the meta device is no candidate
            continue
    return min(sizes, key=sizes.__getitem__) if sizes else sorted(timm.list_models(module=file), key=rank)[0]


def built(name: str) -> Built:
    """A model of timm, and images that it takes: 224 pixels where it would have larger ones."""
    model = timm.create_model(name)
    size = default_image_size(model)
    if max(size) <= 256:
        return model.eval(), size
    for side in (224, 256):
        for options in ({}, {"img_size": side}):
            try:
                model = timm.create_model(name, **options).eval()
                with torch.no_grad():
                    model(torch.zeros(1, 3, side, side))
            except (TypeError, RuntimeError, AssertionError, ValueError):
                continue
            return model, (side, side)
    return timm.create_model(name).eval(), size


def _of_timm(file: str) -> tuple[str, nn.Module, tuple[int, int]]:
    name = smallest(file)
    return name, *_opened(*built(name))


def _of_torchvision(name: str) -> tuple[str, nn.Module, tuple[int, int]]:
    return name, *_opened(torchvision.models.get_model(name).eval(), (224, 224))


def _of_transformers() -> Iterator[Candidate]:
    from networks_of_transformers import RECIPES, build  # a development dependency

    def made(name: str) -> tuple[str, nn.Module, tuple[int, int]]:
        model, size = build(name)
        return RECIPES[name].model, *_opened(model, size or default_image_size(model))

    for name in RECIPES:
        yield Candidate("transformers", name, lambda name=name: made(name))


def _of_tests() -> Iterator[Candidate]:
    tests = str(Path(__file__).parent.parent / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from foreign_networks import FOREIGN
    from further_networks import FURTHER
    from rare_forms import FORMS
    from rare_mixers import RARE

    for name, (model, _) in (FOREIGN | FURTHER | RARE | FORMS).items():
        yield Candidate(
            "written by hand", name, lambda name=name, model=model: (name, *_opened(model.eval(), (24, 24)))
        )


def _opened(model: nn.Module, size: tuple[int, int]) -> Built:
    """Branches opened, and batch norms that have seen noise: with those of a constructor features fade away."""
    opened_branches(model)
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    convolutions = [part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)]
    if norms and 3 in convolutions:
        for norm in norms:
            norm.train().momentum = None
        with torch.no_grad():
            model(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2)))
        for norm in norms:
            norm.eval().momentum = 0.1
    return model, size
