import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import horinsight  # noqa: F401  (registers the models)

# the same examples in every run of the gate; no deadline, because other work shares the machine
settings.register_profile("horinsight", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("horinsight")

REFERENCE = Path(__file__).parent / "data" / "reference"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def reference() -> Path:
    return REFERENCE


@pytest.fixture
def run(capsys):
    """Run the command line in this process: (exit status, standard output, standard error)."""
    from horinsight.cli.main import exit_status

    def run_command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = exit_status([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_command


@pytest.fixture
def horinsight_script() -> str:
    return str(Path(sys.executable).parent / "horinsight")
