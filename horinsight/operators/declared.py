"""Submodules that count as one non-linearity each, whatever they are made of."""

from collections.abc import Iterable

from torch import nn

from horinsight.operators.normalisation import is_torch_norm

Declared = type[nn.Module] | nn.Module | str


def declared_modules(operator: object, nonlinear: Iterable[Declared] = ()) -> dict[str, nn.Module]:
    """The submodules that count as one non-linearity each from the start: torch's norms, and those that are declared.

    Norms that somebody wrote by hand are told by what they compute when they are called, see `explicit_operators`.

    Args:
        operator: a module; anything else has none.
        nonlinear: classes, modules, or names of classes.

    Returns:
        Path → module; what lies inside one of them is not listed again.

    Raises:
        ValueError: a declared one is not there.

    Example:
        >>> declared_modules(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.PReLU()), [nn.PReLU]).keys()
        dict_keys(['1', '2'])
    """
    if not isinstance(operator, nn.Module):
        return {}
    wanted = [nonlinear] if isinstance(nonlinear, str | type | nn.Module) else list(nonlinear)
    found: dict[str, nn.Module] = {}
    met: set[int] = set()
    for path, module in operator.named_modules():
        hits = {index for index, what in enumerate(wanted) if _is_declared(module, what)}
        met |= hits
        inside = any(path.startswith(f"{outer}.") or outer == "" for outer in found)
        if (hits or is_torch_norm(module)) and not inside:
            found[path] = module
    missing = [what for index, what in enumerate(wanted) if index not in met]
    if missing:
        names = ", ".join(what if isinstance(what, str) else getattr(what, "__name__", str(what)) for what in missing)
        classes = ", ".join(sorted({type(module).__name__ for module in operator.modules()}))
        raise ValueError(f"Declared as a non-linearity but not in the operator: {names}. It is made of {classes}.")
    return found


def _is_declared(module: nn.Module, what: Declared) -> bool:
    if isinstance(what, str):
        return type(module).__name__ == what
    return isinstance(module, what) if isinstance(what, type) else module is what
