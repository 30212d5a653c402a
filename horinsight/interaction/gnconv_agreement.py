"""Whether a module that is made of a gnConv's parts computes what its closed form says, and nothing else.

Three things are compared, in float64, at the operating point and away from it (masks and comparisons leave no trace at
one point), wherever the module's forward pass comes from: its class, a subclass, a patched instance, a hook.

- The values at the border of the map (corners and all), in its middle and at cells drawn at random.
- Their gradient, because what is detached has the value and not the derivatives.
- The degree that the module's graph has as a polynomial, n + 1, because what is too small to be seen in a value still
  has derivatives, whose zeros would be wrong.

They agree up to rounding: what the recursion is off by in float32, times the ratio of the two epsilons. A `GnConv` that
nobody has altered, and whose parts nobody has, needs no comparison: its code is what the closed form was derived from.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode

from horinsight.interaction.derivative_graph import polynomial_degree
from horinsight.models.elementwise import Product, Scaled
from horinsight.models.global_local_filter import CircularConv, GlobalLocalFilter
from horinsight.models.gnconv import GnConv, channel_product
from horinsight.operators.tangent import explicit_operators
from horinsight.torch_private import TO_COPY, DispatchMode, tree_map_only

if TYPE_CHECKING:
    from horinsight.interaction.gnconv_effect import GnConvClosedForm

ROUNDINGS = 64  # two ways to sum differ by a few of the largest rounding error of either: never by so many
NUM_DRAWN = 256  # cells beside the border and the middle: all there are on maps up to 16x16

# The classes that an unaltered GnConv is made of, with the forward passes that they had when this was imported.
_OWN_CODE = {
    kind: kind.forward
    for kind in (
        GnConv, Product, Scaled, nn.ModuleList, nn.Conv2d, nn.AvgPool2d, GlobalLocalFilter, CircularConv, LayerNorm2d
    )
}  # fmt: skip


def is_unaltered(operator: nn.Module) -> bool:
    """Whether a module is a `GnConv` whose code is its own: no subclass, patch, hook or foreign part anywhere in it.

    Example:
        >>> module, patched = GnConv(4, 2), GnConv(4, 2)
        >>> patched.pws[0].forward = torch.relu
        >>> is_unaltered(module), is_unaltered(patched)
        (True, False)
    """
    if type(operator) is not GnConv or any(vars(module_hooks)[name] for name in _GLOBAL_HOOKS):
        return False
    gates = (operator.gate, *operator.gates)
    in_place = type(operator.scaled) is Scaled and all(type(gate) is Product for gate in gates)
    if not in_place or len(gates) != operator.order or operator.order != len(operator.pws) + 1:
        return False
    widths = [layer.in_channels for layer in (*operator.pws, operator.proj_out) if type(layer) is nn.Conv2d]
    return widths == list(operator.dims) and all(_has_own_code(part) for part in operator.modules())


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = [f"_global{name}" for name in _HOOKS]


def _has_own_code(part: nn.Module) -> bool:
    kind, own = type(part), vars(part)
    if _OWN_CODE.get(kind) is not kind.forward or any(own[name] for name in _HOOKS):
        return False
    replaced = [name for name in own if callable(getattr(kind, name, None))]
    return all(name == "_conv_forward" and own[name] is channel_product for name in replaced)


def computes_its_form(
    operator: nn.Module, form: "GnConvClosedForm", narrow: "GnConvClosedForm", x: Tensor, *, explicit: bool
) -> bool:
    """Whether values, gradient and degree of a module are those of its closed form.

    Args:
        operator: the module.
        form: its closed form in float64.
        narrow: the same in float32.
        x: operating points (B, C, H, W), looked at one by one.
        explicit: whether non-linearities are taken by their tangents.

    Returns:
        False, too, where the module cannot be run in float64.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast(x.device.type, enabled=False))
        stack.enter_context(torch.enable_grad())
        for at in x.detach().to(torch.float64, copy=True).split(1):
            noise = torch.randn(at.shape, generator=generator, dtype=at.dtype, device="cpu").to(x.device)
            probes = torch.cat([at, 1.5 * at.std() * noise - at])
            cells = _cells((x.shape[2], x.shape[3]), generator).to(x.device)
            size = len(probes), form.num_channels, len(cells)
            signs = torch.randint(0, 2, size, generator=generator, device="cpu").to(at) * 2 - 1
            found = _found(operator, probes, cells, signs, degree=len(form.dims) + 1, explicit=explicit)
            if found is None:
                return False
            expected, rough = (_expected(one, probes, cells, signs) for one in (form, narrow))
            if not all(_agree(*three) for three in zip(found, expected, rough, strict=True)):
                return False
    return True


def _cells(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """All cells of the border, the middle one and some that are drawn."""
    H, W = size
    grid = torch.arange(H * W, device="cpu").view(H, W)
    border = torch.cat([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    drawn = torch.randperm(H * W, generator=generator, device="cpu")[:NUM_DRAWN]
    cells: Tensor = torch.cat([border, grid[H // 2, W // 2][None], drawn]).unique()
    return cells


def _found(
    operator: nn.Module, probes: Tensor, cells: Tensor, signs: Tensor, *, degree: int, explicit: bool
) -> tuple[Tensor, Tensor] | None:
    """The module's values at the cells and their gradient; None if shape or degree are others, or it does not run."""
    leaf = probes.clone().requires_grad_()
    with ExitStack() as stack:
        if explicit:
            stack.enter_context(explicit_operators(operator))
        stack.enter_context(_StayInFloat64())
        stack.enter_context(_Widened(operator))
        try:
            output: Any = operator(leaf.clone())
        except RuntimeError:
            return None  # numbers of its own in another precision, say: whoever differentiates it runs it as it is
    if not isinstance(output, Tensor) or output.shape != (len(probes), signs.shape[1], *probes.shape[2:]):
        return None
    if polynomial_degree(output, leaf) != degree:
        return None
    values = output.flatten(2)[:, :, cells]
    (gradient,) = torch.autograd.grad((values * signs).sum(), leaf)
    return values.detach(), gradient


def _expected(form: "GnConvClosedForm", probes: Tensor, cells: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """The same of a closed form."""
    leaf = probes.to(form.dtype, copy=True).requires_grad_()
    num = len(probes)
    image = torch.arange(num, device=cells.device).repeat_interleave(len(cells))
    values = form.value(leaf, image, cells.repeat(num)).unflatten(0, (num, -1)).transpose(1, 2)
    (gradient,) = torch.autograd.grad((values * signs.to(form.dtype)).sum(), leaf)
    return values.detach(), gradient


def _agree(found: Tensor, expected: Tensor, rough: Tensor) -> bool:
    """Whether two tensors are equal but for rounding, for each probe."""
    found, expected, rough = (part.double().flatten(1) for part in (found, expected, rough))
    ratio = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    rounding = ratio * (rough - expected).abs().amax(1) + torch.finfo(torch.float64).eps * expected.abs().amax(1)
    return bool(((found - expected).abs().amax(1) <= ROUNDINGS * rounding).all())


class _Widened(TorchFunctionMode):
    """Hands functions of torch copies of a module's tensors in float64, in this thread alone.

    So the module keeps its own (`torch.func.functional_call` would put others into it), and other threads may run it.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        own = (part for part in chain(module.parameters(), module.buffers()) if part.is_floating_point())
        self._wide = {id(part): part.detach().to(torch.float64, copy=True) for part in own}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tree_map_only(
            Tensor, lambda tensor: self._wide.get(id(tensor), tensor), (args, dict(kwargs or {}))
        )
        return func(*args, **kwargs)


class _StayInFloat64(DispatchMode):
    """Leaves float64 alone where a forward pass narrows it, as the published GF does."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        wanted = kwargs.get("dtype")
        narrows = isinstance(wanted, torch.dtype) and wanted.is_floating_point
        if narrows and func is TO_COPY and args[0].dtype == torch.float64:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)
