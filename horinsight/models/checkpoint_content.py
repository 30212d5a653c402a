"""What a file of weights holds: read safely, and the state dict found in whatever is around it."""

import argparse
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from horinsight.models.misfits import CheckpointError, cut

EMA_WRAPPERS = ("model_ema", "state_dict_ema")
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "state", "params")


def content_of_file(path: Path) -> Any:
    """What a file holds, nothing of it run.

    Raises:
        CheckpointError: it is no checkpoint, or would run code.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"No such checkpoint: {path}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a checkpoint file in it.")
    file = cut(path.name)
    with path.open("rb"):
        pass  # an unreadable file is an OSError, not a broken checkpoint
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about old pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler raise anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise CheckpointError(
                f"{file} was refused: it asks for {cut(refused[1].rstrip(',.'))}, which is not plain weights and could "
                "run code. Nothing of it was run. If you trust its author, save its state dict alone with torch.save."
            ) from error
        if path.is_file() and path.stat().st_size == 0:
            raise CheckpointError(f"{file} is not a readable checkpoint: it is empty.") from error
        raise CheckpointError(
            f"{file} is not a readable checkpoint (a PyTorch file or .safetensors): it is damaged, cut short, "
            f"or something else ({_reason(error)})."
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Weights only load failed", "Check the documentation"))]
    return f"{type(error).__name__}: {telling[0][:120].rstrip('.')}" if telling else type(error).__name__


def state_of(content: Any, *, ema: bool, file: str) -> tuple[str, dict[str, Tensor]]:
    """The state dict inside whatever a file holds, and the entry it was found under."""
    trail: list[str] = []
    wanted = EMA_WRAPPERS if ema else ()
    found_ema = not ema
    while isinstance(content, Mapping):
        inner = next((key for key in (*wanted, *WRAPPERS) if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        found_ema = found_ema or inner in EMA_WRAPPERS
        trail.append(inner)
        content = content[inner]
    tensors = (
        {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found_ema:
        wanted_names = " or ".join(EMA_WRAPPERS)
        raise CheckpointError(f"{file} has no averaged weights ({wanted_names}): load it without ema=True (--ema).")
    if not tensors:
        held = (
            ", ".join(cut(repr(key)) for key in list(content)[:6])
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        only_ema = isinstance(content, Mapping) and any(key in content for key in EMA_WRAPPERS)
        advice = "it has averaged weights only, pass ema=True (--ema)" if only_ema else f"it holds {held or 'nothing'}"
        raise CheckpointError(f"{file} has no weights that horinsight can find: {advice}.")
    return ".".join(trail) or "the file itself", tensors
