"""A survey's rows are what each picture gives by itself, whoever measures it, in whatever parts, and however often."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from horinsight import (
    EffectsAsked,
    InfluenceOptions,
    MixingAsked,
    ReachAsked,
    SpectrumOptions,
    SurveyOptions,
    adaptivity,
    create_model,
    image_batch,
    load_image,
    load_survey,
    model_adaptivity,
    model_influence,
    model_interaction_spectra,
    model_mixing_weights,
    run_survey,
    survey_adaptivity,
)
from horinsight.capture import capture
from horinsight.survey import part_files
from horinsight.survey.part_worker import PartWorker, SurveyJob
from horinsight.survey.picture_rows import COLUMNS, picture_seed

MODEL = "hornet_test_iso"
SIDE = 32
HERE = SurveyOptions(workers=0, part_size=4, image_size=SIDE)
EFFECTS = EffectsAsked(SpectrumOptions(num_tuples=3, max_order=3, seed=1), blocks=[1, 3])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Ten pictures in three classes, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for index in range(9):
        path = folder / ("cats", "dogs", "eels")[index % 3] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    (folder / "dogs" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory) -> Path:
    """An undisturbed survey of effects."""
    folder = tmp_path_factory.mktemp("surveys") / "whole"
    run_survey(MODEL, pictures, folder, question=EFFECTS, options=HERE)
    return folder


def batch(model, pictures: Path, *names: str) -> torch.Tensor:
    return image_batch(model, [load_image(pictures / name) for name in names], image_size=(SIDE, SIDE))


def value(frame, image: str, block: int, quantity: str, k: int | None = None) -> float:
    rows = frame[(frame.image == image) & (frame.block == block) & (frame.quantity == quantity)]
    rows = rows[rows.k.isna()] if k is None else rows[rows.k == k]
    (found,) = rows.value
    return float(found)


def test_effects_are_those_of_each_picture_alone(pictures, whole):
    frame = load_survey(whole)
    model = create_model(MODEL)
    name = "cats/3.png"
    images = batch(model, pictures, name)
    seed = picture_seed(1, name)
    spectra = model_interaction_spectra(model, images, blocks=[1, 3], num_tuples=3, max_order=3, seed=seed)
    modules = {block: model.get_submodule(block) for block in spectra}
    with capture(modules) as calls, torch.no_grad():
        model(images)
    for block, (at, spectrum) in zip((1, 3), spectra.items(), strict=True):
        square = float(calls[at][0].output.double().var(correction=0))
        assert value(frame, name, block, "output_square") == pytest.approx(square, rel=1e-12)
        for k, effect in enumerate(spectrum.effects):
            assert value(frame, name, block, "effect", k) == effect
            assert value(frame, name, block, "mean_square", k) == pytest.approx(effect**2 * square, rel=1e-12)
            assert value(frame, name, block, "exact_zero", k) == spectrum.exact_zero[k]
        assert np.isnan(value(frame, name, block, "order")) == (spectrum.location_order is None)
        assert value(frame, name, block, "order_at_least") == 3
        assert value(frame, name, block, "draws") == 3
    other = model_interaction_spectra(model, images, blocks=[1], num_tuples=3, max_order=3, seed=1)
    assert next(iter(other.values())).effects[1] != value(frame, name, 1, "effect", 1), "its own draws"


def test_a_table_for_people_to_group(whole):
    frame = load_survey(whole)
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["class"]) == {"cats", "dogs", "eels"}
    assert not frame.duplicated(["image", "block", "quantity", "k"]).any()
    ordered = frame.sort_values(["image", "block", "quantity", "k"], na_position="last", kind="stable")
    assert frame.equals(ordered.reset_index(drop=True))
    assert frame.groupby(["class", "block"]).size().shape == (6,)
    (broken,) = frame[frame.quantity == "error"].to_dict("records")
    assert broken["image"] == "dogs/broken.png"
    assert "not a picture" in broken["error"]
    few = load_survey(whole, quantities=["order", "draws"], blocks=[3])
    assert (set(few.quantity), set(few.block)) == ({"order", "draws"}, {3})


def test_parts_and_batches_change_nothing(pictures, whole, tmp_path):
    asked = EffectsAsked(SpectrumOptions(num_tuples=3, max_order=3, seed=1, batch_size=2), blocks=[1, 3])
    options = SurveyOptions(workers=0, part_size=7, image_size=SIDE)
    run_survey(MODEL, pictures, tmp_path / "other", question=asked, options=options)
    assert load_survey(tmp_path / "other").equals(load_survey(whole))


def test_it_goes_on_where_parts_are_missing(pictures, whole, tmp_path):
    folder = tmp_path / "some"
    run_survey(MODEL, pictures, folder, question=EFFECTS, options=HERE)
    part_files.part_path(folder, 1).unlink()
    half = folder / "parts" / ".part-000001.parquet.abc.part"
    half.write_bytes(b"half")
    seen = []
    run_survey(MODEL, pictures, folder, question=EFFECTS, options=HERE, on_part=seen.append)
    assert [progress.parts_done for progress in seen] == [2, 3]
    assert [progress.pictures_done for progress in seen] == [6, 10]
    assert seen[-1].last.number == 1
    assert load_survey(folder).equals(load_survey(whole))
    assert not half.exists()


@pytest.mark.parametrize(
    ("question", "options", "words"),
    [
        (EffectsAsked(SpectrumOptions(num_tuples=4, max_order=3, seed=1), [1, 3]), HERE, "tuples 3 there, 4 here"),
        (EffectsAsked(SpectrumOptions(num_tuples=3, max_order=3, seed=1), [1]), HERE, "blocks [1, 3] there, [1] here"),
        (MixingAsked(), HERE, "question ie there, mixing here"),
        (EFFECTS, SurveyOptions(workers=0, part_size=5, image_size=SIDE), "part size 4 there, 5 here"),
    ],
)
def test_another_survey_is_refused(pictures, whole, question, options, words):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with pytest.raises(ValueError, match="holds another survey") as error:
        run_survey(MODEL, pictures, whole, question=question, options=options)
    assert words in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_other_weights_and_pictures_are_refused(pictures, whole, tmp_path):
    with pytest.raises(ValueError, match=r"weights [0-9a-f]+… there, [0-9a-f]+… here"):
        run_survey(create_model(MODEL, seed=1), pictures, whole, question=EFFECTS, options=HERE)
    listed = tmp_path / "few.txt"
    listed.write_text(f"# a comment\n{pictures}/cats/0.png\n\n{pictures}/dogs/1.png\n")
    with pytest.raises(ValueError, match="number of pictures 10 there, 2 here"):
        run_survey(MODEL, listed, whole, question=EFFECTS, options=HERE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds no survey but thesis\.tex"):
        run_survey(MODEL, listed, tmp_path / "full", question=EFFECTS, options=HERE)


class Pairs:
    """A torch Dataset, as far as anybody asks: pictures with labels."""

    classes = ("cats", "dogs")
    targets = (0, 1)

    def __init__(self, folder: Path) -> None:
        self.paths = folder / "cats" / "0.png", folder / "dogs" / "1.png"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return load_image(self.paths[index]), self.targets[index]


def test_lists_and_datasets_give_what_folders_give(pictures, tmp_path):
    listed = tmp_path / "few.txt"
    listed.write_text(f"{pictures}/cats/0.png\n{pictures}/dogs/1.png\n")
    asked = MixingAsked(blocks=[1])
    model = create_model(MODEL)
    run_survey(model, listed, tmp_path / "list", question=asked, options=HERE)
    run_survey(lambda: create_model(MODEL), Pairs(pictures), tmp_path / "set", question=asked, options=HERE)
    one, two = (load_survey(tmp_path / name) for name in ("list", "set"))
    assert list(two.image.unique()) == ["0", "1"]
    columns = ["class", "block", "quantity", "value"]
    assert one[columns].equals(two[columns])
    listed.write_text("a.png\na.png\n")
    with pytest.raises(ValueError, match=r"names a\.png twice"):
        run_survey(model, listed, tmp_path / "no", question=asked, options=HERE)
    assert not (tmp_path / "no").exists()


def test_mixing_of_each_picture_and_adaptivity_over_all(pictures, tmp_path):
    run_survey(MODEL, pictures, tmp_path / "mixing", question="mixing", options=HERE)
    frame = load_survey(tmp_path / "mixing")
    model = create_model(MODEL)
    names = [name for name in frame.image.unique() if "broken" not in name]
    images = batch(model, pictures, *names)
    alone = adaptivity(model_mixing_weights(model, images[4:5], blocks=[2])["blocks.1.gnconv"], image_size=(SIDE, SIDE))
    for quantity in ("mean_distance", "mean_distance_pixels", "effective_positions", "location_adaptivity"):
        assert value(frame, names[4], 2, quantity) == pytest.approx(getattr(alone, quantity).value, rel=1e-6)
    for label, kept in ((None, names), ("eels", [name for name in names if name.startswith("eels")])):
        together = model_adaptivity(model, batch(model, pictures, *kept), blocks=[2])["blocks.1.gnconv"]
        found = survey_adaptivity(tmp_path / "mixing", 2, label=label)
        assert found is not None
        assert found.num_images == len(kept)
        for quantity in ("input_adaptivity", "location_adaptivity", "input_deviation", "mean_distance"):
            assert getattr(found, quantity).value == pytest.approx(getattr(together, quantity).value, rel=1e-6)
    assert survey_adaptivity(tmp_path / "mixing", 2, label="bats") is None


def test_reach_of_each_picture(pictures, tmp_path):
    asked = ReachAsked("block", 2, InfluenceOptions(probes=2, seed=3), blocks=[2])
    run_survey(MODEL, pictures / "eels", tmp_path / "reach", question=asked, options=HERE)
    frame = load_survey(tmp_path / "reach")
    assert set(frame["class"]) == {"eels"}
    model = create_model(MODEL)
    seed = picture_seed(3, "5.png")
    from horinsight.mixing.reach import first_cells

    cells = first_cells(2, (2, 2), 3)
    found = model_influence(
        model, batch(model, pictures, "eels/5.png"), blocks=[2], queries=cells, scope="block", probes=2, seed=seed
    )
    for quantity, estimate in next(iter(found.values())).estimates.items():
        assert value(frame, "5.png", 2, quantity) == pytest.approx(estimate.value, rel=1e-12)


def test_a_full_disk_loses_no_finished_part(pictures, whole, tmp_path, monkeypatch, run):
    usual, left = part_files.whole_file, [2]

    def filling(path, mode):
        if "part-" in path.name:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return usual(path, mode)

    monkeypatch.setattr(part_files, "whole_file", filling)
    folder = tmp_path / "full"
    command = (
        "survey", "ie", "--model", MODEL, "--images", pictures, "--output", folder, "--blocks", "1,3", "--tuples", 3,
        "--max-order", 3, "--seed", 1, "--workers", 0, "--part-size", 4, "--image-size", SIDE,
    )  # fmt: skip
    status, _, error = run(*command)
    assert status == 2
    assert error.splitlines()[-1].endswith("part-000002.parquet: No space left on device. Finished parts are kept: "
                                           "the same call goes on.")  # fmt: skip
    assert part_files.finished_parts(folder) == [0, 1]
    assert len(load_survey(folder)) > 100, "it can be read meanwhile"
    monkeypatch.undo()
    status, _, error = run(*command)
    assert status == 0
    assert "[8/10 pictures]" in error
    assert "[10/10 pictures]" in error
    assert load_survey(folder).image.nunique() == 10
    # --seed is of random weights, too: another model than `whole`'s
    assert not load_survey(folder).equals(load_survey(whole))


def test_an_output_that_must_not_be_written(pictures, tmp_path, monkeypatch):
    def refuse(path, mode):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(part_files, "whole_file", refuse)
    with pytest.raises(OSError, match=r"Cannot write .*manifest\.json: Read-only file system\.$"):
        run_survey(MODEL, pictures, tmp_path / "out", question=EFFECTS, options=HERE)


def test_sigterm_keeps_finished_parts(pictures, whole, tmp_path):
    def stop(progress):
        if progress.parts_done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_survey(MODEL, pictures, tmp_path / "out", question=EFFECTS, options=HERE, on_part=stop)
    assert signal.getsignal(signal.SIGTERM) is before
    assert part_files.finished_parts(tmp_path / "out") == [0]
    run_survey(MODEL, pictures, tmp_path / "out", question=EFFECTS, options=HERE)
    assert load_survey(tmp_path / "out").equals(load_survey(whole))


def test_half_as_much_at_once_where_the_memory_does_not_suffice(pictures, monkeypatch):
    sizes, usual = [], EffectsAsked.measured

    def measured(self, model, image, blocks, seed):
        sizes.append(self.options.batch_size)
        if self.options.batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return usual(self, model, image, blocks, seed)

    monkeypatch.setattr(EffectsAsked, "measured", measured)
    model = create_model(MODEL)
    from horinsight.models.provenance import weights_sha256
    from horinsight.survey.picture_lists import listed_pictures

    listed = listed_pictures(pictures / "cats")
    job = SurveyJob("", lambda: model, weights_sha256(model), EFFECTS, listed.source, SIDE)
    worker = PartWorker(job)
    found = [worker._found(0, "0.png"), worker._found(1, "3.png")]
    assert sizes == [16, 8, 4, 4]
    assert all(row.error is None for one in found for row in one.rows)
    monkeypatch.setattr(EffectsAsked, "smaller", lambda self: None)
    worker.question = EFFECTS
    (row,) = worker._found(0, "0.png").rows
    assert "out of memory" in row.error


def test_pictures_go_to_the_device_of_the_model(pictures):
    from horinsight.models.provenance import weights_sha256
    from horinsight.survey.picture_lists import listed_pictures

    model = create_model(MODEL)
    listed = listed_pictures(pictures / "cats")
    job = SurveyJob("", lambda: model, weights_sha256(model), EFFECTS, listed.source, SIDE)
    worker = PartWorker(job, "meta")
    assert all(weight.is_meta for weight in worker.model.parameters())
    assert worker._image(listed.source.picture(0, "0.png")).is_meta
    assert worker._image(torch.zeros(3, 8, 8)).is_meta
    with pytest.raises(ValueError, match=r"expected as \(3, H, W\)"):
        worker._image(torch.zeros(1, 3, 8, 8))
    job = SurveyJob("", lambda: create_model(MODEL, seed=1), job.weights_sha256, EFFECTS, listed.source, SIDE)
    with pytest.raises(ValueError, match="not those that the survey was begun with"):
        PartWorker(job)


def test_blocks_that_can_never_be_measured_are_refused_at_once(pictures, tmp_path):
    asked = EffectsAsked(SpectrumOptions(num_tuples=2, max_order=4), blocks=[1])
    with pytest.raises(ValueError, match="needs 5 distinct positions"):
        run_survey(MODEL, pictures, tmp_path / "out", question=asked, options=HERE)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_is_killed_is_replaced(pictures, whole, tmp_path):
    import multiprocessing

    killed = []

    def kill(progress):
        workers = multiprocessing.active_children()
        if progress.parts_done == 1 and not killed:
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    options = SurveyOptions(workers=1, part_size=4, image_size=SIDE)
    run_survey(MODEL, pictures, tmp_path / "out", question=EFFECTS, options=options, on_part=kill)
    assert killed
    assert load_survey(tmp_path / "out").equals(load_survey(whole))
    assert not multiprocessing.active_children()


def test_a_program_that_is_killed_goes_on(pictures, whole, tmp_path):
    folder = tmp_path / "out"
    code = f"""
import os, signal
from horinsight import *
asked = EffectsAsked(SpectrumOptions(num_tuples=3, max_order=3, seed=1), blocks=[1, 3])
def kill(progress):
    if progress.parts_done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
options = SurveyOptions(workers=0, part_size=4, image_size={SIDE})
run_survey({MODEL!r}, {str(pictures)!r}, {str(folder)!r}, question=asked, options=options, on_part=kill)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert part_files.finished_parts(folder) == [0, 1]
    run_survey(MODEL, pictures, folder, question=EFFECTS, options=HERE)
    assert load_survey(folder).equals(load_survey(whole))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["columns"] == COLUMNS
    assert (manifest["num_pictures"], manifest["settings"]["tuples"]) == (10, 3)


def test_actors_of_ray_give_the_same_rows(pictures, whole, tmp_path):
    pytest.importorskip("ray")
    options = SurveyOptions(engine="ray", workers=1, part_size=4, image_size=SIDE)
    run_survey(MODEL, pictures, tmp_path / "out", question=EFFECTS, options=options)
    assert load_survey(tmp_path / "out").equals(load_survey(whole))
