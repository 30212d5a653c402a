"""What `horinsight ie` writes: rows, JSON, CSV and the table; and how an interrupted report is read again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from horinsight.cli.output import json_text, text_table, untrained_note
from horinsight.interaction.spectrum import InteractionSpectrum
from horinsight.interaction.spectrum_rows import spectrum_lines, spectrum_of_row, spectrum_row
from horinsight.results import Provenance, csv_text

if TYPE_CHECKING:
    from horinsight.models.blocks import MixingBlock


def rendered(
    fmt: str,
    spectra: "Mapping[MixingBlock, InteractionSpectrum]",
    *,
    settings: Mapping[str, Any],
    num_blocks: int,
    to_file: bool,
) -> str:
    """The report in a format.

    Args:
        fmt: "json", "csv" or "table".
        spectra: what is finished, in the order of the network; at least one.
        settings: what was asked for, see `finished_spectra`.
        num_blocks: how many there will be.
        to_file: whether the table goes to a file.
    """
    first = next(iter(spectra.values()))
    origin = first.provenance
    assert origin is not None
    rows = [spectrum_row(block, spectrum) for block, spectrum in spectra.items()]
    if fmt == "json":
        shared = {key: value for key, value in first.convention.items() if all(_same(s, key, value) for s in rows)}
        content = {
            "model": origin.model,
            "weights": {"source": origin.weights, "trained": origin.trained, "sha256": origin.weights_sha256},
            "images": list(origin.images),
            "convention": shared,
            "seed": first.seed,
            "versions": origin.versions,
            "settings": settings,
            "complete": len(spectra) == num_blocks,
            "blocks": rows,
        }
        return json_text(content)
    if fmt == "csv":
        return csv_text([line for row in rows for line in spectrum_lines(origin, row)])
    return _table(rows, first, origin, num_blocks=num_blocks, to_file=to_file)


def _same(row: Mapping[str, Any], key: str, value: str) -> bool:
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


def _table(
    rows: Sequence[Mapping[str, Any]],
    first: InteractionSpectrum,
    origin: Provenance,
    *,
    num_blocks: int,
    to_file: bool,
) -> str:
    num_orders = max(len(row["effects"]) for row in rows)
    columns = ["block", "name", "mixer", "design", "order", "degree", *(f"k={k}" for k in range(num_orders))]
    cells = []
    for row in rows:
        effects = [
            "0" if zero else f"{e:#.2g}".rstrip(".") for e, zero in zip(row["effects"], row["exact_zero"], strict=True)
        ]
        top = len(effects) - 1
        orders = [f"≥{top}" if order is None else str(order) for order in (row["location_order"], row["degree_order"])]
        effects += ["·"] * (num_orders - len(effects))
        cells.append([str(row["index"]), row["name"], row["mixer"], str(row["declared_order"]), *orders, *effects])
    convention = first.convention
    what = "whole block" if convention["scope"] == "block" else "mixer"
    notes = [
        untrained_note(origin.trained, origin.weights),
        f"images: {', '.join(origin.images)}; {first.num_draws} draws a block, seed {first.seed}",
        f"effect_k: {convention['effect']}",
        f"non-linearities: {convention['non_linearities']}; derivatives: {convention['estimator']}",
        '"0" is an exact zero: every draw is 0.0 bit for bit. "≥K": not zero at the highest order measured.',
    ]
    unlisted = sorted({name for row in rows for name in row["unlisted"]})
    if unlisted:
        notes.append(
            f"Derivatives do not end because of {', '.join(unlisted)}: neither linear, nor a product, nor a "
            "non-linearity on the list. Declare the module that calls it with --nonlinear."
        )
    if len(rows) < num_blocks:
        notes.append(f"INTERRUPTED: {len(rows)} of {num_blocks} blocks.")
    title = f"Interaction orders of {origin.model}, {convention['kind']}, by {what}"
    return text_table(title, columns, cells, notes, to_file=to_file)
