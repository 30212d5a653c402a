"""What `horinsight ie --compare` writes: ratios of effects with their intervals, block by block."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from horinsight.cli.output import images_note, skipped_notes, untrained_note
from horinsight.interaction.spectrum_comparison import SpectrumComparison
from horinsight.report import Column, Report, Row
from horinsight.results import Provenance

if TYPE_CHECKING:
    from horinsight.mixers.blocks import MixingBlock

PER_ORDER = {  # field → key of a row
    "first_effects": "first_effect",
    "second_effects": "second_effect",
    "ratios": "ratio",
    "ci_low": "ci_low",
    "ci_high": "ci_high",
    "correlations": "correlation",
}


def comparison_report(
    comparisons: "Mapping[MixingBlock, SpectrumComparison]",
    *,
    settings: Mapping[str, Any],
    other: str,
    skipped: Mapping[str, str],
) -> Report:
    """The report.

    Args:
        comparisons: in the order of the network; at least one.
        settings: what was asked for.
        other: what the blocks are compared with, as it was asked for.
        skipped: name of a picture → why it cannot be read.
    """
    one = next(iter(comparisons.values()))
    origin, partner, options = one.provenance, one.second_provenance, one.options
    assert origin is not None
    assert options is not None
    rows = [row for block, comparison in comparisons.items() for row in _rows(block, comparison)]
    conventions = [comparison.convention for comparison in comparisons.values()]
    shared = {key: words for key, words in one.convention.items() if all(c.get(key) == words for c in conventions)}
    over = f"block {other}" if other.isdecimal() else other
    return Report(
        title=f"Interaction effects of {origin.model} over those of {over}, {options.kind}, "
        f"by {options.scope_in_words}",
        columns=[
            Column("block", "index"),
            Column("name", "first"),
            Column("over", "second"),
            Column("k", "k"),
            Column("effect", functools.partial(_number, "first_effect")),
            Column("of the other", functools.partial(_number, "second_effect")),
            Column("ratio", functools.partial(_number, "ratio")),
            Column("from", functools.partial(_number, "ci_low")),
            Column("to", functools.partial(_number, "ci_high")),
        ],
        rows=rows,
        notes=[*_notes(list(comparisons.values()), one, partner), *skipped_notes(skipped)],
        head={
            "model": origin.model,
            "weights": _weights(origin),
            "images": list(origin.images),
            "skipped": dict(skipped),
            "compared_with": {
                "asked_for": other,
                "model": partner.model if partner else None,
                "weights": _weights(partner),
                "images": list(partner.images) if partner else None,
            },
            "convention": shared,
            "seed": origin.seed,
            "versions": origin.versions,
            "settings": settings,
        },
        rows_key="ratios",
    )


def _rows(block: "MixingBlock", comparison: SpectrumComparison) -> Iterator[dict[str, Any]]:
    """A row per order."""
    origin = comparison.provenance
    for k in range(len(comparison.ratios)):
        yield {
            "model": origin.model if origin else None,
            "trained": origin.trained if origin else None,
            "index": block.index,
            "first": comparison.first,
            "second": comparison.second,
            "first_order": comparison.first_order,
            "second_order": comparison.second_order,
            "k": k,
            **{key: float(getattr(comparison, name)[k]) for name, key in PER_ORDER.items()},
            "target": comparison.target,
            "common_draws": comparison.common_draws,
            "first_num_draws": comparison.num_draws[0],
            "second_num_draws": comparison.num_draws[1],
        }


def _weights(origin: Provenance | None) -> dict[str, Any] | None:
    if origin is None:
        return None
    return {"source": origin.weights, "trained": origin.trained, "sha256": origin.weights_sha256}


def _number(key: str, row: Row) -> str | None:
    """Three digits; nothing where there is no ratio of zeros."""
    value: float = row[key]
    if np.isnan(value):
        return None
    return ">any" if np.isinf(value) else f"{value:.3g}"


def _notes(all_of_them: Sequence[SpectrumComparison], one: SpectrumComparison, partner: Provenance | None) -> list[str]:
    origin = one.provenance
    assert origin is not None
    notes = [untrained_note(origin.trained, origin.weights)]
    if partner is not None and partner.weights_sha256 != origin.weights_sha256:
        notes.append(f"over: {partner.model}, {untrained_note(partner.trained, partner.weights)}")
    images = [images_note(part.images).removeprefix("images: ") for part in (origin, partner) if part is not None]
    notes.append(f"images: {'; over: '.join(dict.fromkeys(images))}; seed {origin.seed}")
    common = sum(comparison.common_draws for comparison in all_of_them)
    notes += [
        f"{one.convention['ratio']}, with 95 % intervals at {one.target}; >any where the other is an exact zero, · "
        "where both are",
        f"effect_k: {one.convention.get('effect', 'as each result says')}",
        f"draws: common to both in {common} of {len(all_of_them)} blocks (same locations, neighbours and directions), "
        "else counted as independent",
    ]
    return notes
