"""Files that are written whole or not at all, through links and into what is no file."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

MAX_LINKS = 40  # that the kernel follows, too


@contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that appears under its name only when the context ends well.

    Written under a temporary name beside it, then renamed; an error or Ctrl-C leaves what was there before. A link is
    followed and stays. A file that is there keeps its permissions and its owner. What is no regular file (a pipe, a
    device, `/dev/stdout`) gets the whole content when the context ends well.

    Args:
        path: the file.
        mode: "w" for text (UTF-8), "wb" for bytes.

    Raises:
        OSError: the folder does not exist or cannot be written, or links go round in a circle.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(f"{folder}/a.txt") as file:
        ...         _ = file.write("done")
        ...     Path(f"{folder}/a.txt").read_text()
        'done'
    """
    check_writable(path)
    target = _target(path)
    if not is_replaceable(path):
        with tempfile.TemporaryFile("w+b" if "b" in mode else "w+", encoding=_encoding(mode)) as file:
            yield file
            file.seek(0)
            opened = target if isinstance(target, Path) else os.dup(target)
            with open(opened, mode, encoding=_encoding(mode)) as stream:
                shutil.copyfileobj(file, stream)
        return
    assert isinstance(target, Path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:200]}.", suffix=".part")
    try:
        with os.fdopen(handle, mode, encoding=_encoding(mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if _made_alike(temporary, target):
            os.replace(temporary, target)
        else:
            shutil.copyfile(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a file that could not be written, before any work is done for it.

    Raises:
        OSError: it is a folder or must not be written, its folder is missing or not writable, or links go round in a
            circle.
    """
    target = _target(path)
    if not isinstance(target, Path):
        try:
            os.fstat(target)
        except OSError as error:
            raise OSError(f"Cannot write {path}: it is closed.") from error
        return
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: the folder {target.parent} does not exist.")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"Cannot write {path}: it is there and must not be written.")
    if not is_replaceable(path):
        return
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise PermissionError(f"Cannot write {path}: {error.strerror or error}.") from error


def is_replaceable(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a regular file, or to none yet; False for a pipe, a device or an open stream.

    Example:
        >>> is_replaceable(os.devnull)
        False
    """
    target = _target(path)
    return isinstance(target, Path) and (not target.exists() or target.is_file())


def _target(path: str | os.PathLike[str]) -> Path | int:
    """Where writing to a path ends: links followed, up to the number of an open file of this process (/dev/stdout)."""
    target = Path(path)
    for _ in range(MAX_LINKS):
        if target.name.isdecimal() and re.fullmatch(rf"/proc/{os.getpid()}/fd", os.path.realpath(target.parent)):
            return int(target.name)
        if not target.is_symlink():
            return target
        target = target.parent / target.readlink()
    raise OSError(f"Cannot write {path}: its links go round in a circle.")


def _made_alike(temporary: str, target: Path) -> bool:
    """Give a new file the owner and permissions of the one that it replaces; False where the owner cannot be kept."""
    if not target.exists():
        os.chmod(temporary, 0o666 & ~_umask())
        return True
    before, made = target.stat(), os.stat(temporary)
    if (before.st_uid, before.st_gid) != (made.st_uid, made.st_gid):
        try:
            os.chown(temporary, before.st_uid, before.st_gid)
        except PermissionError:
            return False
    os.chmod(temporary, stat.S_IMODE(before.st_mode))
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _encoding(mode: str) -> str | None:
    return None if "b" in mode else "utf-8"
