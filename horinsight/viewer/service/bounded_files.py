"""Files from visitors that hold results: their bytes become JSON and arrays within bounds, or one line says why not.

An `.npz` is a zip: what its members unpack to, and what each array's header claims, is known before anything is
unpacked. A pickle in it is never run, for arrays of objects are refused by their headers.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

MEGABYTE = 2**20
MOST_UNPACKED = 64 * MEGABYTE  # of all members of a zip together
MOST_JSON = 10 * MEGABYTE
MOST_MEMBERS = 4000
DEEPEST = 40  # brackets within brackets
LONGEST = 4000  # letters of a text, which figures draw
MOST_LETTERS = MOST_UNPACKED  # bytes of an array of texts, four a letter
HEADER = 10_000  # bytes of the header of an array
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack without a limit
NUMBERS = re.compile(r"[<>|=]?(float(16|32|64)|u?int(8|16|32|64)|bool)|[<>|=]?U[0-9]{1,6}")
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # matches wherever it starts: in one pass


def members(content: bytes) -> dict[str, bytes]:
    """Name → bytes of the members of a zip.

    Raises:
        ValueError: no zip, or one that unpacks to too much, or by other means than are usual.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            _check_members(infos)
            return {info.filename: archive.read(info) for info in infos if not info.is_dir()}
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, UnicodeError) as error:
        raise ValueError(f"it is no whole zip file ({error})") from error
    except Exception as error:
        if type(error).__module__ == "zlib":
            raise ValueError(f"it is no whole zip file ({error})") from error
        raise


def _check_members(infos: list[zipfile.ZipInfo]) -> None:
    total = sum(info.file_size for info in infos)
    if len(infos) > MOST_MEMBERS:
        raise ValueError(f"it has {len(infos)} parts, and at most {MOST_MEMBERS} are read")
    if total > MOST_UNPACKED:
        raise ValueError(
            f"it would unpack to {total / MEGABYTE:,.0f} MB, and at most {MOST_UNPACKED // MEGABYTE} MB are unpacked"
        )
    if any(info.flag_bits & 1 for info in infos):
        raise ValueError("it is encrypted")
    if any(info.compress_type not in PACKED for info in infos):
        raise ValueError("it is packed by other means than deflate")


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    """Name → array of an `.npz`.

    Raises:
        ValueError: see `members`; or a member is no array of numbers or texts.
    """
    return {
        name.removesuffix(".npy"): array_of(part, name) for name, part in members(content).items()
    }  # as numpy names them


def array_of(content: bytes, name: str) -> np.ndarray:
    """The array of a `.npy`, whose header is checked first.

    Raises:
        ValueError: no array, of objects (a pickle), or of another size than its header says.
    """
    stream = io.BytesIO(content)
    try:
        major, _ = np.lib.format.read_magic(stream)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[major]
        shape, _, dtype = read(stream, max_header_size=HEADER)
    except Exception as error:  # whatever a header is made of
        raise ValueError(f"its part '{name}' is no array") from error
    if dtype.hasobject:
        raise ValueError(f"its part '{name}' holds Python objects (a pickle), which are never read")
    if dtype.kind not in "fiubcU" or dtype.names is not None:
        raise ValueError(f"its part '{name}' is an array of {dtype}, and numbers or texts are expected")
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"its part '{name}' has another size than it says")
    if dtype.itemsize == 0 and math.prod(shape) > HEADER:
        raise ValueError(f"its part '{name}' says that it has {math.prod(shape)} empty texts")
    stream.seek(0)
    found: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=HEADER)
    return found


def json_of(content: bytes) -> dict[str, Any]:
    """The object that JSON is.

    Raises:
        ValueError: no JSON, no object, too long or too deep, or with arrays of another kind than results have.
    """
    if len(content) > MOST_JSON:
        raise ValueError(
            f"it is {len(content) / MEGABYTE:,.0f} MB of JSON, and at most {MOST_JSON // MEGABYTE} MB are read: save "
            "it as .npz"
        )
    brackets = np.frombuffer(_TEXTS.sub(b"", content), dtype=np.uint8)
    steps = np.isin(brackets, list(b"[{")).astype(np.int32) - np.isin(brackets, list(b"]}"))
    if steps.size and int(steps.cumsum().max()) > DEEPEST:
        raise ValueError(f"its brackets are nested deeper than {DEEPEST}")
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"it is JSON of a {type(found).__name__}, and an object is expected")
    for value in _within(found):
        _check_texts(value)
        _check_array(value)
    return found


def _within(content: Any) -> Iterator[Any]:
    """The object and all that is in it, but lists in lists."""
    left = [content]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(item for item in _items(value) if isinstance(item, dict))


def _items(value: list[Any]) -> Iterator[Any]:
    """What is in a list, or in lists in it."""
    left: list[Any] = [value]
    while left:
        for item in left.pop():
            if isinstance(item, list):
                left.append(item)
            else:
                yield item


def _check_texts(value: Any) -> None:
    texts = (
        [*value, *value.values()] if isinstance(value, dict) else list(_items(value)) if isinstance(value, list) else []
    )
    longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
    if longest > LONGEST:
        raise ValueError(f"it has a text of {longest} letters, and at most {LONGEST} are read")


def _check_array(value: Any) -> None:
    """Refuse what would become an array of another size than its text."""
    letters = 0
    if isinstance(value, list):
        letters = max((len(item) for item in _items(value) if isinstance(item, str)), default=0)
    elif isinstance(value, dict) and {"dtype", "values"} <= value.keys():
        dtype = value["dtype"]
        if not isinstance(dtype, str) or not NUMBERS.fullmatch(dtype):
            raise ValueError(f"it has an array of {str(dtype)[:40]}, and numbers or texts are expected")
        letters = int(dtype.lstrip("<>|=")[1:]) if "U" in dtype else 0
        value = value["values"] if isinstance(value["values"], list) else []
    if letters and 4 * letters * sum(1 for _ in _items(value)) > MOST_LETTERS:
        raise ValueError("it has an array of texts that is too large")
