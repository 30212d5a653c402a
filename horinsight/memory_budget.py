"""How much memory a measurement may take: a number that is given, or a share of what the machine has free."""

import ctypes
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIGABYTE = 1e9
VARIABLE = "HORINSIGHT_MEMORY"
SHARE = 0.5  # of what is free, where nobody says how much may be taken
UNKNOWN = 4 * GIGABYTE  # free, where a machine does not say
MMAP_THRESHOLD = -3  # of mallopt
OWN_PIECE, LARGEST_PIECE = 2**17, 2**25  # bytes from which on glibc gives a tensor pages of its own: least, most


def budget_bytes(gigabytes: float | None = None, *, free: float | None = None) -> float:
    """Bytes that a measurement may take.

    Args:
        gigabytes: that were given, of 10⁹ bytes. When None those of the environment's HORINSIGHT_MEMORY, and without
            one half of what is free.
        free: bytes; those of the machine when None.

    Raises:
        ValueError: HORINSIGHT_MEMORY is no number above 0.

    Example:
        >>> budget_bytes(2.5)
        2500000000.0
    """
    given = os.environ.get(VARIABLE) if gigabytes is None else gigabytes
    if given:
        return checked_gigabytes(given) * GIGABYTE
    return SHARE * (free_bytes() if free is None else free)


def checked_gigabytes(given: str | float) -> float:
    """A number above 0.

    Raises:
        ValueError: it is none.
    """
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ValueError(f"{VARIABLE} (or --memory) expects gigabytes, a number above 0, got {given!r}.")
    return found


def free_bytes(root: Path = Path("/")) -> float:
    """Bytes that this process can still have: of the machine, or of the smallest control group that it is in.

    Args:
        root: of the file system in which the kernel tells.
    """
    found = [_of_the_machine(root / "proc/meminfo"), *_of_groups(root)]
    return min([one for one in found if one is not None], default=UNKNOWN)


def resident_bytes(file: Path = Path("/proc/self/statm")) -> float:
    """Bytes of memory that this process has, once what the heap holds and nobody uses is given back; 0 where unknown.

    Args:
        file: in which the kernel tells.
    """
    give_back_pages()
    try:
        return float(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):  # no Linux
        return 0.0


def _of_the_machine(file: Path) -> float | None:
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        return float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _of_groups(root: Path) -> list[float | None]:
    """What is left in each control group from that of the process upwards; of version 2, and of version 1."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = ["0::/"]
    found: list[float | None] = []
    for line in groups:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = top / path.strip("/")
        found += [_left(group, names) for group in (inside, *inside.parents) if group.is_relative_to(top)]
    return found


def _left(group: Path, names: tuple[str, str, str]) -> float | None:
    """Limit less what is used; what files occupy that nobody reads can be had back."""
    limit, used, cached = names
    try:
        most, taken = float((group / limit).read_text()), float((group / used).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        taken -= float(stat.get(cached, 0))
    except (OSError, ValueError):
        pass
    return max(most - taken, 0.0)


_LOCK = threading.Lock()
_inside = 0


@contextmanager
def compact_memory() -> Iterator[None]:
    """Give each tensor of 128 KiB and more pages of its own, as long as the context is open.

    glibc before 2.38 hardly ever uses again what an aligned piece of its heap has left, so that the graphs of nested
    derivatives, some pieces of which live on among many that do not, take two to five times the bytes that are in use.
    With pages of their own they take what is in use, and up to twice the time. Holds for the process; with another C
    library nothing happens.
    """
    global _inside
    with _LOCK:
        _inside += 1
        if _inside == 1:
            _pages_from(OWN_PIECE)
            give_back_pages()
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if _inside == 0:
                _pages_from(LARGEST_PIECE)  # where glibc's own threshold is after a tensor of that size


def give_back_pages() -> None:
    """Let the system have pages of the heap on which nothing is left, as after each batch of many.

    What a batch leaves behind differs from batch to batch; glibc keeps the holes, and with each batch some more of them
    fit nothing. Takes milliseconds. With another C library nothing happens.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # no glibc
        return


def _pages_from(num_bytes: int) -> None:
    try:
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, num_bytes)
    except (OSError, AttributeError, TypeError):  # no glibc
        return
