"""What commands print where, on terminals of all kinds and on none."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading

import pytest

from horinsight import QueryMaps
from horinsight.cli.main import exit_status
from horinsight.cli.streams import SpelledStream
from horinsight.data.images import sample_image

ENCODINGS = ("latin-1", "cp1252", "ascii")
SMALL = ("--model", "hornet_test")
COMMANDS = {
    "models": ("models", "hornet_test*"),
    "blocks": ("blocks", *SMALL),
    "ie": ("ie", *SMALL, "--tuples", "1", "--max-order", "3"),  # open orders: ≥
    "mixing": ("mixing", *SMALL, "--images", "chelsea", "coffee"),
    "reach": ("reach", *SMALL, "--images", "chelsea", "coffee", "--blocks", "4", "--probes", "1"),
    "flops": ("flops", "--model", "hornet_test_gf"),
    "figure4": ("figure4", *SMALL, "--images", "coffee", "--blocks", "4", "--query", "0,1", "--output", "DIR/é.png"),
    "train help": ("train", "--help"),
    "flops help": ("flops", "--help"),
    "help": ("--help",),
}


@contextlib.contextmanager
def encoded_streams(encoding: str):
    """Standard output and error that encode strictly; gives the bytes of both."""
    buffers = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(buffer, encoding=encoding, errors="strict") for buffer in buffers)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield buffers
        out.flush()
        err.flush()
    assert out.errors == err.errors == "strict"
    out.detach()
    err.detach()


def printed(encoding: str, *arguments: str) -> tuple[int, str, str]:
    with encoded_streams(encoding) as (out, err):
        status = exit_status(arguments)
    return status, out.getvalue().decode(encoding), err.getvalue().decode(encoding)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_on_terminals_that_are_not_utf_8(command, tmp_path):
    arguments = [argument.replace("DIR", str(tmp_path)) for argument in COMMANDS[command]]
    status, full, _ = printed("utf-8", *arguments)
    assert status == 0
    for encoding in ENCODINGS:
        status, out, err = printed(encoding, *arguments)
        assert status == 0, err
        assert "encode" not in err
        assert out.count("?") == full.count("?")
        assert out.count("\n") == full.count("\n")
        if encoding == "ascii":
            assert (out + err).isascii()


def test_tables_keep_their_columns_in_ascii():
    _, table, _ = printed("ascii", *COMMANDS["ie"])
    lines = table.splitlines()
    rule = next(index for index, line in enumerate(lines) if line and set(line.strip()) == {"-"})
    header, rows = lines[rule - 1], lines[rule + 1 : rule + 5]
    assert [row.split()[4] for row in rows] == ["2", ">=3", ">=3", ">=3"]
    end = header.index("order") + len("order")
    assert [row[:end].split()[-1] for row in rows] == ["2", ">=3", ">=3", ">=3"], "aligned to the right below it"
    assert {row[end] for row in rows} == {" "}
    assert '">=K": not zero' in table


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_names_of_files_that_a_terminal_cannot_write(encoding, tmp_path):
    for name in ("café_π.png", os.fsdecode(b"byte_\xff.png")):
        sample_image("coffee").save(tmp_path / "picture.png")
        try:
            (tmp_path / "picture.png").rename(tmp_path / name)
        except OSError:
            pytest.skip("this file system takes no such names")
        options = ("mixing", *SMALL, "--images", str(tmp_path / name))
        for fmt in ("table", "csv", "json"):
            status, out, err = printed(encoding, *options, "--format", fmt)
            assert (status, err) == (0, "")
        assert json.loads(out)["images"][0].startswith(str(tmp_path / name)), "JSON escapes, and loses nothing"
        status, _, err = printed(encoding, "mixing", *SMALL, "--images", str(tmp_path / name) + ".missing")
        assert status == 2
        assert err.count("\n") == 1
        assert "Traceback" not in err
        for suffix in ("json", "csv", "txt"):
            output = tmp_path / f"{name}.{suffix}"
            measured = ("ie", *options[1:], "--tuples", "1", "--blocks", "1", "--output", str(output))
            status, _, err = printed(encoding, *measured)
            assert status == 0, err
            assert output.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_figures_of_files_whose_names_no_font_has(tmp_path, suffix):
    name = tmp_path / os.fsdecode(b"byte_\xff.png")
    sample_image("coffee").save(tmp_path / "picture.png")
    try:
        (tmp_path / "picture.png").rename(name)
    except OSError:
        pytest.skip("this file system takes no such names")
    options = (
        *SMALL,
        "--images",
        str(name),
        "--blocks",
        "4",
        "--query",
        "0,1",
        "--output",
        str(tmp_path / f"f.{suffix}"),
    )
    status, _, err = printed("utf-8", "figure4", *options)
    assert status == 0, err
    maps = QueryMaps.load(tmp_path / "f.npz")
    assert maps.image_names[0].startswith(str(name))


def test_files_stay_utf_8(tmp_path):
    output = tmp_path / "r.txt"
    status, _, _ = printed("ascii", *COMMANDS["ie"], "--output", str(output))
    assert status == 0
    assert "≥3" in output.read_text(encoding="utf-8")


def test_the_streams_are_given_back():
    out, err = sys.stdout, sys.stderr
    exit_status(["--version"])
    exit_status(["blocks", "--model", "none"])
    assert (sys.stdout, sys.stderr) == (out, err)


def test_a_closed_standard_output_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    for command in ("blocks", "ie", "mixing", "flops", "models"):
        assert exit_status(COMMANDS[command]) == 2
        line = "horinsight: Cannot write to standard output: it is closed.\n"
        assert capsys.readouterr().err == line, "before any work"


def test_a_closed_standard_output_does_not_matter_where_nothing_is_printed(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    assert exit_status([*COMMANDS["blocks"], "--output", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["blocks"]


def test_a_closed_standard_error_loses_remarks_only(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert exit_status(COMMANDS["ie"]) == 0
    out = capsys.readouterr().out
    assert "Interaction orders" in out
    assert "[1/4]" not in out, "progress stays out of the result"
    assert exit_status(["blocks", "--model", "none"]) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_standard_output_is_one_line_and_a_full_standard_error_none(capsys):
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        assert exit_status(COMMANDS["blocks"]) == 2
    assert capsys.readouterr().err == "horinsight: Cannot write to standard output: No space left on device.\n"
    with open("/dev/full", "w") as full, contextlib.redirect_stderr(full):
        assert exit_status(COMMANDS["ie"]) == 0
        assert exit_status(["blocks", "--model", "none"]) == 2
    assert "Interaction orders" in capsys.readouterr().out


def test_reports_into_a_pipe_and_through_a_link(run, tmp_path):
    pipe, link = tmp_path / "pipe.json", tmp_path / "link.json"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    status, _, error = run("ie", *SMALL, "--tuples", 1, "--output", pipe)
    reader.join(timeout=20)
    assert status == 0, error
    assert json.loads(read[0])["complete"] is True, "once, when it is whole"
    assert pipe.is_fifo()
    status, _, error = run("ie", *SMALL, "--output", pipe, "--resume")
    assert status == 2
    assert "is none" in error
    link.symlink_to("real.json")
    assert run("ie", *SMALL, "--tuples", 1, "--output", link)[0] == 0
    assert link.is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["complete"] is True


def test_a_stream_that_takes_everything():
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    stream = SpelledStream(below, "standard output", needed=True)
    assert stream.write("≥1 é\n") == 5
    stream.flush()
    assert below.buffer.getvalue() == b">=1 e\n"
    assert not stream.isatty()


def script(command: str, script_path: str, folder, **environment: str) -> subprocess.CompletedProcess:
    full = {**os.environ, "H": script_path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False, env=full, cwd=folder
    )


def test_a_process_without_standard_output(horinsight_script, tmp_path):
    done = script('"$H" blocks --model hornet_test >&-', horinsight_script, tmp_path)
    assert done.returncode == 2
    assert done.stderr == "horinsight: Cannot write to standard output: it is closed.\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "lines"),
    [
        ('"$H" blocks --model hornet_test > /dev/full', 2, 1),
        ('"$H" ie --model hornet_test --tuples 1 --output r.json 2>&-', 0, 0),
        ('"$H" blocks --model hornet_test >&- 2>&-', 2, 0),
        ('PYTHONIOENCODING=cp1252 "$H" ie --model hornet_test --tuples 1 --max-order 2', 0, 4),
    ],
)
def test_processes_with_odd_streams(horinsight_script, tmp_path, command, status, lines):
    done = script(command, horinsight_script, tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stderr.count("\n") == lines
    assert "Traceback" not in done.stderr
