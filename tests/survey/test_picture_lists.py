"""Which pictures a folder, a list or a Dataset names, and what their rows are called."""

import os
from pathlib import Path

import pytest
from PIL import Image

from horinsight.survey.picture_lists import listed_pictures
from horinsight.survey.survey_options import SurveyOptions


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("b/deep/1.PNG", "a/2.png", "a/.hidden.png", ".cache/3.png", "top.jpg", "a/notes.txt"):
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("")
        else:
            Image.new("RGB", (8, 8)).save(path, format="PNG")
    return tmp_path / "all"


def test_a_folder_with_all_below_it(folder, tmp_path):
    (folder / "b" / "again").symlink_to(folder)  # round in a circle
    found = listed_pictures(folder)
    assert found.names == ["a/2.png", "b/deep/1.PNG", "top.jpg"]
    assert found.classes == ["a", "deep", "all"]
    assert found.source.picture(0, "a/2.png").size == (8, 8)
    before = found.sha256
    (folder / "a" / "2.png").rename(folder / "a" / "4.png")
    assert listed_pictures(folder).sha256 != before
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No images in"):
        listed_pictures(tmp_path / "empty")


def test_a_list_is_relative_to_where_it_lies(folder, monkeypatch):
    path = folder / "some.txt"
    path.write_text(f"# two\nb/deep/1.PNG\n\n{folder}/top.jpg\n")
    monkeypatch.chdir("/")
    found = listed_pictures(path)
    assert found.names == ["b/deep/1.PNG", f"{folder}/top.jpg"]
    assert found.classes == ["deep", "all"]
    assert [found.source.picture(i, name).size for i, name in enumerate(found.names)] == [(8, 8), (8, 8)]
    with pytest.raises(ValueError, match=r"got top\.jpg"):
        listed_pictures(folder / "top.jpg")
    with pytest.raises(FileNotFoundError, match="No such folder of images"):
        listed_pictures(folder / "nowhere")


def test_names_that_are_no_text_are_spelled(tmp_path):
    from horinsight.survey.part_files import Part, part_path, write_part
    from horinsight.survey.picture_rows import unreadable_row
    from horinsight.survey.survey_frame import pyarrow

    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "parts").mkdir()
    write_part(tmp_path, Part(0, 0, (name,), ("x",)), [[unreadable_row(ValueError("a\nb"))]])
    (row,) = pyarrow.parquet.read_table(part_path(tmp_path, 0)).to_pylist()
    assert (row["image"], row["error"]) == (r"caf\xe9.png", "a b")


class Folders:
    """As torchvision's ImageFolder says what it holds."""

    classes = ("cats", "dogs")

    def __init__(self, root: str) -> None:
        self.root = root
        self.samples = [(f"{root}/cats/1.png", 0), (f"{root}/dogs/2.png", 1)]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> str:
        return self.samples[index][0]


def test_a_dataset_that_names_its_samples():
    found = listed_pictures(Folders("/data"))
    assert (found.names, found.classes) == (["cats/1.png", "dogs/2.png"], ["cats", "dogs"])
    assert found.source.picture(1, "dogs/2.png") == "/data/dogs/2.png"
    assert listed_pictures(range(11)).names[:2] == ["00", "01"]
    with pytest.raises(ValueError, match="got int"):
        listed_pictures(3)


def test_options_that_do_not_go_together():
    with pytest.raises(ValueError, match="give --engine ray, too"):
        SurveyOptions(ray_address="auto")
    with pytest.raises(ValueError, match="at least one worker"):
        SurveyOptions(engine="ray", workers=0)
    with pytest.raises(ValueError, match="part_size expects"):
        SurveyOptions(part_size=0)
