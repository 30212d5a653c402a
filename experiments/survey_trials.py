"""Surveys tried hard: memory and time of many pictures, kills, full disks, engines against each other, all digits.

    python experiments/survey_trials.py pictures out/pictures --number 20000
    python experiments/survey_trials.py memory out/pictures
    python experiments/survey_trials.py kills out/pictures --number 20
    python experiments/survey_trials.py disk out/pictures
    python experiments/survey_trials.py speed out/pictures
    python experiments/survey_trials.py digits out/digits

`disk` mounts file systems in memory and needs root for it. Results: experiments/README.md.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas
from PIL import Image

MODEL = "hornet_test_iso"
SIDE = 64
KILLS_PICTURES = 480  # in parts of four, and a broken one
COMMAND = [sys.executable, "-m", "horinsight", "survey"]


def make_pictures(folder: Path, number: int) -> None:
    """Smoothed noise, in ten classes; a picture is drawn by its number."""
    for index in range(number):
        path = folder / f"class_{index % 10}" / f"{index:06d}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


def list_of(folder: Path, number: int, path: Path) -> Path:
    """A list of the first pictures."""
    names = sorted(folder.rglob("*.png"), key=lambda one: one.name)[:number]
    if len(names) < number:
        raise SystemExit(f"{folder} has {len(names)} pictures, expected {number}: make them first.")
    path.write_text("".join(f"{name.resolve()}\n" for name in names))
    return path


def memory(folder: Path, number: int, question: str) -> None:
    """Peak memory and time of one worker as pictures go by."""
    from horinsight import SurveyOptions, run_survey

    parts: list[tuple[int, float, float, int]] = []

    def keep(progress: object) -> None:
        done = progress.last  # type: ignore[attr-defined]
        if done is not None:
            parts.append((done.num_pictures, done.seconds, done.cpu_seconds, done.peak_bytes))
            if len(parts) % 10 == 0:
                print(f"{sum(part[0] for part in parts)} pictures, {done.peak_bytes / 2**20:.1f} MB", flush=True)

    with tempfile.TemporaryDirectory() as out:
        pictures = list_of(folder, number, Path(out) / "list.txt")
        options = SurveyOptions(workers=1, part_size=100, image_size=SIDE)
        run_survey(MODEL, pictures, Path(out) / "survey", question=question, options=options, on_part=keep)  # type: ignore[arg-type]
    counts, seconds, cpu, peaks = (np.array(column) for column in zip(*parts, strict=True))
    done = counts.cumsum()
    early = int(np.searchsorted(done, 1000))
    print(f"peak memory: {peaks[early] / 2**20:.1f} MB at {done[early]}, {peaks[-1] / 2**20:.1f} MB at {done[-1]}")
    for name, each in (("by the clock", seconds), ("of the processor", cpu)):
        spent = each.cumsum()
        first, last = spent[early] / done[early], spent[-1] / done[-1]
        print(f"seconds a picture {name}: {first:.5f} up to {done[early]}, {last:.5f} up to {done[-1]}")
        thousands = [each[start : start + 10].sum() for start in range(0, len(each), 10)]
        print("  of each thousand:", " ".join(f"{value:.1f}" for value in thousands))


def asked(pictures: Path, output: Path, *more: str, part: int = 10) -> list[str]:
    """The command that all trials run."""
    start = [*COMMAND, "ie", "--model", MODEL, "--images", str(pictures), "--output", str(output)]
    return [*start, "--image-size", str(SIDE), "--part-size", str(part), *more]


def descendants(root: int) -> dict[int, str]:
    """Process id → command line of all that a process has started."""
    parents, lines = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            lines[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, IndexError):
            continue
    found, waiting = {}, [root]
    while waiting:
        now = waiting.pop()
        young = [pid for pid, parent in parents.items() if parent == now and pid not in found]
        found |= {pid: lines[pid] for pid in young}
        waiting += young
    return found


def workers_of(driver: int) -> list[int]:
    """Worker processes of a survey, of either engine."""
    return [pid for pid, line in descendants(driver).items() if "spawn_main" in line or "ray::PartActor" in line]


def kills(folder: Path, number: int, seed: int) -> None:
    """SIGKILL at random moments; what is finished afterwards must be what an undisturbed run gives."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as out:
        pictures = list_of(folder, KILLS_PICTURES, Path(out) / "list.txt")
        broken = Path(out) / "broken.png"
        broken.write_bytes(b"no picture")
        with pictures.open("a") as file:
            file.write(f"{broken}\n")
        subprocess.run(asked(pictures, Path(out) / "whole", "--workers", "0", part=4), check=True, capture_output=True)
        whole = rows(Path(out) / "whole")
        for engine in ("local", "ray"):
            command = asked(pictures, Path(out) / engine, "--workers", "2", "--engine", engine, part=4)
            killed_run(command, Path(out) / engine / "parts", number // 2, draw)
            found = rows(Path(out) / engine)
            twice = int(found.duplicated(["image", "block", "quantity", "k"]).sum())
            halves = len(list((Path(out) / engine / "parts").glob(".part-*")))
            print(f"{engine}: rows {len(found)} of {len(whole)}, twice {twice}, halves {halves}", end=", ")
            print(f"the same table: {found.equals(whole)}", flush=True)


def killed_run(command: list[str], parts: Path, number: int, draw: random.Random) -> None:
    """A survey that is killed so many times: five in ten a worker, three the driver, two the process group."""
    victims = [("worker", "driver", "worker", "group", "worker")[place % 5] for place in range(number)]
    victims = ["driver" if one == "worker" and place % 10 == 7 else one for place, one in enumerate(victims)]
    draw.shuffle(victims)
    total = KILLS_PICTURES // 4
    moments = sorted(draw.sample(range(1, total - 5), number))
    everything: set[int] = set()
    process = begun(command)
    for victim, moment in zip(victims, moments, strict=True):
        hit = False
        while not hit:
            if process.poll() is not None:
                raise SystemExit(f"the survey ended before {moment} parts, with {process.returncode}")
            there = workers_of(process.pid)
            enough = len(list(parts.glob("part-*.parquet"))) >= moment and (there or victim != "worker")
            time.sleep(draw.uniform(0.0, 0.6))
            if not enough:
                continue
            everything |= set(descendants(process.pid))
            try:
                if victim == "worker":
                    os.kill(draw.choice(there), signal.SIGKILL)
                elif victim == "driver":
                    os.kill(process.pid, signal.SIGKILL)
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                hit = True
            except ProcessLookupError:
                continue
        done = len(list(parts.glob("part-*.parquet")))
        print(
            f"  {command[command.index('--engine') + 1]}: {victim} killed with {done} of {total + 1} parts there",
            flush=True,
        )
        if victim != "worker":
            process.communicate()
            process = begun(command)
    _, said = process.communicate()
    print(f"  ended with {process.returncode}: {said.strip().splitlines()[-1]}", flush=True)
    for pid in everything:
        if (Path(f"/proc/{pid}/cmdline").exists()) and b"ray" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def begun(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def rows(folder: Path) -> pandas.DataFrame:
    from horinsight import load_survey

    return load_survey(folder)


def disk(folder: Path) -> None:
    """A full disk, a read-only one, and a limit on the size of files."""
    with tempfile.TemporaryDirectory() as out:
        pictures = list_of(folder, 240, Path(out) / "list.txt")
        subprocess.run(asked(pictures, Path(out) / "whole", "--workers", "0"), check=True, capture_output=True)
        whole = rows(Path(out) / "whole")
        mount = Path(out) / "small"
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(mount)], check=True)
        try:
            for name, remount in (("full", "size=96k"), ("read-only", "ro,size=96k")):
                subprocess.run(["mount", "-o", f"remount,{remount}", str(mount)], check=True)
                for engine in ("local", "ray"):
                    command = asked(pictures, mount / "survey", "--workers", "1", "--engine", engine)
                    said(name, engine, command, mount / "survey")
            subprocess.run(["mount", "-o", "remount,rw,size=64m", str(mount)], check=True)
            subprocess.run(asked(pictures, mount / "survey", "--workers", "1"), check=True, capture_output=True)
            print("after room was made, the same table:", rows(mount / "survey").equals(whole))
        finally:
            subprocess.run(["umount", str(mount)], check=True)
        limited = ["bash", "-c", 'ulimit -f 2; exec "$@"', "_"]
        command = asked(pictures, Path(out) / "limited", "--workers", "1")
        said("files of 2 KB at most", "local", [*limited, *command], Path(out) / "limited")


def said(name: str, engine: str, command: list[str], survey: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    kept = len(list((survey / "parts").glob("part-*.parquet")))
    halves = len(list((survey / "parts").glob(".part-*")))
    last = done.stderr.strip().splitlines()[-1]
    lines = sum(not line.startswith("[") for line in done.stderr.strip().splitlines())
    print(f"{name}, {engine}: status {done.returncode}, {lines} line, {kept} parts kept, {halves} halves; {last}")


def speed(folder: Path, number: int) -> None:
    """One and two local workers and two of Ray, start-up apart: from the first part done to the last."""
    for engine, workers in (("local", 1), ("local", 2), ("ray", 2), ("ray", 2), ("local", 2), ("local", 1)):
        with tempfile.TemporaryDirectory() as out:
            pictures = list_of(folder, number, Path(out) / "list.txt")
            rate, whole = rate_of(pictures, Path(out) / "survey", engine, workers)
            print(f"{engine}, {workers}: {rate:.1f} pictures a second, {whole:.1f} s in all", flush=True)


def rate_of(pictures: Path, output: Path, engine: str, workers: int) -> tuple[float, float]:
    """Pictures a second once every worker has finished a part, and seconds in all."""
    from horinsight import SurveyOptions, run_survey

    moments: list[tuple[float, int, str]] = []

    def keep(progress: object) -> None:
        done = progress.last  # type: ignore[attr-defined]
        if done is not None:
            moments.append((time.monotonic(), done.num_pictures, done.worker))

    begun = time.monotonic()
    options = SurveyOptions(engine=engine, workers=workers, part_size=25, image_size=SIDE)  # type: ignore[arg-type]
    run_survey(MODEL, pictures, output, question="ie", options=options, on_part=keep)
    first = max(min(moment for moment, _, worker in moments if worker == name) for name in {one[2] for one in moments})
    later = [(moment, count) for moment, count, _ in moments if moment > first]
    return sum(count for _, count in later) / (later[-1][0] - first), time.monotonic() - begun


def digits(folder: Path) -> None:
    """All 1 797 digits as PNG files by class, and both surveys of them with their reports."""
    from horinsight.data.handwritten_digits import digit_arrays, digit_picture

    for row, label in enumerate(digit_arrays()[1]):
        path = folder / "pictures" / str(label) / f"{row:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            digit_picture(row).save(path)
    for question in ("mixing", "ie"):
        begun = time.monotonic()
        output = folder / question
        command = [*COMMAND, question, "--model", "hornet_digits_iso", "--images", str(folder / "pictures")]
        command += ["--tuples", "8"] if question == "ie" else []
        subprocess.run([*command, "--output", str(output), "--part-size", "20", "--workers", "2"], check=True)
        print(f"{question}: {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
        for by in ([], ["--by", "class"]):
            plot = folder / f"{question}{'_by_class' if by else ''}.png"
            subprocess.run([*COMMAND, "report", str(output), *by, "--plot", str(plot)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trial", choices=["pictures", "memory", "kills", "disk", "speed", "digits"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--question", choices=["ie", "mixing", "reach"], default="ie", help="of `memory`")
    given = parser.parse_args()
    if given.trial == "pictures":
        make_pictures(given.folder, given.number or 20000)
    elif given.trial == "memory":
        memory(given.folder, given.number or 20000, given.question)
    elif given.trial == "kills":
        kills(given.folder, given.number or 20, given.seed)
    elif given.trial == "disk":
        disk(given.folder)
    elif given.trial == "speed":
        speed(given.folder, given.number or 2000)
    else:
        digits(given.folder)


if __name__ == "__main__":
    main()
