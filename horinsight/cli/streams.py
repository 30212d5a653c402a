"""Standard output and error of the command line, whatever they can write and whether they are there at all."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import NoReturn, TextIO

from horinsight.report import spelled


class SpelledStream(io.TextIOBase):
    """Takes any text and spells what the stream below cannot encode (`spelled`).

    Args:
        stream: the stream below; None where it is closed.
        name: in words, for errors.
        needed: whether a text that cannot be written is an error. Progress and remarks that nobody can read are none.
    """

    errors = "strict"

    def __init__(self, stream: TextIO | None, name: str, *, needed: bool) -> None:
        self.stream, self.name, self.needed = stream, name, needed

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What may be written: everything."""
        return "utf-8"

    @property
    def encoding_below(self) -> str:
        """What the stream below can encode."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, spelled as far as needed."""
        words = spelled(text, self.encoding_below)
        if words:
            with self._written():
                if self.stream is None:
                    self.refuse()
                self.stream.write(words)
        return len(text)

    def refuse(self) -> NoReturn:
        """Say that there is nothing below."""
        raise OSError(f"Cannot write to {self.name}: it is closed.")

    def flush(self) -> None:
        """Send what was written on its way."""
        if self.stream is not None:
            with self._written():
                self.stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        """The number of the file below."""
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return self.stream.fileno()

    def writable(self) -> bool:
        """Yes."""
        return True

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _discard(self.stream)
            if not self.needed:
                return
            if error.errno is None or isinstance(error, BrokenPipeError):
                raise
            raise OSError(f"Cannot write to {self.name}: {error.strerror}.") from error


@contextlib.contextmanager
def spelled_streams() -> Iterator[None]:
    """Print through `SpelledStream`; afterwards the streams are as they were.

    What could not be written is dropped, so that Python does not try again, and complain, when it ends.
    """
    out = SpelledStream(sys.stdout, "standard output", needed=True)
    err = SpelledStream(sys.stderr, "standard error", needed=False)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def output_encoding() -> str:
    """What standard output can encode."""
    stream = sys.stdout
    return stream.encoding_below if isinstance(stream, SpelledStream) else getattr(stream, "encoding", None) or "utf-8"


def check_output() -> None:
    """Refuse a standard output that is closed, before any work is done for it.

    Raises:
        OSError: it is closed.
    """
    if isinstance(sys.stdout, SpelledStream) and sys.stdout.stream is None:
        sys.stdout.refuse()


def _discard(stream: TextIO | None) -> None:
    """Send to nowhere what a stream still holds and could not write."""
    if stream is None:
        return
    with contextlib.suppress(io.UnsupportedOperation), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
