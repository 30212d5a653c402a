"""The `horinsight` command: its sub-commands, and how every error becomes one line and an exit status."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import ClassVar

import click

from horinsight import __version__
from horinsight.cli.streams import spelled_streams
from horinsight.cli.terminated import ended_by_sigterm

INTERRUPTED = 128 + signal.SIGINT
EPILOG = "Exit status: 0 done, 1 a check failed, 2 wrong use or bad input (one line on standard error says what to do)."


class LazyGroup(click.Group):
    """Sub-commands whose modules, and so torch and timm, are imported only when one of them is used."""

    COMMANDS: ClassVar = {
        "models": ("models_command", "List the models with their parameters, cost, orders and input size."),
        "blocks": ("blocks_command", "List the spatial-mixing blocks of a model, with the index that others take."),
        "mixing": (
            "mixing_command",
            "Show where a position of a picture looks in each block, with adaptivity numbers.",
        ),
        "figure4": ("figure4_command", "Draw Figure 4 of the paper: mixing weights of six blocks over photographs."),
        "ie": ("ie_command", "Measure interaction effects and orders of a model's blocks on photographs."),
        "reach": ("reach_command", "Measure how far each block sees: influence and effective receptive fields."),
        "attribute": (
            "attribute_command",
            "Attribute a prediction or a position of a block to the picture, by captum's methods and ours.",
        ),
        "survey": (
            "survey_command",
            "Ask ie, mixing or reach of any number of pictures, kept part by part; and report it.",
        ),
        "train": ("train_command", "Train a model on the digits that come along, or on a folder of images."),
        "flops": ("flops_command", "Count what a model costs, and check the bound of Eq. 3.6 for each gnConv."),
        "viewer": ("viewer_command", "Serve the viewer: all of this as pages for browsers."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return list(self.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The sub-command, imported now."""
        if cmd_name not in self.COMMANDS:
            return None
        module = __import__(f"horinsight.cli.{self.COMMANDS[cmd_name][0]}", fromlist=["command"])
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="horinsight")
def horinsight() -> None:
    """Open up vision backbones and measure how their positions interact, starting from HorNet.

    A first try, on a photograph that comes with the package:

        horinsight ie --model hornet_s_iso

    Results go to standard output, progress to standard error. Nothing is downloaded.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every foreseen error is one line on standard error, without a traceback.

    Set HORINSIGHT_TRACEBACK=1 to see where an error comes from.
    """
    for number in range(3):  # a stream that was closed: no file that is opened later may take its number
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.exit(exit_status(arguments))


def exit_status(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    with spelled_streams(), ended_by_sigterm() as came:
        status = _exit_status(arguments)
    if status == INTERRUPTED and came:
        return 128 + signal.SIGTERM
    return status


def _exit_status(arguments: Sequence[str] | None) -> int:
    try:
        status = horinsight.main(args=arguments, prog_name="horinsight", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return 2
    except click.ClickException as error:
        return _failure(error.format_message(), hint=_help_hint(error))
    except (click.Abort, KeyboardInterrupt):
        click.echo("horinsight: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `horinsight models | head`: the reader has had enough
        return 0
    except (ValueError, OSError) as error:
        if os.environ.get("HORINSIGHT_TRACEBACK"):
            raise
        return _failure(str(error))


def _help_hint(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    return f" Try '{ctx.command_path} --help'." if ctx is not None else ""


def _failure(message: str, hint: str = "") -> int:
    click.echo(f"horinsight: {' '.join(message.split())}{hint}", err=True)
    return 2
