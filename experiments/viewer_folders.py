"""Folders that the viewer is started with, so that its pages of classes and of results have something to show."""

import subprocess
import sys
from pathlib import Path

import horinsight
from horinsight.data.images import sample_image

MODEL = "hornet_digits_iso"
CLASSES = {"odd": (1, 3, 5, 7), "even": (2, 4, 6, 8)}


def classes_folder(folder: Path) -> Path:
    """Digits in a folder for each class."""
    for label, digits in CLASSES.items():
        (folder / label).mkdir(parents=True)
        for digit in digits:
            sample_image(f"digit_{digit}").save(folder / label / f"{digit}.png")
    return folder


def results_folder(folder: Path, pictures: Path) -> Path:
    """Maps, spectra of two pictures, and surveys of mixing and of effects.

    Args:
        folder: that they are saved in.
        pictures: of the surveys, a folder for each class.
    """
    folder.mkdir(parents=True)
    model = horinsight.create_model(MODEL)
    for name in ("digit_3", "digit_8"):
        images = horinsight.image_batch(model, [sample_image(name)])
        said = {"model_name": MODEL, "image_names": [name]}
        maps = horinsight.query_maps(model, images, [[(6, 9)]], blocks=(1, 5, 9, 13), **said)
        horinsight.save_result(maps, folder / f"maps_{name}.npz")
        spectra = horinsight.model_interaction_spectra(model, images, blocks=(1, 5, 9, 13), num_tuples=8, **said)
        horinsight.save_result(spectra, folder / f"spectra_{name}.json")
    for question, options in (("mixing", ()), ("ie", ("--tuples", "4"))):
        asked = ["survey", question, "--model", MODEL, "--images", str(pictures), "--blocks", "1,5,9,13", *options]
        run = [sys.executable, "-m", "horinsight", *asked, "--workers", "0", "--output", str(folder / question)]
        subprocess.run(run, check=True, capture_output=True)
    return folder
