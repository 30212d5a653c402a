"""`horinsight viewer`: the pages of the viewer, served to browsers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import click

import horinsight

FOUND_PORTS = click.IntRange(1, 65535)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
SCRIPT = Path(horinsight.__file__).parent / "viewer" / "served.py"


@click.command("viewer")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is all of them.")
@click.option("--port", type=FOUND_PORTS, default=8501, show_default=True, help="Port to listen at.")
@click.option(
    "--checkpoints",
    type=FOLDER,
    help="Folder of weights that visitors may choose from; they are read safely, and nothing else of it is.",
)
@click.option("--images", type=FOLDER, help="Folder of pictures, one below it for each class, for the page of classes.")
@click.option("--results", type=FOLDER, help="Folder of saved results and surveys that visitors may look at.")
@click.option("--models", multiple=True, metavar="NAME", help="A further model that visitors may choose. Repeatable.")
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Gigabytes that the server may take, measurements among them, of which one runs at a time.  [default: a "
    "measurement takes HORINSIGHT_MEMORY, else half of what is free]",
)
def command(
    host: str,
    port: int,
    checkpoints: Path | None,
    images: Path | None,
    results: Path | None,
    models: tuple[str, ...],
    memory: float | None,
) -> None:
    """Serve the viewer to browsers, until it is interrupted.

    Nothing that it shows asks another server; browsers are told so with every page. To put it on a public address, set
    a server that speaks HTTPS before it.

    \b
    Examples:
      horinsight viewer
      horinsight viewer --host 0.0.0.0 --port 80 --checkpoints weights --memory 8
      horinsight viewer --images pictures --results saved
    """
    _check_models(models)
    _check_free(host, port)
    click.echo(f"horinsight: the viewer is at http://{_spelled(host)}:{port} (Ctrl+C ends it)", err=True)
    sys.stderr.flush()
    arguments = viewer_arguments(host, port, checkpoints, models, memory, images=images, results=results)
    if os.name == "nt":
        sys.exit(subprocess.call(arguments))
    os.execv(arguments[0], arguments)  # one process, which gets the signals


def viewer_arguments(
    host: str,
    port: int,
    checkpoints: Path | None,
    models: tuple[str, ...],
    memory: float | None,
    *,
    images: Path | None = None,
    results: Path | None = None,
) -> list[str]:
    """The command that serves the viewer."""
    server = ["--server.address", host, "--server.port", str(port), "--server.headless", "true"]
    quiet = ["--logger.hideWelcomeMessage", "true"]  # its welcome would ask another server for our address
    folders = {"--checkpoints": checkpoints, "--images": images, "--results": results}
    given = ((option, folder) for option, folder in folders.items() if folder is not None)
    ours = [part for option, folder in given for part in (option, str(folder.resolve()))]
    ours += ["--models", *models] if models else []
    ours += [] if memory is None else ["--memory", f"{memory:g}"]
    return [sys.executable, "-m", "streamlit", "run", str(SCRIPT), *server, *quiet, "--", *ours]


def _check_models(models: tuple[str, ...]) -> None:
    if not models:
        return
    import timm

    import horinsight.models.registry  # noqa: F401  (enters ours)

    unknown = [name for name in models if not timm.is_model(name)]
    if unknown:
        raise ValueError(f"--models: neither horinsight nor timm has {', '.join(unknown)}.")


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(address)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"Cannot listen at {host}, port {port}: {why}. Choose another --host or --port.") from error


def _spelled(host: str) -> str:
    return f"[{host}]" if ":" in host else host
