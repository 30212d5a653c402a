"""Trained weights that come with a model, and how they were made."""

import json
from pathlib import Path
from typing import Any


def packaged_weights(name: str) -> Path | None:
    """The file of trained weights that comes with a model; None for most.

    Example:
        >>> packaged_weights("hornet_digits_iso").suffix, packaged_weights("hornet_tiny_7x7")
        ('.safetensors', None)
    """
    path = Path(__file__).parent / "weights" / f"{name}.safetensors"
    return path if path.exists() else None


def model_card(name: str) -> dict[str, Any]:
    """How the weights that come with a model were made: data, split, recipe, seed, accuracy, versions, hashes.

    Raises:
        ValueError: the model comes without weights.

    Example:
        >>> model_card("hornet_digits_iso")["data"]["held_out"]
        359
    """
    weights = packaged_weights(name)
    if weights is None:
        raise ValueError(f"{name} comes without trained weights.")
    card: dict[str, Any] = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    return card
