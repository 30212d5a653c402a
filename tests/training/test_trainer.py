import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from horinsight import create_model, load_checkpoint
from horinsight.data import datasets
from horinsight.data.datasets import LabelledImages, PreparedImages, digits, image_folder
from horinsight.models.origin import weights_origin
from horinsight.training import training_run
from horinsight.training.accuracy import accuracy
from horinsight.training.recipe import RECIPES, Recipe
from horinsight.training.trainer import train
from horinsight.training.training_options import RecipeName, RecipeOptions

TINY = Recipe("tiny", epochs=3, batch_size=8, lr=1e-3, warmup_epochs=1, hflip=0.5, drop_path_rate=0.1, clip_grad=1.0,
              ema_decay=0.9, auto_augment="rand-m5-n2-mstd0.5", crop_scale=0.6, erasing=0.2)  # fmt: skip


def few(count: int = 24) -> tuple[LabelledImages, LabelledImages]:
    images, held_out = digits()
    return tuple(
        LabelledImages(part.name, part.classes, part.labels[:count], part.pictures[:count])
        for part in (images, held_out)
    )


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_digits_and_their_split():
    images, held_out = digits()
    assert (len(images), len(held_out)) == (1438, 359)
    pixels = [{np.asarray(picture).tobytes() for picture in part.pictures} for part in (images, held_out)]
    both = pixels[0] & pixels[1]
    assert len(both) <= 2, "different pictures; a few digits of the data set are equal pixel by pixel"
    assert images.classes == tuple("0123456789")
    assert np.bincount(held_out.labels).min() > 20
    again = digits()[1]
    assert np.array_equal(again.labels, held_out.labels)
    assert held_out.picture(0).mode == "RGB"
    assert np.asarray(images.picture(3)).max() == 255


def test_augmentation_depends_on_seed_epoch_and_picture_only():
    images, _ = few()
    draw = lambda picture: torch.rand(3) + np.random.rand()  # noqa: E731, NPY002
    a, b, c = PreparedImages(images, draw), PreparedImages(images, draw), PreparedImages(images, draw, seed=1)
    expected = [a[index][0] for index in range(4)]
    state = torch.get_rng_state()
    assert all(torch.equal(b[index][0], expected[index]) for index in (3, 1, 0, 2))
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are as before"
    assert not torch.equal(c[0][0], expected[0])
    b.epoch = 1
    assert not torch.equal(b[0][0], expected[0])


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    images, held_out = few()
    whole = train("hornet_test_iso", images, held_out, TINY, tmp_path / "whole", seed=3)
    assert [line.epoch for line in whole.log] == [1, 2, 3]

    seen = []
    original = PreparedImages.__getitem__

    def dying(self, index):
        seen.append(index)
        if len(seen) == 24 + 24 + 24 + 24 + 10:  # in the middle of the second epoch: 24 + 2 x 24 held out, then 24
            raise KeyboardInterrupt
        return original(self, index)

    monkeypatch.setattr(datasets.PreparedImages, "__getitem__", dying)
    with pytest.raises(KeyboardInterrupt):
        train("hornet_test_iso", images, held_out, TINY, tmp_path / "killed", seed=3)
    monkeypatch.setattr(datasets.PreparedImages, "__getitem__", original)
    kept = [json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert len(kept) == 1
    resumed = train("hornet_test_iso", images, held_out, TINY, tmp_path / "killed", seed=3, resume=True)
    assert same(resumed.model, whole.model), "bit for bit"
    assert resumed.log == whole.log
    assert resumed.weights_sha256 == whole.weights_sha256
    assert not any(name.endswith(".part") for name in os.listdir(tmp_path / "killed"))
    with pytest.raises(ValueError, match=r"another run \(seed differ\)"):
        train("hornet_test_iso", images, held_out, TINY, tmp_path / "killed", seed=4, resume=True)


@pytest.mark.slow
def test_checkpoints_are_in_the_published_layout(tmp_path):
    images, held_out = few()
    trained = train("hornet_test_iso", images, held_out, dataclasses.replace(TINY, epochs=2), tmp_path)
    model = create_model("hornet_test_iso", num_classes=10, seed=9)
    load_checkpoint(model, tmp_path / "checkpoint.pth", ema=True)
    assert same(model, trained.model)
    load_checkpoint(model, tmp_path / "checkpoint.pth")
    assert not same(model, trained.model), "present and averaged weights differ"
    load_checkpoint(model, tmp_path / "weights.safetensors")
    assert same(model, trained.model)
    assert accuracy(model.eval(), held_out) == trained.log[-1].ema_accuracy
    assert torch.load(tmp_path / "checkpoint.pth", weights_only=True)["epoch"] == 1


@pytest.mark.slow
def test_mixed_labels_and_accumulated_parts(tmp_path):
    images, held_out = few()
    mixed = dataclasses.replace(TINY, epochs=1, mixup=0.8, cutmix=1.0)
    assert np.isfinite(train("hornet_test_iso", images, held_out, mixed, tmp_path / "mixed").log[0].loss)
    plain = dataclasses.replace(TINY, epochs=1, drop_path_rate=0.0)
    one = train("hornet_test_iso", images, held_out, plain, tmp_path / "one")
    parts = train("hornet_test_iso", images, held_out, plain, tmp_path / "parts", accumulate=2)
    assert parts.log[0].loss == pytest.approx(one.log[0].loss, rel=1e-5)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    images, held_out = few()
    save = torch.save
    calls = []

    def full(content, file):
        calls.append(1)
        if len(calls) == 2:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(training_run.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train("hornet_test_iso", images, held_out, TINY, tmp_path)
    monkeypatch.setattr(training_run.torch, "save", save)
    assert torch.load(tmp_path / "checkpoint.pth", weights_only=True)["epoch"] == 0
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pth", "log.jsonl"]


def test_what_cannot_be_trained_is_refused(tmp_path):
    images, held_out = few(6)
    with pytest.raises(ValueError, match="not to exceed the 6 pictures"):
        train("hornet_test_iso", images, held_out, TINY, tmp_path)
    with pytest.raises(ValueError, match="divisible by 1 processes x 3 parts"):
        train("hornet_test_iso", *few(), TINY, tmp_path, accumulate=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train("hornet_test_iso", *few(), TINY, tmp_path / "file")


def test_folders_of_images(tmp_path):
    images, _ = few(6)
    for index in range(6):
        folder = tmp_path / images.classes[images.labels[index] % 2]
        folder.mkdir(exist_ok=True)
        images.picture(index).save(folder / f"{index}.png")
    found = image_folder(tmp_path)
    assert len(found) == 6
    assert found.classes == ("0", "1")
    assert found.picture(0).size == (8, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No images in"):
        image_folder(tmp_path)
    with pytest.raises(NotADirectoryError):
        image_folder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="one folder of images per class"):
        image_folder(tmp_path / "empty")


def test_the_papers_recipe():
    recipe = RECIPES["imagenet_tiny"]
    assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.weight_decay) == (300, 4e-3, 4096, 0.05)
    assert (recipe.warmup_epochs, recipe.mixup, recipe.cutmix, recipe.erasing) == (20, 0.8, 1.0, 0.25)
    assert (recipe.smoothing, recipe.ema_decay) == (0.1, 0.9999)
    assert "m9" in recipe.auto_augment
    assert [RECIPES[f"imagenet_{size}"].drop_path_rate for size in ("tiny", "small", "base")] == [0.2, 0.4, 0.5]


@pytest.fixture
def folder_of_digits(tmp_path):
    for part, images in zip(("train", "val"), few(32), strict=True):
        for index in range(32):
            folder = tmp_path / "data" / part / str(images.labels[index] % 2)
            folder.mkdir(parents=True, exist_ok=True)
            images.picture(index).save(folder / f"{index}.png")
    return tmp_path / "data"


@pytest.mark.slow
def test_several_processes_train_the_same_model(tmp_path, folder_of_digits):
    """torchrun with two processes against one, at the same total batch: the loss curve up to rounding."""
    options = [
        "train",
        "--model",
        "hornet_test_iso",
        "--data",
        str(folder_of_digits),
        "--epochs",
        "2",
        "--batch-size",
        "8",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    starts = {
        "one": [sys.executable, "-m", "horinsight"],
        "two": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611",
                "-m", "horinsight"],
    }  # fmt: skip
    logs = {}
    for name, start in starts.items():
        command = [*start, *options, "--output", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert "held-out accuracy" in done.stdout
        assert done.stdout.count("held-out accuracy") == 1
        logs[name] = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
    for one, two in zip(logs["one"], logs["two"], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["lr"] == one["lr"]


def test_training_starts_from_random_weights_and_says_what_it_made(tmp_path):
    """Also a model that comes trained, asked for with nothing but its own number of classes."""
    still = Recipe("still", epochs=1, batch_size=8, lr=0.0, warmup_lr=0.0, min_lr=0.0, warmup_epochs=0)
    images, held_out = few(8)
    trained = train("hornet_digits_iso", images, held_out, still, tmp_path, seed=4)
    assert same(trained.model, create_model("hornet_digits_iso", pretrained=False, seed=4))
    origin = weights_origin(trained.model)
    assert origin.source == f"trained: {images.name}, 1 epochs from seed 4, averaged weights"
    assert origin.trained is True


@pytest.mark.slow
def test_kill_and_resume_on_the_command_line(tmp_path, folder_of_digits, run):
    options = [
        "train",
        "--model",
        "hornet_test_iso",
        "--data",
        str(folder_of_digits),
        "--epochs",
        "6",
        "--batch-size",
        "8",
    ]
    killed = subprocess.Popen(
        [sys.executable, "-m", "horinsight", *options, "--output", str(tmp_path / "killed")],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert killed.stderr.readline().startswith("[1/6]")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    status, _, error = run(*options, "--output", tmp_path / "killed")
    assert status == 2
    assert "--resume goes on with it" in error
    status, out, error = run(*options, "--output", tmp_path / "killed", "--resume")
    assert status == 0
    assert not error.startswith("[1/6]")
    whole = run(*options, "--output", tmp_path / "whole")
    assert whole[0] == 0
    assert out.splitlines()[1].split()[-1] == whole[1].splitlines()[1].split()[-1], "the same hash of the weights"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere", "--output", "x"), "No such folder of images"),
        (("--data", "digits"), "--output"),
        (("--data", "digits", "--output", "x", "--recipe", "best"), "--recipe"),
        (("--data", "digits", "--output", "x", "--batch-size", "4096"), "not to exceed"),
        (("--data", "digits", "--output", "x", "--lr", "0"), "--lr"),
    ],
)
def test_bad_input(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, error = run("train", "--model", "hornet_test_iso", *arguments)
    assert (status, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1


def test_every_recipe_can_be_asked_for():
    assert get_args(RecipeName) == tuple(RECIPES)
    changed = RecipeOptions(name="imagenet_tiny", epochs=5, lr=1e-4).recipe()
    assert (changed.epochs, changed.lr, changed.warmup_epochs) == (5, 1e-4, 4)
    assert changed.mixup == RECIPES["imagenet_tiny"].mixup


def test_an_argument_that_neither_training_nor_the_model_has_is_refused(tmp_path):
    with pytest.raises(TypeError, match="patience"):
        train("hornet_test_iso", *few(), TINY, tmp_path, patience=3)
