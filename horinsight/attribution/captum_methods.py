"""captum's methods, each called with what it needs: a map of attributions for each example, in bounded memory.

Where several elements are covered together (ablation, occlusion, Shapley values, LIME, KernelSHAP), captum gives each
of them the whole effect; here it is divided by their number, so that the sum over a square is the square's effect.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from horinsight.attribution.asked_attribution import AskedAttribution, drawn_by
from horinsight.attribution.attribution_methods import AttributionMethod
from horinsight.attribution.deep_lift_rules import deep_lift_rules
from horinsight.attribution.relevance_rules import captum_lrp_rules

STEPS, MOST_STEPS = 50, 800
GAP = 0.01  # of the output's difference, by which integrated gradients may miss it
ROUNDING = 1e-6  # captum's weights are in single precision

Call = Callable[[Any, AskedAttribution, int], Any]  # (captum's class, what is asked, draws) → attributions


def captum_attributions(method: AttributionMethod, asked: AskedAttribution) -> tuple[Tensor, Tensor | None]:
    """Attributions (N, C, rows, columns) by one of captum's methods, and by how much they miss what they add up to.

    Args:
        method: of captum.
        asked: what.

    Returns:
        The attributions, and (N,) their sum less the output's difference to that at the baseline (its mean over the
        baselines, where there are several; less the output, of LRP); None for methods that do not add up.

    Raises:
        ValueError: a layer that gives no maps (B, C, H, W), or modules that LRP has no rule for.
    """
    module, name = method.constructor.split(":")
    kind = getattr(import_module(module), name)
    samples = asked.options.samples or method.samples or 1
    with ExitStack() as stack:
        stack.enter_context(drawn_by(asked.options.seed))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", category=UserWarning, module="captum")  # of hooks, and of batches
        found = _CALLS[method.name](kind, asked, samples)
    found = found[0] if isinstance(found, tuple) else found
    if found.ndim != 4 or len(found) != len(asked.inputs):
        raise ValueError(
            f"layer expects a module that gives maps (B, C, H, W), got attributions of shape {tuple(found.shape)}."
        )
    found = found.detach().to(asked.inputs.dtype)
    return found, _gap(found, asked, "baselines" in method.needs) if method.adds_up else None


def _gap(found: Tensor, asked: AskedAttribution, several: bool) -> Tensor:
    difference = asked.values(asked.inputs)
    if several and asked.baselines is not None:
        at_baselines = [asked.values(one.expand_as(asked.inputs)) for one in asked.baselines]
        difference = difference - torch.stack(at_baselines).mean(0)
    elif asked.baselines is not None:
        difference = difference - asked.values(asked.baseline)
    return found.flatten(1).sum(1) - difference


def _said(asked: AskedAttribution) -> dict[str, Any]:
    return {"target": asked.target, "additional_forward_args": _further(asked)}


def _further(asked: AskedAttribution, part: slice = slice(None)) -> tuple[Tensor] | None:
    """As a tuple: of a tensor by itself captum takes the entries for arguments, in some places."""
    return None if asked.held is None else (asked.held[part],)


def _plain(kind: Any, asked: AskedAttribution, _: int) -> Any:
    return kind(asked.forward).attribute(asked.inputs, **_said(asked))


def _path(kind: Any, asked: AskedAttribution, _: int) -> Any:
    def attribute(part: AskedAttribution, steps: int) -> Tensor:
        found = kind(part.forward, *([] if part.layer is None else [part.layer])).attribute(
            part.inputs,
            baselines=part.baseline,
            n_steps=steps,
            internal_batch_size=max(len(part.inputs), part.together),
            **_said(part),
        )
        return (found[0] if isinstance(found, tuple) else found).detach()  # type: ignore[no-any-return]

    steps = asked.options.steps or STEPS
    found = attribute(asked, steps)
    if asked.options.steps is not None:
        return found
    difference = asked.values(asked.inputs) - asked.values(asked.baseline)
    while steps < MOST_STEPS:
        size, gap = found.flatten(1).abs().sum(1), found.flatten(1).sum(1) - difference
        missing = (gap.abs() > GAP * difference.abs() + ROUNDING * size).nonzero().flatten()
        if not len(missing):
            break
        steps *= 2
        found[missing] = attribute(asked.examples(missing), steps)
    return found


def _deep_lift(kind: Any, asked: AskedAttribution, _: int) -> Any:
    with deep_lift_rules(asked.forward):
        return kind(asked.forward).attribute(asked.inputs, baselines=asked.baseline, **_said(asked))


def _deep_lift_shap(kind: Any, asked: AskedAttribution, _: int) -> Any:
    """The mean over baselines, two and more of them together: that is what the method is."""
    assert asked.baselines is not None
    each = max(2, asked.together // len(asked.inputs))
    count = -(-len(asked.baselines) // each)
    total = torch.zeros_like(asked.inputs)
    with deep_lift_rules(asked.forward):
        for part in asked.baselines.tensor_split(count):
            twice = part if len(part) > 1 else part.expand(2, -1, -1, -1)  # captum takes no single one
            found = kind(asked.forward).attribute(asked.inputs, baselines=twice, **_said(asked))
            total += len(part) * found.detach()
    return total / len(asked.baselines)


def _gradient_shap(kind: Any, asked: AskedAttribution, samples: int) -> Any:
    each = max(1, asked.together // len(asked.inputs))
    total = torch.zeros_like(asked.inputs)
    for start in range(0, samples, each):
        count = min(each, samples - start)
        part = kind(asked.forward).attribute(asked.inputs, asked.baselines, n_samples=count, **_said(asked))
        total += count * part.detach()
    return total / samples


def _evaluations(asked: AskedAttribution) -> int:
    return max(1, asked.together // len(asked.inputs))


def _by_square(found: Tensor, asked: AskedAttribution) -> Tensor:
    """The effect of each square, in equal parts for its elements."""
    squares = asked.squares.flatten()
    return found / squares.bincount()[squares].view(1, *asked.inputs.shape[1:])


def _ablation(kind: Any, asked: AskedAttribution, _: int) -> Any:
    with torch.no_grad():
        found = kind(asked.forward).attribute(
            asked.inputs,
            baselines=asked.baseline,
            feature_mask=asked.squares,
            perturbations_per_eval=_evaluations(asked),
            **_said(asked),
        )
    return _by_square(found, asked)


def _occlusion(kind: Any, asked: AskedAttribution, _: int) -> Any:
    """Windows that overlap by half: a cell gets the mean over those that it is in."""
    C, rows, columns = asked.inputs.shape[1:]
    window = C, min(asked.window, rows), min(asked.window, columns)
    with torch.no_grad():
        found = kind(asked.forward).attribute(
            asked.inputs,
            sliding_window_shapes=window,
            strides=(C, *(max(1, side // 2) for side in window[1:])),
            baselines=asked.baseline,
            perturbations_per_eval=_evaluations(asked),
            **_said(asked),
        )
    return found / (window[0] * window[1] * window[2])


def _shapley(kind: Any, asked: AskedAttribution, samples: int) -> Any:
    with torch.no_grad():
        found = kind(asked.forward).attribute(
            asked.inputs,
            baselines=asked.baseline,
            feature_mask=asked.squares,
            n_samples=samples,
            perturbations_per_eval=_evaluations(asked),
            **_said(asked),
        )
    return _by_square(found, asked)


def _surrogate(kind: Any, asked: AskedAttribution, samples: int) -> Any:
    """A surrogate model for each example by itself."""
    if not int(asked.squares.max()):
        raise ValueError(f"{kind.__name__} needs two squares and more, got a window of {asked.window} that covers all.")
    found = []
    for index in range(len(asked.inputs)):
        one = slice(index, index + 1)
        with torch.no_grad():
            part = kind(asked.forward).attribute(
                asked.inputs[one],
                baselines=asked.baseline[one],
                feature_mask=asked.squares,
                n_samples=samples,
                perturbations_per_eval=asked.together,
                target=asked.target[one],
                additional_forward_args=_further(asked, one),
            )
        found.append(part)
    return _by_square(torch.cat(found), asked)


def _relevance(kind: Any, asked: AskedAttribution, _: int) -> Any:
    with captum_lrp_rules(asked.forward):
        return kind(asked.forward).attribute(asked.inputs, **_said(asked))


def _layer(kind: Any, asked: AskedAttribution, _: int) -> Any:
    return kind(asked.forward, asked.layer).attribute(asked.inputs, **_said(asked))


def _layer_activation(kind: Any, asked: AskedAttribution, _: int) -> Any:
    return kind(asked.forward, asked.layer).attribute(asked.inputs, additional_forward_args=_further(asked))


def _layer_conductance(kind: Any, asked: AskedAttribution, samples: int) -> Any:
    """Sums of changes of the layer from step to step, which reach from end to end by a rule that has both ends."""
    return _layer_steps(kind, asked, samples, method="riemann_trapezoid")


def _layer_steps(kind: Any, asked: AskedAttribution, _: int, **rule: str) -> Any:
    return kind(asked.forward, asked.layer).attribute(
        asked.inputs,
        baselines=asked.baseline,
        n_steps=asked.options.steps or STEPS,
        internal_batch_size=max(len(asked.inputs), asked.together),
        **_said(asked),
        **rule,
    )


def _layer_deep_lift(kind: Any, asked: AskedAttribution, _: int) -> Any:
    with deep_lift_rules(asked.forward):
        inputs = asked.inputs.detach().requires_grad_()  # for captum's hooks, where weights are frozen
        return kind(asked.forward, asked.layer).attribute(inputs, baselines=asked.baseline, **_said(asked))


_CALLS: Mapping[str, Call] = {
    "saliency": _plain,
    "input_x_gradient": _plain,
    "guided_backprop": _plain,
    "deconvolution": _plain,
    "integrated_gradients": _path,
    "deep_lift": _deep_lift,
    "deep_lift_shap": _deep_lift_shap,
    "gradient_shap": _gradient_shap,
    "feature_ablation": _ablation,
    "occlusion": _occlusion,
    "shapley_value_sampling": _shapley,
    "lime": _surrogate,
    "kernel_shap": _surrogate,
    "lrp": _relevance,
    "grad_cam": _layer,
    "layer_activation": _layer_activation,
    "layer_gradient_x_activation": _layer,
    "layer_integrated_gradients": _path,
    "layer_conductance": _layer_conductance,
    "layer_internal_influence": _layer_steps,
    "layer_deep_lift": _layer_deep_lift,
}
