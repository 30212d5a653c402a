"""What the person who starts the viewer may say: `horinsight viewer --checkpoints DIR --models NAME`."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import timm

MODELS = (
    "hornet_digits_iso",
    "hornet_s_iso",
    "hornet_s_iso_gf",
    "hornet_tiny_7x7",
    "hornet_tiny_gf",
    "hornet_small_7x7",
    "hornet_small_gf",
    "hornet_base_7x7",
    "hornet_base_gf",
    "hornet_large_7x7",
    "hornet_large_gf",
    "deit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
)
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class Settings:
    """How the viewer was started.

    Attributes:
        models: names that can be chosen.
        checkpoints: folder of weights that can be chosen; None for none.
        memory: gigabytes that the server may take, measurements and all; when None a measurement may take
            HORINSIGHT_MEMORY, or half of what is free.
        images: folder of pictures, a sub-folder for each class; also HORINSIGHT_IMAGES; None for none.
        results: folder of saved results and surveys that can be looked at; also HORINSIGHT_RESULTS; None for none.
    """

    models: tuple[str, ...]
    checkpoints: Path | None
    memory: float | None = None
    images: Path | None = None
    results: Path | None = None


def parsed(arguments: Sequence[str]) -> Settings:
    """Settings from the arguments after `--`.

    Raises:
        ValueError: no such folder or model.
    """
    parser = argparse.ArgumentParser(prog="viewer", exit_on_error=False, add_help=False)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--models", nargs="+", default=[])
    parser.add_argument("--memory", type=float)
    parser.add_argument("--images", type=Path, default=_from_environment("HORINSIGHT_IMAGES"))
    parser.add_argument("--results", type=Path, default=_from_environment("HORINSIGHT_RESULTS"))
    try:
        given, _ = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(
            "After `--` the viewer expects --checkpoints DIR, --images DIR, --results DIR, --models NAME ... and "
            f"--memory GB: {error}."
        ) from error
    for option in ("checkpoints", "images", "results"):
        folder = getattr(given, option)
        if folder is not None and not folder.is_dir():
            raise ValueError(f"--{option} expects a folder, and {folder} is none.")
    unknown = [name for name in given.models if not timm.is_model(name)]
    if unknown:
        raise ValueError(f"--models: neither horinsight nor timm has {', '.join(unknown)}.")
    if given.memory is not None and not 0 < given.memory < float("inf"):
        raise ValueError(f"--memory expects gigabytes above 0, got {given.memory:g}.")
    models = tuple(dict.fromkeys((*MODELS, *given.models)))
    return Settings(models, given.checkpoints, given.memory, given.images, given.results)


def _from_environment(name: str) -> Path | None:
    """The folder that an environment variable names."""
    return Path(os.environ[name]) if os.environ.get(name) else None


@cache
def settings() -> Settings:
    """Those of this process."""
    return parsed(sys.argv[1:])


def checkpoint_files(folder: Path | None) -> list[str]:
    """Names of the weight files that lie in the folder itself; what a link leads to outside of it is left out."""
    if folder is None:
        return []
    root = folder.resolve()
    inside = (path for path in root.iterdir() if path.suffix in SUFFIXES and path.resolve().parent == root)
    return sorted(path.name for path in inside if path.is_file())


def checkpoint_path(folder: Path | None, name: str) -> Path:
    """The file of a name that `checkpoint_files` lists.

    Raises:
        ValueError: it lists no such name.
    """
    if folder is None or name not in checkpoint_files(folder):
        raise ValueError(
            f"No checkpoint of that name: expected one of {', '.join(checkpoint_files(folder)) or 'none'}."
        )
    return folder.resolve() / name
