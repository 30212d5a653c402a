"""Where numbers computed with a model come from: its name, its weights, the pictures it was shown."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from horinsight.description import configuration_fields, weighted_part
from horinsight.models.origin import state_bytes, weights_origin
from horinsight.results import Provenance


def architecture_name(model: nn.Module) -> str:
    """The name under which timm built the model in a network, whatever it is wrapped in; its class for others.

    Example:
        >>> from horinsight.models.registry import model_without_weights
        >>> architecture_name(model_without_weights("hornet_test")), architecture_name(nn.Identity())
        ('hornet_test', 'Identity')
    """
    part = weighted_part(model)
    configuration = getattr(part, "pretrained_cfg", None)
    name = configuration_fields(configuration).get("architecture") if configuration else None
    return name or type(part).__name__


def picture_names(images: torch.Tensor) -> tuple[str, ...]:
    """What the pictures of a batch are called, as `image_batch` wrote it down; for others how many there are.

    Example:
        >>> picture_names(torch.zeros(2, 3, 8, 8))
        ('2 given as a tensor',)
    """
    return tuple(getattr(images, "image_names", (f"{len(images)} given as a tensor",)))


def model_provenance(
    model: nn.Module, *, model_name: str | None = None, image_names: Sequence[str] = (), seed: int = 0
) -> Provenance:
    """Where numbers computed with a model come from.

    Args:
        model: with the weights that it has now; in a wrapper it is the model inside that is described.
        model_name: its name; `architecture_name` when None.
        image_names: of the pictures that it is shown, see `picture_names`.
        seed: of the draws.
    """
    origin = weights_origin(model)
    return Provenance(
        model=model_name or architecture_name(model),
        weights=origin.source,
        trained=origin.trained,
        weights_sha256=weights_sha256(model),
        images=tuple(image_names),
        seed=seed,
    )


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of a model's state dict, as it is without wrappers around the model.

    Raises:
        ValueError: the model has no values (it is on the meta device).

    Example:
        >>> from horinsight.models.registry import create_model
        >>> weights_sha256(create_model("hornet_test"))[:8] == weights_sha256(create_model("hornet_test"))[:8]
        True
    """
    digest = hashlib.sha256()
    for name, value in sorted(weighted_part(model).state_dict().items()):
        if isinstance(value, Tensor) and value.is_meta:
            raise ValueError(f"{type(model).__name__} is on the meta device, without weights: use create_model.")
        kind = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        digest.update(f"{name} {kind}".encode())
        for piece in state_bytes(value):
            digest.update(piece)
    return digest.hexdigest()
