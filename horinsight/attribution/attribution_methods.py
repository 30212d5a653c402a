"""The ways to attribute, by name, and what each of them needs; read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Need = Literal["gradient", "baseline", "baselines", "layer", "window", "samples", "steps", "relu"]
Question = Literal["position", "prediction"]


@dataclass(frozen=True)
class AttributionMethod:
    """One way to attribute.

    Attributes:
        name: by which it is asked for.
        constructor: the class that does it, "module:name", ours or captum's.
        family: "gradient", "path", "perturbation", "relevance", "layer" or "mixing".
        needs: "baseline", one that means nothing is there; "baselines", several of them; a "layer" of the network; a
            "gradient"; nn.ReLU modules ("relu"); what it takes of the options: "window", "samples", "steps".
        answers: what it can be asked about.
        samples: how many draws when nobody says.
        signed: whether it can be negative.
        adds_up: whether its sum should be the output's difference to that at the baseline, of LRP the output; results
            say by how much it is not.
    """

    name: str
    constructor: str
    family: str
    needs: tuple[Need, ...] = ()
    answers: tuple[Question, ...] = ("position", "prediction")
    samples: int | None = None
    signed: bool = True
    adds_up: bool = False


_GRADIENT: tuple[Need, ...] = ("gradient",)
_PATH: tuple[Need, ...] = ("gradient", "baseline")

_ALL = (
    AttributionMethod("saliency", "captum.attr:Saliency", "gradient", _GRADIENT, signed=False),
    AttributionMethod("input_x_gradient", "captum.attr:InputXGradient", "gradient", _GRADIENT),
    AttributionMethod("guided_backprop", "captum.attr:GuidedBackprop", "gradient", ("gradient", "relu")),
    AttributionMethod("deconvolution", "captum.attr:Deconvolution", "gradient", ("gradient", "relu")),
    AttributionMethod(
        "integrated_gradients", "captum.attr:IntegratedGradients", "path", (*_PATH, "steps"), adds_up=True
    ),
    AttributionMethod("deep_lift", "captum.attr:DeepLift", "path", _PATH, adds_up=True),
    AttributionMethod("deep_lift_shap", "captum.attr:DeepLiftShap", "path", ("gradient", "baselines"), adds_up=True),
    AttributionMethod(
        "gradient_shap", "captum.attr:GradientShap", "path", ("gradient", "baselines", "samples"), samples=16
    ),
    AttributionMethod("feature_ablation", "captum.attr:FeatureAblation", "perturbation", ("baseline", "window")),
    AttributionMethod("occlusion", "captum.attr:Occlusion", "perturbation", ("baseline", "window")),
    AttributionMethod(
        "shapley_value_sampling",
        "captum.attr:ShapleyValueSampling",
        "perturbation",
        ("baseline", "window", "samples"),
        samples=25,
        adds_up=True,
    ),
    AttributionMethod("lime", "captum.attr:Lime", "perturbation", ("baseline", "window", "samples"), samples=200),
    AttributionMethod(
        "kernel_shap",
        "captum.attr:KernelShap",
        "perturbation",
        ("baseline", "window", "samples"),
        samples=200,
        adds_up=True,
    ),
    AttributionMethod("lrp", "captum.attr:LRP", "relevance", _GRADIENT, adds_up=True),
    AttributionMethod("grad_cam", "captum.attr:LayerGradCam", "layer", ("gradient", "layer")),
    AttributionMethod("layer_activation", "captum.attr:LayerActivation", "layer", ("layer",)),
    AttributionMethod(
        "layer_gradient_x_activation", "captum.attr:LayerGradientXActivation", "layer", ("gradient", "layer")
    ),
    AttributionMethod(
        "layer_integrated_gradients",
        "captum.attr:LayerIntegratedGradients",
        "layer",
        ("gradient", "baseline", "layer", "steps"),
        adds_up=True,
    ),
    AttributionMethod(
        "layer_conductance",
        "captum.attr:LayerConductance",
        "layer",
        ("gradient", "baseline", "layer", "steps"),
        adds_up=True,
    ),
    AttributionMethod(
        "layer_internal_influence", "captum.attr:InternalInfluence", "layer", ("gradient", "baseline", "layer", "steps")
    ),
    AttributionMethod(
        "layer_deep_lift", "captum.attr:LayerDeepLift", "layer", ("gradient", "baseline", "layer"), adds_up=True
    ),
    AttributionMethod(
        "mixing_weights",
        "horinsight.attribution.mixing_attribution:MixingWeightsAttribution",
        "mixing",
        answers=("position",),
    ),
    AttributionMethod(
        "influence",
        "horinsight.attribution.influence_attribution:InfluenceAttribution",
        "mixing",
        ("gradient", "samples"),
        ("position",),
        samples=16,
        signed=False,
    ),
    AttributionMethod(
        "interaction",
        "horinsight.attribution.interaction_attribution:InteractionAttribution",
        "mixing",
        ("gradient", "samples"),
        ("position",),
        samples=16,
        signed=False,
    ),
    AttributionMethod(
        "mixing_rollout",
        "horinsight.attribution.rollout_attribution:RolloutAttribution",
        "mixing",
        signed=False,
    ),
    AttributionMethod(
        "influence_rollout",
        "horinsight.attribution.rollout_attribution:RolloutAttribution",
        "mixing",
        ("gradient", "samples"),
        samples=4,
        signed=False,
    ),
)

ATTRIBUTION_METHODS: Mapping[str, AttributionMethod] = {method.name: method for method in _ALL}


def attribution_method(name: str, question: Question | None = None) -> AttributionMethod:
    """The method of a name.

    Args:
        name: one of `ATTRIBUTION_METHODS`.
        question: what it is to be asked about; anything when None.

    Raises:
        ValueError: there is none, or it cannot answer; the nearest names are said.

    Example:
        >>> attribution_method("integrated_gradients").needs
        ('gradient', 'baseline', 'steps')
        >>> attribution_method("integrated")
        Traceback (most recent call last):
            ...
        ValueError: method expects the name of an attribution method, got 'integrated': did you mean ...?
    """
    found = ATTRIBUTION_METHODS.get(name) if isinstance(name, str) else None
    names = [one.name for one in _ALL if question is None or question in one.answers]
    if found is None:
        near = [one for one in names if str(name) in one] or get_close_matches(str(name), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(names)}."
        raise ValueError(f"method expects the name of an attribution method, got {name!r}: {hint}")
    if question is not None and question not in found.answers:
        raise ValueError(f"{name} tells of a {found.answers[0]}, not of a {question}: choose from {', '.join(names)}.")
    return found
