"""Branches that a constructor starts at zero: with random weights they would hide what a network is made for.

A residual branch whose last norm has a scale of 0, a gate or a layer scale of 0, a last layer of zeros: what comes
before has no influence, and its order would be 0. Trained weights are left as they are.
"""

import torch
from torch import nn

STD = 0.02  # of weights that are drawn in place of zeros, as of timm's other linear layers
GATE_STD = 0.5  # of gates and scales, which multiply a branch


def opened_branches(model: nn.Module, *, seed: int = 0) -> str:
    """Set parameters that hold a branch at zero to something else; what was done, in words.

    Norm scales of 0 become 1. Weights of convolutions and linear layers that are all 0 are drawn from N(0, 0.02²),
    other parameters that multiply (layer scales, gates, the weight of a response norm) from N(0, 0.5²). Biases,
    embeddings and tables of positions may be 0: they add.

    Args:
        model: with random weights; changed in place.
        seed: of what is drawn.

    Returns:
        "" where nothing was zero, else words that follow a comma.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> _ = nn.init.zeros_(norm.weight)
        >>> opened_branches(norm), norm.weight.tolist()
        (', norm scales of 0 set to 1', [1.0, 1.0])
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    ones = drawn = 0
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or parameter.is_meta or not parameter.is_floating_point() or parameter.any():
                continue
            way = _way(module, name, parameter)
            with torch.no_grad():
                if way == "one":
                    parameter.fill_(1.0)
                    ones += 1
                elif way:
                    std = STD if way == "weight" else GATE_STD
                    values = torch.randn(parameter.shape, generator=generator, device="cpu") * std
                    parameter.copy_(values)
                    drawn += 1
    words = ["norm scales of 0 set to 1"] * bool(ones)
    words += [f"{drawn} parameters of 0 drawn that hold branches shut"] * bool(drawn)
    return "".join(f", {word}" for word in words)


def shut_by(model: nn.Module) -> list[str]:
    """Paths of the parameters that hold a branch at zero: all their numbers are 0, and they multiply.

    With trained weights, which are measured as they are, this is why what is behind them has no effect.

    Example:
        >>> layer = nn.Linear(3, 3)
        >>> _ = nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
        >>> shut_by(nn.Sequential(layer, nn.LayerNorm(3)))
        ['0.weight']
    """
    return [
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
        and not parameter.is_meta
        and parameter.is_floating_point()
        and not parameter.any()
        and _way(module, name, parameter)
    ]


def _way(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    """What a parameter of zeros becomes: "one", drawn as a "weight" or as a "gate", or "" for what may be 0."""
    multiplies = ("gamma", "scale", "alpha", "gain", "gate", "ls", "weight")
    adds = ("bias", "beta", "pos", "token", "rel", "table", "embed", "shift", "query", "mask")
    short = name.lower()
    normalises = "Norm" in type(module).__name__ and "Response" not in type(module).__name__
    if short == "weight" and normalises and parameter.ndim == 1:
        return "one"
    if any(word in short for word in adds):
        return ""
    if short == "weight" and parameter.ndim >= 2:
        return "weight"
    return "gate" if any(word in short for word in multiplies) else ""
