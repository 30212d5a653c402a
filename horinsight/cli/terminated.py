"""SIGTERM, by which systems end a process: what is finished is kept, as after Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def ended_by_sigterm() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt where SIGTERM comes, as long as the context is open; in the main thread alone.

    Python looks for signals between two of its instructions. What stays in one call of autograd for seconds has pauses
    in it (`horinsight.pauses`), so that there are some.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def interrupted(number: int, frame: FrameType | None) -> NoReturn:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
