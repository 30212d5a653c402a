"""A survey's folder in a zip: unpacked within bounds, and read by another process that may take so much and no more."""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from horinsight.cancellation import pause
from horinsight.survey.survey_manifest import read_manifest
from horinsight.viewer.service.bounded_files import json_of, members

SECONDS = 60.0
MOST_MEMORY = 6 * 10**9  # bytes of addresses; torch alone takes half of them
MANIFEST = "manifest.json"
PART = re.compile(r"parts/part-[0-9]{6,9}\.(parquet|npz)")
READ = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
except ImportError:
    pass
from horinsight.cli.main import exit_status
sys.exit(exit_status(["survey", "report", sys.argv[1], "--by", "class", "--format", "json"]))
"""


def report_of_archive(content: bytes) -> dict[str, Any]:
    """What `horinsight survey report --by class --format json` says of the survey in a zip.

    Parquet files can claim any size and number of rows, so that another process reads them, within bounds.

    Raises:
        ValueError: the zip holds no survey, or one that cannot be read in time and memory.
    """
    found = members(content)
    roots = sorted((name for name in found if name.rpartition("/")[2] == MANIFEST), key=len)
    if not roots:
        raise ValueError(f"it is a zip without a survey: expected a file {MANIFEST} in it")
    root = roots[0].removesuffix(MANIFEST)
    json_of(found[roots[0]])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "parts").mkdir()
        (Path(folder) / MANIFEST).write_bytes(found[roots[0]])
        for name, part in found.items():
            if name.startswith(root) and PART.fullmatch(name.removeprefix(root)):
                (Path(folder) / name.removeprefix(root)).write_bytes(part)
        try:
            read_manifest(folder)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder}/", "its ")) from error
        return _report(folder)


def _report(folder: str) -> dict[str, Any]:
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
        code = READ.format(memory=MOST_MEMORY)
        reader = subprocess.Popen([sys.executable, "-c", code, folder], stdout=said, stderr=wrong, cwd=folder)
        end = time.monotonic() + SECONDS
        try:
            while reader.poll() is None:
                pause()
                if time.monotonic() > end:
                    raise ValueError(f"it takes more than {SECONDS:.0f} s to read")
                time.sleep(0.05)
        finally:
            reader.kill()
            reader.wait()
        said.seek(0)
        wrong.seek(0)
        if reader.returncode:
            lines = wrong.read(4000).decode(errors="replace").replace(f"{folder}/", "").replace(folder, "it")
            words = lines.strip().split("\n")[-1].removeprefix("horinsight: ").removeprefix("error: ")
            raise ValueError(words[:300] or "it takes more memory than is given for it")
        try:
            return json_of(said.read())
        except json.JSONDecodeError as error:
            raise ValueError(f"its report is none ({error})") from error
