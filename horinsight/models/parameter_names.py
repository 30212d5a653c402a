"""Names of parameters: a checkpoint's and the model's, the published code's and mmpretrain's."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.", "net.")

# mmpretrain's name → the published one; which names prove that a file is mmpretrain's is in _is_mmpretrain
MMPRETRAIN_NAMES = (
    (re.compile(r"\.gnconv\.projs\."), ".gnconv.pws."),
    (re.compile(r"\.(gamma[12])\.weight$"), r".\1"),
    (re.compile(r"^norm3\."), "norm."),
    (re.compile(r"^head\.fc\."), "head."),
)


def mmpretrain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """A HorNet's weights under mmpretrain's names, for its tools and for detectors built on it. Nothing is copied.

    Example:
        >>> import timm
        >>> sorted(mmpretrain_state_dict(timm.create_model("hornet_test")))[0]
        'backbone.downsample_layers.0.0.bias'
    """
    renamed = {}
    for key, tensor in model.state_dict().items():
        name = key.replace(".gnconv.pws.", ".gnconv.projs.")
        name = re.sub(r"\.(gamma[12])$", r".\1.weight", name)
        name = re.sub(r"^norm\.", "norm3.", name)
        renamed[re.sub(r"^head\.", "head.fc.", name) if name.startswith("head.") else f"backbone.{name}"] = tensor
    return renamed


def _is_mmpretrain(keys: Iterable[str]) -> bool:
    # the prefix `backbone.` proves nothing: detectors trained with the published code have it too
    return any(".gnconv.projs." in key or re.search(r"\.gamma[12]\.weight$", key) for key in keys)


def names_in_model(keys: Iterable[str], expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Key of the file → key of the model, for those that have one."""
    keys = list(keys)
    mmpretrain = _is_mmpretrain(keys)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for key in sorted(keys, key=lambda key: key not in expected):  # exact names first
        target = next((name for name in _spellings(key, mmpretrain) if name in expected and name not in taken), None)
        if target is not None:
            found[key] = target
            taken.add(target)
    return {key: found[key] for key in keys if key in found}


def _spellings(key: str, mmpretrain: bool) -> list[str]:
    names = [key]
    while prefix := next((prefix for prefix in PREFIXES if names[-1].startswith(prefix)), None):
        names.append(names[-1].removeprefix(prefix))
    if not mmpretrain:
        return names
    published = []
    for name in names:
        for pattern, replacement in MMPRETRAIN_NAMES:
            name = pattern.sub(replacement, name)
        published.append(name)
    return names + published
