"""`horinsight survey mixing`: mixing weights of each block at each picture."""

import click

from horinsight.cli.model_options import step_option
from horinsight.cli.survey_asked import Asked, survey_options


@click.command("mixing")
@survey_options
@step_option
def command(asked: Asked, step: int | None) -> None:
    """Measure mixing weights of each block at each picture, see `horinsight mixing`.

    Rows: mean_distance, mean_distance_pixels, effective_positions, negative_share, and the location adaptivity of each
    picture's own weights. How weights adapt to the input is in the report: sums over pictures are kept for it.

    \b
    Example:
      horinsight survey mixing --model hornet_tiny_gf --images photos/ --output mixing/
    """
    from horinsight.survey.mixing_by_picture import MixingAsked

    asked.run(MixingAsked(step, asked.blocks))
