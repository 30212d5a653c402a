"""`horinsight survey reach`: how far each block sees at each picture."""

import click

from horinsight.cli.reach_command import Asked as AskedReach
from horinsight.cli.reach_command import asked_options
from horinsight.cli.survey_asked import Asked, survey_options, together_option
from horinsight.mixing.influence_options import InfluenceOptions


@click.command("reach")
@survey_options
@asked_options(argument="reach")
@together_option("Probes")
def command(asked: Asked, reach: AskedReach, batch_size: int) -> None:
    """Measure how far each block sees at each picture, see `horinsight reach`.

    Rows: radius_50, radius_90, radius_99 in cells and with _pixels, and total: means over the queries.

    \b
    Example:
      horinsight survey reach --model hornet_s_iso --images photos/ --output reach/ --scope block
    """
    from horinsight.survey.reach_by_picture import ReachAsked

    options = InfluenceOptions(probes=reach.probes, seed=asked.weights.seed, batch_size=batch_size)
    asked.run(ReachAsked(reach.scope, reach.queries, options, asked.blocks))
