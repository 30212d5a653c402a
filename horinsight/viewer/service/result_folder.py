"""Saved results and surveys below the folder that was given at start."""

from pathlib import Path
from typing import Literal

import streamlit as st

from horinsight.survey.part_files import finished_parts
from horinsight.survey.survey_estimates import survey_table
from horinsight.survey.survey_manifest import MANIFEST
from horinsight.survey.survey_results import SurveyTable
from horinsight.viewer.service.bounded_files import MEGABYTE
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.saved_results import MAX_UPLOAD_MB, Saved, saved_result

SUFFIXES = (".npz", ".json", ".csv")
MOST = 500  # names


def result_names(folder: Path | None) -> list[str]:
    """Files of results in the folder itself, and folders of surveys, which end in "/"; no link leads out of it."""
    if folder is None:
        return []
    root = folder.resolve()
    inside = [path for path in root.iterdir() if path.resolve().parent == root and not path.name.startswith(".")]
    files = (path.name for path in inside if path.suffix in SUFFIXES and path.is_file())
    surveys = (f"{path.name}/" for path in inside if path.is_dir() and (path / MANIFEST).is_file())
    return sorted([*files, *surveys])[:MOST]


def result_in_folder(folder: Path | None, name: str, *, by: Literal["class"] | None = None) -> Saved:
    """A result that `result_names` lists.

    Raises:
        ValueError: it lists no such name, or the file holds no result.
        BusyError: the gate was taken for too long.
    """
    if folder is None or name not in result_names(folder):
        raise ValueError(f"No result of that name: expected one of {', '.join(result_names(folder)) or 'none'}.")
    path = folder.resolve() / name.removesuffix("/")
    if path.is_dir():
        return Saved(name, _survey(str(path), len(finished_parts(path)), by), path)
    if path.stat().st_size > MAX_UPLOAD_MB * MEGABYTE:
        raise ValueError(f"{name} has more than {MAX_UPLOAD_MB} MB.")
    return saved_result(name, path.read_bytes())


@st.cache_data(max_entries=16, show_spinner="Reading the survey …")
def _survey(folder: str, parts: int, by: Literal["class"] | None) -> SurveyTable:
    """The table of a survey as far as it is finished, which its number of parts tells."""
    with GATE.long_slot():
        try:
            return survey_table(folder, by=by)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder}/", "").replace(folder, Path(folder).name)) from error
