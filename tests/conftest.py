import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from viewer_process import CHROMIUM, FLAGS, Server, Visitor

import horinsight
from horinsight.data.images import sample_image

# the same examples in every run of the gate; no deadline, because other work shares the machine
settings.register_profile("horinsight", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("horinsight")

NAN_WEIGHTS = "![x](http:&#47;&#47;evil.invalid&#47;x.png) :red[nan].pth"
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


# the viewer: a server and a browser


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """A folder of weights, good and bad, with a link that leads out of it."""
    folder = tmp_path_factory.mktemp("weights") / "inside"
    folder.mkdir()
    model = horinsight.create_model("hornet_digits_iso", pretrained=False, seed=5)
    torch.save({"model": model.state_dict()}, folder / "digits_seed5.pth")
    torch.save({"model": {"stem.weight": torch.zeros(3)}}, folder / "wrong.pth")
    state = model.state_dict()
    torch.save({name: tensor * 1e18 for name, tensor in state.items()}, folder / "huge.pth")
    torch.save({**state, "stem.weight": torch.full_like(state["stem.weight"], torch.nan)}, folder / NAN_WEIGHTS)
    (folder / "evil.pth").write_bytes(b"cos\nsystem\n(S'echo owned'\ntR.")
    (folder.parent / "secret.pth").write_bytes(b"secret")
    (folder / "link.pth").symlink_to(folder.parent / "secret.pth")
    return folder


@pytest.fixture(scope="session")
def classes(tmp_path_factory) -> Path:
    """A folder of pictures of two classes, many enough that measuring takes some seconds."""
    folder = tmp_path_factory.mktemp("pictures")
    for label, digits in {"odd": (1, 3, 5), "even": (2, 4, 6)}.items():
        (folder / label).mkdir()
        for place in range(64):
            sample_image(f"digit_{digits[place % 3]}").save(folder / label / f"{place:02d}.png")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory, checkpoints, classes) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("viewer") / "log"
    running = Server(log, "--checkpoints", str(checkpoints), "--models", "test_vit", "--images", str(classes))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        message = "The tests of the viewer need Chromium: apt-get install -y chromium."
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visitor(browser, server) -> Iterator[Visitor]:
    one = Visitor(browser, server.url)
    yield one
    one.close()


@pytest.fixture(autouse=True, scope="session")
def _thawed() -> Iterator[None]:
    """The viewer freezes the garbage collector's objects; at the end of the tests they may go."""
    yield
    gc.unfreeze()
