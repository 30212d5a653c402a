"""How commands that go block by block say how far they are."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from horinsight.mixers.blocks import MixingBlock


@contextmanager
def block_progress(what: str, num_blocks: int, done: int = 0) -> Iterator[Callable[["MixingBlock"], None]]:
    """A bar on a terminal, a line per block elsewhere; on standard error.

    Args:
        what: is measured.
        num_blocks: of all blocks.
        done: how many are finished already.

    Yields:
        What to call after each block.
    """
    console = Console(stderr=True)
    start = time.monotonic()
    if not console.is_terminal:

        def line(block: "MixingBlock") -> None:
            nonlocal done
            done += 1
            print(f"[{done}/{num_blocks}] {block.name} {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=num_blocks, completed=done)
        yield lambda block: progress.update(task, advance=1, description=block.name)
