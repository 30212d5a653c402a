"""How a survey is run, which changes none of its numbers: the engine, its workers, the size of parts."""

from dataclasses import dataclass
from typing import Literal

from horinsight.options import check_fields, option

Engine = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class SurveyOptions:
    """Options of `run_survey`.

    Attributes:
        engine: "local" for processes on this machine, "ray" for actors, also on a cluster.
        workers: processes or actors, one thread each; one for each GPU, or each processor where there is none, when
            None; 0 measures in this process.
        part_size: pictures that are kept together, in one file.
        image_size: side in pixels that pictures are resized to; the model's when None.
        ray_address: of a running cluster ("auto", "ray://host:10001"); a Ray of its own on this machine when None.

    Raises:
        ValueError: a value below its least.
    """

    engine: Engine = option(
        "local", "Processes on this machine, or actors of Ray (pip install 'horinsight[ray]').", flag="--engine"
    )
    workers: int | None = option(
        None,
        "Processes or actors, one thread each; 0 measures in this process.",
        flag="--workers",
        metavar="N",
        least=0,
        default_in_words="one for each GPU, else for each processor",
        changes_result=False,
    )
    part_size: int = option(
        128, "Pictures in a part: what is lost at most by a worker that is stopped.", flag="--part-size", metavar="N",
        least=1,
    )  # fmt: skip
    image_size: int | None = option(
        None,
        "Side in pixels to resize the images to.",
        flag="--image-size",
        metavar="S",
        least=1,
        default_in_words="the model's",
    )
    ray_address: str | None = option(None, "Of a running Ray cluster.", changes_result=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError("A Ray address is for the engine 'ray': give --engine ray, too.")
        if self.engine == "ray" and self.workers == 0:
            raise ValueError("The engine 'ray' expects at least one worker, got 0.")
