"""What the README shows works: its Python runs, its commands run, its links lead somewhere."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
import torch

import horinsight

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.startswith("horinsight ")
]
OWN_FILES = ("cat.jpg", "dog.png", ".pth", "imagenet")  # stand for the reader's
# tests/training has it with a smaller model; tests/apps serves it; tests/cli/test_flops_command.py runs it as it is
ELSEWHERE = ("--data digits", "viewer", "flops --all")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [c for c in COMMANDS if not any(o in " ".join(c) for o in (*OWN_FILES, *ELSEWHERE))], ids=" ".join
)
def test_commands(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(*arguments)
    assert status == 0
    assert out or "--output" in arguments


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if any(o in " ".join(c) for o in OWN_FILES)], ids=" ".join)
def test_commands_with_the_readers_files_parse(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = run(*arguments)
    assert status == 2
    assert any(f"No such {what}" in error for what in ("image", "checkpoint", "folder of images"))


def test_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = [text for language, text in BLOCKS if language == "python"]
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "stages.3.0.gnconv 5" in out
    assert "torch.Size([1, 16, 12, 12]) torch.Size([1, 144, 144])" in out
    assert "(1, 9, 576)" in out
    assert (tmp_path / "figure4.npz").exists()
    assert "\n1\n2\n" in out
    assert "\n9\n" in out
    assert (tmp_path / "spectra.pdf").exists()
    assert "stages.3.0.gnconv True 0.9" in out
    assert "49495488" in out
    assert (tmp_path / "spectrum.json").exists()
    assert "scope='block'" in out


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks", "ignore:Input Tensor 0 did not already require")
def test_sessions():
    for number, text in enumerate(text for language, text in BLOCKS if language == "pycon"):
        names = {"horinsight": horinsight, "torch": torch}
        session = doctest.DocTestParser().get_doctest(text, names, f"README {number}", "README.md", 0)
        assert len(session.examples) > 3
        assert doctest.DocTestRunner().run(session).failed == 0


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_both_commands_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("run", "test"):
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
