"""Names of parameters: a checkpoint's and the model's, the published code's, mmpretrain's and mmsegmentation's."""

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

# our name of a part of a segmenter → the published one
SEGMENTER_NAMES = (
    (re.compile(r"^backbone\.body\.(?:model\.)?"), "backbone."),
    (re.compile(r"^decode_head\.fpn_bottleneck\.gnconv\."), "decode_head.fpn_bottleneck."),
)


def mmseg_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """An UperNet's weights under the published names, for mmsegmentation. Nothing is copied.

    Those of a HorNet backbone are the published ones; of another backbone they are timm's.

    Example:
        >>> from horinsight.models.dense.uper_net import upernet
        >>> names = list(mmseg_state_dict(upernet("hornet_test", horfpn="conv", channels=16)))
        >>> names[0], names[-1]
        ('backbone.downsample_layers.0.0.weight', 'auxiliary_head.conv_seg.bias')
        >>> "decode_head.fpn_bottleneck.proj_in.weight" in names
        True
    """
    return {_published_in_segmenter(key): tensor for key, tensor in model.state_dict().items()}


def _published_in_segmenter(key: str) -> str:
    for pattern, replacement in SEGMENTER_NAMES:
        key = pattern.sub(replacement, key)
    return key


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
    segmenter = {_published_in_segmenter(key): key for key in expected}
    mmpretrain = _is_mmpretrain(keys)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for key in sorted(keys, key=lambda key: key not in expected):  # exact names first
        spellings = _spellings(key, mmpretrain)
        spellings += [segmenter[name] for name in spellings if name in segmenter]
        target = next((name for name in spellings if name in expected and name not in taken), None)
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
