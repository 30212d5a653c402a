"""Parts by actors of Ray, on this machine or a cluster whose machines share the survey's folder."""

import itertools
import os
from collections.abc import Generator, Iterable
from typing import Any

from horinsight.survey.local_engine import MAX_DEATHS, num_workers, worker_device
from horinsight.survey.part_files import Part
from horinsight.survey.part_worker import PartDone, PartWorker, SurveyJob

AHEAD = 1  # parts that wait for each actor beside the one that it measures


class PartActor:
    """A `PartWorker` in an actor."""

    def __init__(self, job: SurveyJob, name: str) -> None:
        self.job, self.name = job, name
        self.worker: PartWorker | None = None

    def finish(self, part: Part) -> PartDone | Exception:
        """A finished part, or why it could not be; an error is returned, so that the actor lives on."""
        try:
            if self.worker is None:
                self.worker = PartWorker(self.job, worker_device(0), self.name)  # Ray shows it its own GPU alone
            return self.worker.finish(part)
        except OSError as error:
            return OSError(str(error))
        except Exception as error:
            return ValueError(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def parts_by_ray(
    job: SurveyJob, parts: Iterable[Part], workers: int | None, address: str | None
) -> Generator[PartDone]:
    """Parts by actors, in the order in which they are finished; an actor that dies is started again.

    Args:
        job: what to do.
        parts: what to measure.
        workers: number of actors, each with a GPU where Ray has some; when None as many as it has GPUs, or processors.
        address: of a running cluster; None for a Ray of its own, which listens on this machine alone, or the one that
            this process has joined already.

    Raises:
        ValueError: Ray is not installed, what an actor refuses, or a part over which actors die again and again.
        OSError: a part cannot be written.
    """
    ray, is_ours = _started(workers, address)
    actors: list[Any] = []
    try:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        wanted = workers or gpus or int(there.get("CPU", 1))
        kind = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_restarts=-1, max_task_retries=MAX_DEATHS)(PartActor)
        actors += [kind.remote(job, str(number)) for number in range(wanted)]
        waiting, running = iter(parts), {}
        for actor, part in zip((1 + AHEAD) * actors, waiting, strict=False):
            running[actor.finish.remote(part)] = actor
        while running:
            (done, *_), _ = ray.wait(list(running))
            actor = running.pop(done)
            yield _said(ray, done)
            for part in itertools.islice(waiting, 1):
                running[actor.finish.remote(part)] = actor
    finally:
        if is_ours:
            ray.shutdown()
        else:
            for actor in actors:
                ray.kill(actor)


def _said(ray: Any, done: Any) -> PartDone:
    try:
        said = ray.get(done)
    except ray.exceptions.RayActorError as error:
        cause = " ".join(str(getattr(error, "cause", None) or error).split())
        raise ValueError(f"An actor of Ray could not be kept alive: {cause}") from error
    if isinstance(said, Exception):
        raise said
    found: PartDone = said
    return found


def _started(workers: int | None, address: str | None) -> tuple[Any, bool]:
    """Ray, started or joined, and whether by us; nobody is told of it, and ours listens on 127.0.0.1 alone.

    Raises:
        ValueError: it is not installed, or does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:  # what binds its sockets to 127.0.0.1, on Linux as well
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "The engine 'ray' needs Ray: pip install 'horinsight[ray]', or take --engine local."
        ) from error
    if ray.is_initialized():
        return ray, False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        here = {"num_cpus": num_workers(workers), "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(address="local", **here, **quiet)
        return ray, True
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        raise ValueError(f"No Ray cluster answers at {address}: {' '.join(str(error).split())}") from error
    return ray, True
