"""What captum's methods are asked in one go: a model of maps, its inputs, targets and baselines, all checked."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from horinsight.attribution.attribution_methods import AttributionMethod
from horinsight.attribution.attribution_options import AttributionOptions
from horinsight.attribution.forward_memory import saved_bytes

CELLS = 7  # along the longer side, when no window is said


@dataclass(frozen=True, eq=False)
class AskedAttribution:
    """One question to one of captum's methods, about N examples.

    Attributes:
        forward: (N, C, H, W), and `held` where it is there, to (N, targets).
        inputs: (N, C, H, W).
        target: (N,) which of the outputs.
        held: (N, ...) further argument; None where there is none.
        baselines: (M, C, H, W): one for each example, one for all, or several for all; None where there are none.
        layer: that layer methods tell of.
        options: how.
        together: how many examples may be differentiated together.
    """

    forward: nn.Module
    inputs: Tensor
    target: Tensor
    held: Tensor | None
    baselines: Tensor | None
    layer: nn.Module | None
    options: AttributionOptions
    together: int

    @property
    def baseline(self) -> Tensor:
        """The one baseline of each example."""
        assert self.baselines is not None
        return self.baselines.expand_as(self.inputs)

    @property
    def window(self) -> int:
        """Side of the squares that are covered together."""
        return self.options.window or -(-max(self.inputs.shape[2:]) // CELLS)

    @property
    def squares(self) -> Tensor:
        """(1, C, H, W) which square each element lies in, all channels together."""
        rows, columns = (torch.arange(side, device=self.inputs.device) // self.window for side in self.inputs.shape[2:])
        squares = rows[:, None] * (int(columns[-1]) + 1) + columns
        return squares.expand(1, self.inputs.shape[1], -1, -1).contiguous()  # captum views it

    def examples(self, index: Tensor) -> "AskedAttribution":
        """The same of some examples, each with its one baseline."""
        return replace(
            self,
            inputs=self.inputs[index],
            target=self.target[index],
            held=None if self.held is None else self.held[index],
            baselines=None if self.baselines is None else self.baseline[index],
        )

    def values(self, maps: Tensor) -> Tensor:
        """(N,) the output at the target for other inputs."""
        with torch.no_grad():
            output: Tensor = self.forward(maps) if self.held is None else self.forward(maps, self.held)
        return output.gather(1, self.target[:, None])[:, 0]


def checked_baselines(method: AttributionMethod, baselines: Tensor | float | None, inputs: Tensor) -> Tensor | None:
    """Baselines as maps, (1, C, H, W), one for each input, or for methods that take several as many as there are.

    Args:
        method: that needs one, several, or none.
        baselines: a number, a map (C, H, W), or maps (M, C, H, W).
        inputs: (B, C, H, W).

    Raises:
        ValueError: none where one is needed, or another shape.
    """
    several = "baselines" in method.needs
    if not several and "baseline" not in method.needs:
        return None
    shape = "x".join(map(str, inputs.shape[1:]))
    if baselines is None:
        what = f"several maps (M, {', '.join(map(str, inputs.shape[1:]))})" if several else f"a number or a map {shape}"
        raise ValueError(f"{method.name} compares with a baseline and got none: give baselines, {what}.")
    if isinstance(baselines, Tensor) and baselines.ndim:
        found = baselines.detach().to(inputs)
        found = found[None] if found.ndim == 3 else found
    else:
        found = torch.full_like(inputs[:1], float(baselines))
        found = found.expand(2, -1, -1, -1) if several else found
    allowed = len(found) > 1 if several else len(found) in (1, len(inputs))
    if found.ndim != 4 or found.shape[1:] != inputs.shape[1:] or not allowed:
        count = "at least 2" if several else f"1 or {len(inputs)}"
        raise ValueError(f"{method.name} expects baselines of {count} maps {shape}, got {tuple(found.shape)}.")
    return found


def examples_together(
    method: AttributionMethod, forward: nn.Module, x: Tensor, held: Tensor | None, options: AttributionOptions
) -> int:
    """How many examples may be differentiated, or run, together.

    Args:
        method: whose needs tell whether it differentiates.
        forward: the model.
        x: inputs, of which the first is run.
        held: its further argument.
        options: with the memory.

    Raises:
        ValueError: a method that needs a gradient where there is none, or ReLUs.
    """
    if "relu" in method.needs and not any(isinstance(part, nn.ReLU) for part in forward.modules()):
        raise ValueError(
            f"{method.name} changes the gradient of nn.ReLU modules, of which the network has none: it would be the "
            "plain gradient; take saliency or input_x_gradient."
        )
    doubled = "deep_lift" in method.name  # with its baseline, and by rules that keep more than a gradient needs
    further = () if held is None else (held[:1].repeat(1 + doubled, *[1] * (held.ndim - 1)),)
    try:
        with _rules(forward) if doubled else nullcontext():
            cost = saved_bytes(forward, x[:1].repeat(1 + doubled, 1, 1, 1), *further)
    except ValueError as error:
        if "gradient" in method.needs:
            raise ValueError(f"{method.name}: {error}") from error
        cost = 4 * x[:1].numel() * x.element_size()
    cost *= 3 if method.family == "relevance" else 1  # captum keeps activations of each of two passes
    return max(1, options.memory // max(1, cost))


def examples_a_call(method: AttributionMethod, together: int) -> int:
    """How many examples one call of a method takes, some of which it runs in pairs.

    Args:
        method: DeepLiftShap takes two baselines and more; conductance two steps and more.
        together: how many may be differentiated together.
    """
    pairs = "baselines" in method.needs or method.name == "layer_conductance"
    return max(1, together // 2) if pairs else together


def _rules(forward: nn.Module) -> AbstractContextManager[nn.Module]:
    from horinsight.attribution.deep_lift_rules import deep_lift_rules  # which imports captum

    return deep_lift_rules(forward)


@contextmanager
def drawn_by(seed: int) -> Iterator[None]:
    """What captum draws, from torch and numpy, is drawn by seed; both go on afterwards as if nothing had been drawn."""
    numpy_state = np.random.get_state()  # noqa: NPY002 (captum's GradientShap draws from it)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
