"""`horinsight survey ie`: interaction effects of each block at each picture."""

from dataclasses import replace

import click

from horinsight.cli.survey_asked import Asked, survey_options, together_option
from horinsight.cli.value_options import value_options
from horinsight.interaction.spectrum_options import SpectrumOptions


@click.command("ie")
@survey_options
@value_options(SpectrumOptions, left_out=("seconds",), in_words={"num_tuples": "32", "precision": "none"})
@together_option("Chains")
def command(asked: Asked, options: SpectrumOptions, batch_size: int) -> None:
    """Measure interaction effects and orders of each block at each picture, see `horinsight ie`.

    Rows: effect and mean_square of each k (effect_k = sqrt(mean_square / output_square)), exact_zero and
    structural_zero, output_square, draws, order, degree_order.

    \b
    Example:
      horinsight survey ie --model hornet_s_iso --images photos/ --output effects/ --blocks 1,6,12
    """
    from horinsight.survey.effects_by_picture import EffectsAsked

    asked.run(EffectsAsked(replace(options, seed=asked.weights.seed, batch_size=batch_size), asked.blocks))
