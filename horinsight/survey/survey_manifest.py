"""What a survey is of, as its folder says: another model, other weights, settings or pictures are another survey."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from horinsight.report import json_text
from horinsight.survey.part_files import write_whole
from horinsight.survey.picture_rows import COLUMNS

MANIFEST = "manifest.json"
LONG = 24  # letters of a value that an error shows


@dataclass(frozen=True)
class SurveyManifest:
    """What is asked of which pictures.

    Attributes:
        question: "ie", "mixing" or "reach".
        model: its name.
        weights: where its weights come from, in words.
        trained: whether they are; None when nobody said.
        weights_sha256: hash of all parameters and buffers.
        settings: all that can change a number.
        blocks: of the model that are measured: index, name and mixer of each.
        num_pictures: on the list.
        pictures: where they come from, in words.
        pictures_sha256: of the list: names and classes in their order.
        part_size: pictures in a part.
        versions: of Python and the packages that began it.
        columns: of the rows, explained.
    """

    question: str
    model: str
    weights: str
    trained: bool | None
    weights_sha256: str
    settings: Mapping[str, Any]
    blocks: Sequence[Mapping[str, Any]]
    num_pictures: int
    pictures: str
    pictures_sha256: str
    part_size: int
    versions: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=lambda: dict(COLUMNS))

    @property
    def num_parts(self) -> int:
        """Parts that the list is cut into."""
        return -(-self.num_pictures // self.part_size)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that can change a row."""
        return {
            "question": self.question,
            "model": self.model,
            "weights": self.weights_sha256,
            **{f"settings.{name}": value for name, value in self.settings.items()},
            "blocks": [block["index"] for block in self.blocks],
            "number of pictures": self.num_pictures,
            "list of pictures": self.pictures_sha256,
            "part size": self.part_size,
        }


def read_manifest(folder: str | os.PathLike[str]) -> SurveyManifest:
    """What the survey in a folder is of.

    Raises:
        ValueError: there is none, or its manifest is no such file.
    """
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return SurveyManifest(**content)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no survey: expected a file {MANIFEST} in it.") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the manifest of a survey: {error}.") from error


def keep_manifest(manifest: SurveyManifest, folder: str | os.PathLike[str]) -> SurveyManifest:
    """Write the manifest of a new survey, or check that the folder's is of the same.

    Returns:
        The one in the folder.

    Raises:
        ValueError: the folder holds another survey, or something else; says what differs.
        OSError: it cannot be written.
    """
    path = Path(folder)
    if not (path / MANIFEST).exists():
        if path.exists() and not path.is_dir():
            raise ValueError(f"A survey is kept in a folder, and {path} is a file: name another.")
        path.mkdir(parents=True, exist_ok=True)
        strange = next((one.name for one in path.iterdir() if not one.name.startswith(".")), None)
        if strange is not None:
            raise ValueError(f"{path} holds no survey but {strange}: name an empty or a new folder.")
        write_whole(path / MANIFEST, json_text(asdict(manifest)).encode())
        return manifest
    there = read_manifest(path)
    here = json.loads(json_text(manifest.fingerprint))
    differing = differences(there.fingerprint, here, words=("there", "here"))
    if differing:
        raise ValueError(f"{path} holds another survey: {'; '.join(differing)}. Name another folder, or ask the same.")
    return there


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], *, words: tuple[str, str] = ("here", "there")
) -> list[str]:
    """What two fingerprints differ by, a text each.

    Args:
        one: the first.
        other: the second.
        words: what the two are called.

    Example:
        >>> differences({"model": "a", "settings.tuples": 32}, {"model": "a", "settings.tuples": 64})
        ['tuples 32 here, 64 there']
    """
    return [
        f"{name.removeprefix('settings.')} {_brief(one.get(name))} {words[0]}, {_brief(other.get(name))} {words[1]}"
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]


def _brief(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONG else f"{text[:12]}…"
