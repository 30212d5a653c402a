"""What the commands of `horinsight survey` have in common: the model, the pictures, the folder, and how it is run."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from horinsight.cli.model_options import blocks_option, model_option
from horinsight.cli.progress import survey_progress
from horinsight.cli.value_options import value_options
from horinsight.cli.weights_options import Weights, model_with_weights, weights_options
from horinsight.survey.survey_options import SurveyOptions

if TYPE_CHECKING:
    from horinsight.survey.picture_rows import Question

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Asked:
    """What `survey_command` gives a command.

    Attributes:
        model_name: of the model.
        weights: that it has.
        pictures: a folder or a list.
        output: the survey's folder.
        blocks: indices; all when None.
        options: how it is run.
        resume: whether the folder must hold the survey already.
    """

    model_name: str
    weights: Weights
    pictures: Path
    output: Path
    blocks: list[int] | None
    options: SurveyOptions
    resume: bool

    def run(self, question: "Question") -> None:
        """Ask a question of each picture, and say how far it is on standard error."""
        from horinsight.survey.survey_manifest import read_manifest
        from horinsight.survey.survey_run import run_survey

        if self.resume:
            read_manifest(self.output)
        model = functools.partial(model_with_weights, self.model_name, self.weights)
        with survey_progress() as show:
            try:
                run_survey(
                    model,
                    self.pictures,
                    self.output,
                    question=question,
                    options=self.options,
                    model_name=self.model_name,
                    on_part=show,
                )
            except KeyboardInterrupt:
                click.echo(f"finished parts are kept in {self.output}: the same command goes on.", err=True)
                raise
        click.echo(f"written: {self.output}; horinsight survey report {self.output}", err=True)


def survey_options(command: C) -> C:
    """The options that all questions share, as one argument `asked` of the command."""

    @functools.wraps(command)
    def with_asked(
        *arguments: Any,
        model_name: str,
        weights: Weights,
        pictures: Path,
        output: Path,
        blocks: list[int] | None,
        how: SurveyOptions,
        ray_address: str | None,
        resume: bool,
        **options: Any,
    ) -> Any:
        run = replace(how, ray_address=ray_address)
        asked = Asked(model_name, weights, pictures, output, blocks, run, resume)
        return command(*arguments, asked=asked, **options)

    decorated: Any = with_asked
    decorated = click.option(
        "--resume", is_flag=True, help="Go on with the survey in the folder, and begin none if there is none."
    )(decorated)
    decorated = click.option(
        "--ray-address", metavar="ADDRESS", help="Of a running Ray cluster whose machines share the folders."
    )(decorated)
    decorated = value_options(SurveyOptions, name="how")(decorated)
    decorated = click.option(
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        metavar="DIR",
        help="Folder of the survey, made if missing; the same command with the same folder goes on.",
    )(decorated)
    decorated = click.option(
        "--images",
        "pictures",
        type=click.Path(path_type=Path),
        required=True,
        metavar="FOLDER",
        help="Folder of images, with those in folders below, whose names are the classes; or a list, FILE.txt, with a "
        "path on each line.",
    )(decorated)
    return cast(C, model_option(weights_options(blocks_option("all")(decorated))))


def together_option(what: str) -> Callable[[C], C]:
    """`--batch-size`: what one batch is made of, in words."""
    return click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        metavar="N",
        help=f"{what} of a picture that are differentiated together; halved whenever the memory does not suffice.",
    )
