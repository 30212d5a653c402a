"""Whether a map depends on what the model has learnt: it is compared while the weights are redrawn."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.attribution.map_comparison_results import RandomizedMaps
from horinsight.attribution.method_calls import Method, called
from horinsight.attribution.rank_correlations import rank_correlations
from horinsight.attribution.redrawn_weights import (
    Redraw,
    check_stages,
    head_down_stages,
    redraw,
    redrawable,
    restored_parameters,
)
from horinsight.capture import check_batch, evaluation
from horinsight.models.provenance import model_provenance, picture_names


def randomized_maps(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    methods: Mapping[str, Method],
    *,
    stages: Sequence[str] | None = None,
    how: Redraw = "matching",
    seed: int = 0,
    on_stage: Callable[[str], None] | None = None,
) -> RandomizedMaps:
    """How like the trained maps those are of a model whose weights are redrawn, one stage after the other.

    A cascade (Adebayo et al. 2018): after each stage it and all before it are redrawn. A map that stays what it was
    does not show what the model has learnt; one that changes need not show it either. Trained norms and layer scales
    are kept (`redrawable`), so that redrawn blocks still do something.

    Args:
        model: a network; its parameters and buffers are afterwards bit for bit what they were, also after an error. Who
            uses it meanwhile sees redrawn weights.
        images: (B, C, H, W), prepared as the model expects them.
        targets: (B,), classes that the maps are of: the same after each stage.
        methods: name → from (images, targets), all at once, to maps (B, h, w), through the model's own weights.
        stages: names of modules; `head_down_stages` when None.
        how: "matching", normal with each tensor's root mean square, or "init", by each layer's own.
        seed: of the weights; the same stage in the same place draws the same.
        on_stage: called after each stage.

    Returns:
        Spearman's correlations of maps with those of the trained model.

    Raises:
        ValueError: no such module, one without weights to redraw, a method that gives no map.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> found = randomized_maps(model, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), {"x": lambda x, t: x.sum(1)})
        >>> found.stages, found.correlations.tolist()  # the picture itself has learnt nothing
        (('3', '0'), [[[1.0, 1.0], [1.0, 1.0]]])
    """
    check_batch(images)
    names = tuple(head_down_stages(model) if stages is None else stages)
    check_stages(model, names)
    if how not in ("matching", "init"):
        raise ValueError(f"how expects 'matching' or 'init', got {how!r}.")
    modules = dict(model.named_modules())
    provenance = model_provenance(model, image_names=picture_names(images), seed=seed)

    def maps_now() -> list[np.ndarray]:
        found = []
        with torch.inference_mode(False), evaluation(model):
            for name, method in methods.items():
                maps = called(method, images, targets, name=name, seeds=[seed])  # the same draws at each stage
                found.append(maps.flatten(1).double().cpu().numpy())
        return found

    trained = maps_now()
    signed, magnitudes = [], []
    with restored_parameters(model):
        for place, name in enumerate(names):
            redraw(modules[name], how, int(np.random.default_rng([seed, place]).integers(2**63)))
            now = maps_now()
            signed.append([rank_correlations(a, b) for a, b in zip(trained, now, strict=True)])
            magnitudes.append([rank_correlations(abs(a), abs(b)) for a, b in zip(trained, now, strict=True)])
            if on_stage is not None:
                on_stage(name)
    parts = {name: redrawable(modules[name]) for name in names}
    return RandomizedMaps(
        methods=tuple(methods),
        stages=names,
        correlations=np.array(signed).swapaxes(0, 1),
        magnitudes=np.array(magnitudes).swapaxes(0, 1),
        redrawn={name: sum(weight.numel() for weight in redrawn.values()) for name, (redrawn, _) in parts.items()},
        kept={name: tuple(kept) for name, (_, kept) in parts.items()},
        seed=seed,
        convention={
            "correlation": "Spearman's with the trained model's map, pixel by pixel, ties with their mean rank",
            "magnitude": "the same of absolute values",
            "cascade": "after each stage it and all before it are redrawn",
            "redrawn": "normal, mean 0, root mean square as trained" if how == "matching" else "each layer's own init",
            "kept": "norms, layer scales and other parameters of one dimension that stand beside no weight",
            "interval": "95 % for images like these: Student's over pictures, at these weights",
        },
        provenance=provenance,
    )
