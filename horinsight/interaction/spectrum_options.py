"""What a measurement of interaction effects is asked for: every option of it, described once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict

from horinsight.operators.scope import Scope
from horinsight.options import check_fields, named, option

Method = Literal["auto", "nested", "closed_form"]


@dataclass(frozen=True, kw_only=True)
class SpectrumOptions:
    """Options of `interaction_spectrum` and `model_interaction_spectra`; what `ie`, forms and reports derive from.

    Attributes:
        scope: of the blocks of a model: "mixer", or "block" for the residual block with its norms, feed-forward part
            and layer scales.
        explicit: replace every non-linearity by its tangent at x, so that what remains is what the architecture
            introduces by itself; otherwise the operator as it is ("functional").
        max_order: K, the highest order measured; for the blocks of a model None means two above the design's.
        num_tuples: chains i, j_1, …, j_K drawn per image; when None as many as are cheap in closed form, 128 to 4096,
            else 32; doubled where an effect is known less well than 0.25 and that is cheap (`draw_plan`).
        precision: draw on, twice as many each time, until each effect's log(high / low) / 2 is at most this.
        seconds: draw on as long as this takes, for each operator; with a precision until that is reached.
        method: "nested" (reverse mode, any operator), "closed_form" (gnConv only, some hundred times as fast), or
            "auto": the closed form where there is one.
        nonlinear: submodules that each count as one non-linearity: classes, modules or names of classes. Norms always
            do.
        seed: of every draw.
        batch_size: chains that are differentiated together, at most.
        memory: gigabytes (10⁹ bytes) that the graphs of nested derivatives may take: chains are differentiated as many
            at a time as that allows, and an order of which not even one chain fits is refused. Half of what the machine
            has free when None.

    Raises:
        ValueError: a value below its least, or a word that is none of its choices.

    Example:
        >>> SpectrumOptions(max_order=4, explicit=False).kind
        'functional'
    """

    scope: Scope = option(
        "mixer",
        "What is differentiated: the mixer alone, or the whole residual block with its norms and feed-forward part.",
        flag="--scope",
        label="What is differentiated",
        explained="The mixer alone, or the whole residual block with its norms and feed-forward part.",
    )
    explicit: bool = option(
        True,
        "Leave non-linearities as they are, instead of replacing each by its tangent at the image.",
        flag="--functional",
        negated=True,
        label="Non-linearities",
        key="kind",
        words=("explicit", "functional"),
        explained="Explicit: each non-linearity is replaced by its tangent at the picture, so that what remains is "
        "what the architecture introduces. Functional: they stay as they are, and most orders are open; a gⁿConv alone "
        "has none, so that both kinds agree on it.",
    )
    max_order: int | None = option(
        None,
        "Highest order measured.",
        flag="--max-order",
        metavar="K",
        least=0,
        default_in_words="the design's + 2",
        label="Highest order",
        offered=12,
        explained="Each order above the design's costs about twice the last, where there is no closed form.",
    )
    num_tuples: int | None = option(
        None,
        "Chains of positions drawn per image and block.",
        flag="--tuples",
        metavar="T",
        least=1,
        default_in_words="128 to 4096 in closed form, else 32",
        label="Chains per block",
        offered=512,
        explained="Random chains of positions i, j_1, j_2, ... that the mean is taken over.",
    )
    precision: float | None = option(
        None,
        "Draw until each effect is known to about this share of itself, half of the width of its interval.",
        flag="--precision",
        metavar="R",
        above=0,
        default_in_words="0.25, as far as that is cheap",
    )
    seconds: float | None = option(
        None, "Draw as long as this takes for each block, at most.", flag="--seconds", metavar="S", above=0
    )
    method: Method = option(
        "auto",
        "Derivatives: nested reverse mode, or the closed form of gnConv, which auto takes where there is one.",
        flag="--method",
    )
    nonlinear: tuple[Any, ...] = option(
        (),
        "Class of modules that count as one non-linearity each, as norms always do. Repeatable.",
        flag="--nonlinear",
        metavar="CLASS",
    )
    seed: int = option(0, "Of every draw.")
    batch_size: int = option(16, "Chains that are differentiated together.", least=1, changes_result=False)
    memory: float | None = option(
        None,
        "Gigabytes that nested derivatives may take: fewer chains at a time then, and no order beyond.",
        flag="--memory",
        metavar="GB",
        above=0,
        default_in_words="half of what is free",
        changes_result=False,
    )

    def __post_init__(self) -> None:
        wanted = self.nonlinear
        alone = isinstance(wanted, str | type) or not isinstance(wanted, list | tuple | set | frozenset)
        object.__setattr__(self, "nonlinear", (wanted,) if alone else tuple(wanted))
        check_fields(self)
        if self.nonlinear and not self.explicit:
            raise ValueError(
                "nonlinear declares tangents, which functional effects do not take: leave one of them out."
            )

    @property
    def kind(self) -> str:
        """ "explicit" or "functional"."""
        return "explicit" if self.explicit else "functional"

    @property
    def scope_in_words(self) -> str:
        """What is differentiated, for titles."""
        return "whole block" if self.scope == "block" else "mixer"

    def recorded(self) -> "SpectrumOptions":
        """The options as a result keeps them: declared classes and modules by their names."""
        return replace(self, nonlinear=tuple(named(item) for item in self.nonlinear))


class SpectrumKeywords(TypedDict, total=False):
    """The fields of `SpectrumOptions` that an operator has, as keyword arguments."""

    explicit: bool
    max_order: int | None
    num_tuples: int | None
    precision: float | None
    seconds: float | None
    method: Method
    nonlinear: Any
    seed: int
    batch_size: int
    memory: float | None


class BlockSpectrumKeywords(SpectrumKeywords, total=False):
    """All fields of `SpectrumOptions`, and what the provenance is told, as keyword arguments."""

    scope: Scope
    model_name: str | None
    image_names: Sequence[str] | None
