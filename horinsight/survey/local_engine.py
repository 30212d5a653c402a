"""Parts by processes on this machine: spawned, one thread each, one for each GPU where there are some."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from horinsight.survey.part_files import Part
from horinsight.survey.part_worker import PartDone, PartWorker, SurveyJob

MAX_DEATHS = 5  # of workers over one part, before the part is to blame
GRACE_SECONDS = 5.0


def num_workers(wanted: int | None) -> int:
    """How many there are when nobody says: one for each GPU, else for each processor of this process."""
    import torch

    if wanted is not None:
        return wanted
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.cuda.device_count() or processors


def worker_device(number: int) -> str:
    """Where the model of a worker goes."""
    import torch

    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


def parts_in_this_process(job: SurveyJob, parts: Iterable[Part]) -> Generator[PartDone]:
    """Parts one after the other, without any other process."""
    worker = PartWorker(job, worker_device(0))
    for part in parts:
        yield worker.finish(part)


def parts_by_processes(job: SurveyJob, parts: Iterable[Part], workers: int) -> Generator[PartDone]:
    """Parts by worker processes, in the order in which they are finished; a worker that dies is replaced.

    Args:
        job: what to do.
        parts: what to measure.
        workers: number of processes.

    Raises:
        ValueError: what a worker refuses, or a part over which workers die again and again.
        OSError: a part cannot be written.
    """
    context = multiprocessing.get_context("spawn")
    waiting, deaths = iter(parts), dict[int | None, int]()
    again: list[Part] = []
    crew: list[_Hand] = []

    def next_part() -> Part | None:
        return again.pop() if again else next(waiting, None)

    try:
        crew.extend(_hired(context, job, number) for number in range(workers))
        while crew:
            wait([hand.connection for hand in crew])
            for hand in [hand for hand in crew if hand.connection.poll()]:
                try:
                    said = hand.connection.recv()
                except (EOFError, OSError):  # it is dead
                    _count_death(deaths, hand)
                    crew.remove(hand)
                    if hand.part is not None:
                        again.append(hand.part)
                    hand.dismiss()
                    crew.append(_hired(context, job, hand.number))
                    continue
                if isinstance(said, Exception):
                    raise said
                if isinstance(said, PartDone):
                    yield said
                hand.part = next_part()
                if hand.part is None:
                    crew.remove(hand)
                    hand.dismiss()
                else:
                    with contextlib.suppress(OSError):  # dead: seen the next time round
                        hand.connection.send(hand.part)
    finally:
        for hand in crew:
            hand.process.terminate()
        for hand in crew:
            hand.dismiss()


@dataclass(eq=False)
class _Hand:
    """A worker process, as the one that leads them sees it."""

    number: int
    process: SpawnProcess
    connection: Connection
    part: Part | None = None

    def dismiss(self) -> None:
        """Let it end; it does when nobody talks to it any more."""
        self.connection.close()
        self.process.join(GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _hired(context: Any, job: SurveyJob, number: int) -> _Hand:
    ours, its = context.Pipe()
    process = context.Process(target=_work, args=(its, job, number), daemon=True, name=f"survey-{number}")
    process.start()
    its.close()
    return _Hand(number, process, ours)


def _count_death(deaths: dict[int | None, int], hand: _Hand) -> None:
    number = None if hand.part is None else hand.part.number
    deaths[number] = deaths.get(number, 0) + 1
    if deaths[number] >= MAX_DEATHS:
        what = "before its first part" if hand.part is None else f"over part {number}, {hand.part.names[0]} and on,"
        raise ValueError(
            f"A worker died {MAX_DEATHS} times {what} (exit code {hand.process.exitcode}): is the memory enough? "
            "Fewer --workers, or --workers 0 to see why."
        )


def _work(connection: Connection, job: SurveyJob, number: int) -> None:
    """What a worker process does until nobody talks to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the one that leads ends the others
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = PartWorker(job, worker_device(number), str(number))
            connection.send(None)  # ready
            while True:
                connection.send(worker.finish(connection.recv()))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except (ValueError, OSError) as error:
            connection.send((ValueError if isinstance(error, ValueError) else OSError)(str(error)))
        except Exception as error:
            connection.send(ValueError(f"A worker stopped: {type(error).__name__}: {error}"))
