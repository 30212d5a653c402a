"""Interaction spectra as rows of a report, and back."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_options import SpectrumOptions
from horinsight.result_files import plain
from horinsight.results import Provenance

if TYPE_CHECKING:
    from horinsight.mixers.blocks import MixingBlock

PER_ORDER = ("effects", "ci_low", "ci_high", "exact_zero", "max_share")
LIKE_IMAGES = ("like_low", "like_high")  # None where there are too few images


def spectrum_row(block: "MixingBlock", spectrum: InteractionSpectrum) -> dict[str, Any]:
    """One block as JSON has it."""
    return {
        "index": block.index,
        "name": block.name,
        "mixer": block.mixer,
        "declared_order": block.order,
        "location_order": spectrum.location_order,
        "degree_order": spectrum.degree_order,
        "at_least": spectrum.at_least,
        **{key: getattr(spectrum, key).tolist() for key in PER_ORDER},
        "target": spectrum.target,
        **{key: None if (ends := getattr(spectrum, key)) is None else ends.tolist() for key in LIKE_IMAGES},
        "num_draws": spectrum.num_draws,
        "unlisted": list(spectrum.unlisted),
        "shortfalls": list(spectrum.shortfalls),
        "convention": dict(spectrum.convention),
        "options": plain(spectrum.options),
    }


def spectrum_of_row(row: Mapping[str, Any], seed: int, provenance: Provenance | None) -> InteractionSpectrum:
    """What `spectrum_row` wrote."""
    effects, ci_low, ci_high, exact_zero, max_share = (np.array(row[key]) for key in PER_ORDER)
    like_low, like_high = (None if row.get(key) is None else np.array(row[key]) for key in LIKE_IMAGES)
    return InteractionSpectrum(
        effects,
        ci_low,
        ci_high,
        exact_zero,
        max_share,
        location_order=row["location_order"],
        degree_order=row["degree_order"],
        at_least=row["at_least"],
        num_draws=row["num_draws"],
        unlisted=tuple(row["unlisted"]),
        convention=dict(row["convention"]),
        target=row.get("target", InteractionSpectrum.target),
        like_low=like_low,
        like_high=like_high,
        shortfalls=tuple(row.get("shortfalls", ())),
        seed=seed,
        provenance=provenance,
        options=SpectrumOptions(**row["options"]),
    )


def spectrum_lines(block: "MixingBlock", spectrum: InteractionSpectrum) -> Iterator[dict[str, Any]]:
    """The lines that one block has in a table with a line per order."""
    row, origin, options = spectrum_row(block, spectrum), spectrum.provenance, spectrum.options
    left_out = (*PER_ORDER, *LIKE_IMAGES, "shortfalls", "unlisted", "convention", "options")
    for k in range(len(spectrum.effects)):
        yield {
            "model": origin.model if origin else None,
            "trained": origin.trained if origin else None,
            **{key: value for key, value in row.items() if key not in left_out},
            "kind": options.kind if options else None,
            "scope": options.scope if options else None,
            "unlisted": " ".join(spectrum.unlisted),
            "k": k,
            "effect": row["effects"][k],
            **{key: row[key][k] for key in PER_ORDER[1:]},
            **{key: None if row[key] is None else row[key][k] for key in LIKE_IMAGES},
        }
