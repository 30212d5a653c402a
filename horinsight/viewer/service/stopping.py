"""Long work that shows how far it is, and that ends when its visitor stops it, chooses something else, or leaves.

Streamlit ends a run only where the script calls it: a bar that moves is such a call. What ends it is Streamlit's own
exception, which leaves the contexts of the work on its way, so that the slot of the gate is free at once.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from horinsight.cancellation import watched_by

SECONDS_BETWEEN = 0.1  # from one look at the visitor to the next
SURE = 0.01  # share of the work from which the time that is left can be told
Show = Callable[[float, str], object]  # share and words, as a bar of Streamlit takes them


class ShownProgress:
    """Moves a bar while work is watched.

    Args:
        show: gets the share and the words; what it raises ends the work.
        parts: of the work, as blocks are.
        done: parts that were finished before.
        clock: in seconds.

    Example:
        >>> shown, now = [], iter([0.0, 0.0, 5.0])
        >>> progress = ShownProgress(lambda share, words: shown.append(words), 2, clock=lambda: next(now))
        >>> progress.start("measuring block 1")
        >>> progress.watch(0.5)
        >>> shown[-1]
        'measuring block 1 · about 15 s left'
    """

    def __init__(self, show: Show, parts: int, done: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.show, self.parts, self.done, self.clock = show, parts, done, clock
        self.began, self.at_start = clock(), done
        self.words, self.share, self.last = "", 0.0, float("-inf")

    def start(self, words: str) -> None:
        """Begin a part."""
        self.words, self.share = words, 0.0
        self._shown(self.clock())

    def finish(self) -> None:
        """A part is finished."""
        self.done, self.share = self.done + 1, 0.0

    def watch(self, share: float | None) -> None:
        """Look at a clock, and now and then move the bar: for `watched_by`."""
        if share is not None:
            self.share = min(max(share, 0.0), 1.0)
        now = self.clock()
        if now - self.last >= SECONDS_BETWEEN:
            self._shown(now)

    def _shown(self, now: float) -> None:
        self.last = now
        fraction = (self.done + self.share) / self.parts
        worked = (self.done + self.share - self.at_start) / max(self.parts - self.at_start, 1)
        left = ""
        if worked >= SURE:
            left = f" · {time_left((now - self.began) * (1 - worked) / worked)}"
        self.show(min(fraction, 1.0), f"{self.words}{left}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Work that is watched."""
        with watched_by(self.watch):
            yield


def time_left(seconds: float) -> str:
    """In words, and no more exact than it is known.

    Example:
        >>> time_left(3.4), time_left(100), time_left(1000), time_left(2e4), time_left(1e6)
        ('about 5 s left', 'about 100 s left', 'about 17 min left', 'about 6 h left', 'more than a day left')
    """
    if seconds < 120:
        return f"about {max(5 * round(seconds / 5), 5)} s left"
    if seconds < 7200:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.0f} h left" if seconds < 86400 else "more than a day left"
