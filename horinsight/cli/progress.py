"""How commands that go step by step, block by block for instance, say how far they are."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from horinsight.data.picture_stream import PictureStream
    from horinsight.mixers.blocks import MixingBlock
    from horinsight.survey.survey_run import SurveyProgress

BETWEEN_LINES = 10.0  # seconds, of a survey whose parts may be many


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


@contextmanager
def survey_progress() -> Iterator[Callable[["SurveyProgress"], None]]:
    """How many pictures of a survey are done, how fast it goes and how long it takes yet, on standard error.

    A line that changes on a terminal; elsewhere a line at the start and at the end, and every ten seconds between.

    Yields:
        What to call after each part.
    """
    console = Console(stderr=True)
    start = last = time.monotonic()
    with console.status("...") if console.is_terminal else nullcontext() as status:

        def show(progress: "SurveyProgress") -> None:
            nonlocal start, last
            now = time.monotonic()
            if progress.last is None:
                start = now  # what a model takes to be built and checked is no part of the rate
            text = progress_text(progress, now - start)
            if status is not None:
                status.update(text)
            elif progress.last is None or progress.pictures_done == progress.num_pictures or now > last + BETWEEN_LINES:
                print(text, file=sys.stderr, flush=True)
                last = now

        yield show


def progress_text(progress: "SurveyProgress", seconds: float) -> str:
    """How far a survey is, in one line.

    Args:
        progress: of the survey.
        seconds: since this run began to measure.
    """
    text = f"[{progress.pictures_done}/{progress.num_pictures} pictures]"
    if progress.num_unreadable:
        text += f" {progress.num_unreadable} of them unreadable,"
    if not progress.pictures_now or seconds <= 0:
        return text + (" done" if progress.pictures_done == progress.num_pictures else "")
    rate = progress.pictures_now / seconds
    left = round((progress.num_pictures - progress.pictures_done) / rate)
    return f"{text} {rate:.3g} a second, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
