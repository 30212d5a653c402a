"""How commands that go step by step, block by block for instance, say how far they are."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from horinsight.data.picture_stream import PictureStream
    from horinsight.mixers.blocks import MixingBlock


@contextmanager
def block_progress(what: str, num_blocks: int, done: int = 0) -> Iterator[Callable[["MixingBlock"], None]]:
    """`step_progress` whose steps are blocks."""
    with step_progress(what, num_blocks, done) as show:
        yield lambda block: show(block.name)


@contextmanager
def step_progress(what: str, num_steps: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line per step elsewhere; on standard error.

    Args:
        what: is measured.
        num_steps: of all.
        done: how many are finished already.

    Yields:
        What to call with the name of each step after it.
    """
    console = Console(stderr=True)
    start = time.monotonic()
    if not console.is_terminal:

        def line(name: str) -> None:
            nonlocal done
            done += 1
            print(f"[{done}/{num_steps}] {name} {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=num_steps, completed=done)
        yield lambda name: progress.update(task, advance=1, description=name)


@contextmanager
def stream_progress(what: str, stream: "PictureStream") -> Iterator[None]:
    """How far a stream of pictures is gone through, pass by pass, on standard error; nothing for a single batch.

    Args:
        what: is measured.
        stream: of pictures.
    """
    if stream.one_batch() is not None:
        yield
        return
    total, seen, start = len(stream), 0, time.monotonic()
    console = Console(stderr=True)

    def after(num_pictures: int) -> None:
        nonlocal seen
        seen += num_pictures
        here = (seen - 1) % total + 1
        text = f"{what}, pass {(seen - 1) // total + 1}: {here} of {total} pictures"
        print(f"{text} {time.monotonic() - start:.1f} s", file=sys.stderr, end=ending, flush=True)

    ending = "\r" if console.is_terminal else "\n"
    stream.on_batch = after
    try:
        yield
    finally:
        stream.on_batch = None
        if console.is_terminal and seen:
            print(file=sys.stderr)
