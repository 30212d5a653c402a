"""What `horinsight ie` writes, and how an interrupted report is read again."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from horinsight.cli.output import images_note, refusal_notes, skipped_notes, untrained_note
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_rows import spectrum_lines, spectrum_of_row, spectrum_row
from horinsight.report import AT_LEAST, Column, Report, Row, shown_order
from horinsight.results import Provenance

SHOWN_SHORTFALLS = 3  # the others are in the JSON

if TYPE_CHECKING:
    from horinsight.mixers.blocks import MixingBlock


def ie_report(
    spectra: "Mapping[MixingBlock, InteractionSpectrum]",
    *,
    settings: Mapping[str, Any],
    num_blocks: int,
    refused: Mapping[str, str] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> Report:
    """The report, whole or as far as it is finished.

    Args:
        spectra: what is finished, in the order of the network; at least one.
        settings: what was asked for, see `finished_spectra`.
        num_blocks: how many there will be.
        refused: block name → why it cannot be measured, of those that the report goes without.
        skipped: name of a picture → why it cannot be read, likewise.
    """
    first = next(iter(spectra.values()))
    origin, convention, options = first.provenance, first.convention, first.options
    assert origin is not None
    assert options is not None
    rows = [spectrum_row(block, spectrum) for block, spectrum in spectra.items()]
    shared = {key: value for key, value in convention.items() if all(_same(row, key, value) for row in rows)}
    num_orders = max(len(row["effects"]) for row in rows)
    return Report(
        title=f"Interaction orders of {origin.model}, {options.kind}, by {options.scope_in_words}",
        columns=[
            Column("block", "index"),
            Column("name", "name"),
            Column("mixer", "mixer"),
            Column("design", "declared_order"),
            Column("order", functools.partial(_order, "location_order")),
            Column("degree", functools.partial(_order, "degree_order")),
            *(Column(f"k={k}", functools.partial(_effect, k)) for k in range(num_orders)),
        ],
        rows=rows,
        notes=[
            *_notes(rows, first, origin, num_blocks),
            *skipped_notes(skipped or {}),
            *refusal_notes(refused or {}),
        ],
        head={
            "model": origin.model,
            "weights": {"source": origin.weights, "trained": origin.trained, "sha256": origin.weights_sha256},
            "images": list(origin.images),
            "convention": shared,
            "seed": first.seed,
            "versions": origin.versions,
            "settings": settings,
            "complete": len(spectra) == num_blocks,
            "not_measured": dict(refused or {}),
            "skipped": dict(skipped or {}),
        },
        rows_key="blocks",
        lines=[line for block, spectrum in spectra.items() for line in spectrum_lines(block, spectrum)],
    )


def _order(key: str, row: Row) -> str:
    return shown_order(row[key], len(row["effects"]) - 1)


def _effect(k: int, row: Row) -> str | None:
    if k >= len(row["effects"]):
        return None
    return "0" if row["exact_zero"][k] else f"{row['effects'][k]:#.2g}".rstrip(".")


def _same(row: Row, key: str, value: str) -> bool:
    same: bool = row["convention"].get(key) == value
    return same


def finished_spectra(
    path: Path, *, settings: Mapping[str, Any], provenance: Provenance
) -> dict[str, InteractionSpectrum]:
    """The blocks that an interrupted run kept in its JSON report; none if there is no such file yet.

    Raises:
        ValueError: the file is another run's, or not a report.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {
            "model": content["model"],
            "weights": content["weights"]["sha256"],
            "images": content["images"],
            "seed": content["seed"],
            **content["settings"],
        }
        rows = {row["name"]: spectrum_of_row(row, content["seed"], provenance) for row in content["blocks"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--resume: {path} is not a report of `horinsight ie` in JSON.") from error
    wanted = {
        "model": provenance.model,
        "weights": provenance.weights_sha256,
        "images": list(provenance.images),
        "seed": provenance.seed,
        **settings,
    }
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"--resume: {path} was made with {key} {found.get(key)!r}, and now it is {value!r}: repeat the first "
                "command, or write to another file."
            )
    return rows


def _like_images(spectrum: InteractionSpectrum) -> str:
    return "" if spectrum.like_low is None else "; approximately also of images like these (like_low, like_high)"


def _notes(rows: Sequence[Row], first: InteractionSpectrum, origin: Provenance, num_blocks: int) -> list[str]:
    convention = first.convention
    fewest, most = (end(row["num_draws"] for row in rows) for end in (min, max))
    chains = f"{most}" if fewest == most else f"{fewest} to {most}"
    if "chains" in convention:
        chains += f" chains a block ({convention['chains']})"
    else:  # of before
        chains += " chains a block"
    notes = [
        untrained_note(origin.trained, origin.weights),
        f"{images_note(origin.images)}; {chains}, seed {first.seed}",
        f"effect_k: {convention['effect']}",
        f"intervals (JSON, CSV): 95 % of {first.target}, over what is drawn" + _like_images(first),
        f"non-linearities: {convention['non_linearities']}; derivatives: {convention['estimator']}",
        f'"0" is an exact zero: every draw is 0.0 bit for bit. {AT_LEAST}',
    ]
    shut = [row["convention"]["zero_weights"] for row in rows if "zero_weights" in row["convention"]]
    if shut:
        notes.append(f"what is behind weights of 0 has no effect: {', '.join(dict.fromkeys(shut))}")
    unlisted = sorted({name for row in rows for name in row["unlisted"]})
    if unlisted:
        notes.append(
            f"Derivatives do not end because of {', '.join(unlisted)}: neither linear, nor a product, nor a "
            "non-linearity on the list. Declare the module that calls it with --nonlinear."
        )
    short = [f"{row['name']}: {line}" for row in rows for line in row.get("shortfalls", ())]
    notes += short[:SHOWN_SHORTFALLS] + [f"and {len(short) - SHOWN_SHORTFALLS} more"] * (len(short) > SHOWN_SHORTFALLS)
    if len(rows) < num_blocks:
        notes.append(f"INTERRUPTED: {len(rows)} of {num_blocks} blocks.")
    return notes
