"""`horinsight survey`: one question asked of any number of pictures, and what came out."""

from typing import ClassVar

import click

from horinsight.cli.main import LazyGroup


class SurveyGroup(LazyGroup):
    """The questions, and the report."""

    COMMANDS: ClassVar = {
        "ie": ("survey_ie_command", "Interaction effects and orders of each block at each picture."),
        "mixing": ("survey_mixing_command", "Mixing weights of each block: distances, positions, adaptivity."),
        "reach": ("survey_reach_command", "How far each block sees, at each picture."),
        "report": ("survey_report_command", "Means with intervals, by class, and compared with another survey."),
    }


@click.command(cls=SurveyGroup, name="survey")
def command() -> None:
    """Ask one question of any number of pictures, kept part by part.

    Each picture is measured by itself, with draws of its own. A folder keeps a manifest and the rows in Parquet files;
    Ctrl-C, a crash or a full disk lose no finished part, and the same command goes on. `horinsight.load_survey(FOLDER)`
    is a data frame.

    \b
    Examples:
      horinsight survey ie --model hornet_s_iso --images photos/ --output effects/
      horinsight survey mixing --model hornet_tiny_gf --images list.txt --output mixing/ --workers 4
      horinsight survey report effects/ --by class --plot effects.png
    """
