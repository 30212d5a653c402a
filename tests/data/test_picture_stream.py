"""Many pictures in batches: their order, their names, what is kept of them, and those that cannot be read."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from horinsight.data.images import image_label, load_image
from horinsight.data.picture_batches import tensor_stream
from horinsight.data.picture_sources import picture_source
from horinsight.data.picture_stream import PictureStream, picture_stream


def tensor_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.resize((8, 8)), dtype=np.float32)).permute(2, 0, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(7):
        Image.new("RGB", (9 + number, 10), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def damaged(folder: Path) -> None:
    """The third cut short, the sixth no picture."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "2.png")
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    (folder / "5.png").write_text("no picture")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_batches_are_the_pictures_in_their_order(folder, num_workers):
    stream = picture_stream(folder, tensor_of, batch_size=3, num_workers=num_workers)
    for _ in range(2):
        batches = list(stream)
        assert [batch.start for batch in batches] == [0, 3, 6]
        assert torch.cat([batch.images for batch in batches])[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
        names = [name for batch in batches for name in batch.names]
        files = sorted(folder.iterdir())
        assert names == list(stream.names) == [image_label(str(file), load_image(file)) for file in files]
    assert (len(stream), stream.image_size, stream.broken) == (7, (8, 8), {})
    some = stream.some([5, 1])
    assert (some.images[:, 0, 0, 0].tolist(), some.names) == ([1, 5], (stream.names[1], stream.names[5]))


def test_one_batch_is_decoded_once(folder):
    decoded: list[int] = []
    stream = picture_stream(folder, lambda image: decoded.append(1) or tensor_of(image), batch_size=7)
    assert stream.one_batch() is not None
    for _ in range(3):
        assert [len(batch.images) for batch in stream] == [7]
    assert len(decoded) == 7
    assert picture_stream(folder, tensor_of, batch_size=6).one_batch() is None


def test_few_pictures_are_in_memory(folder):
    """What is decoded ahead of what is used is bounded by the batch and the workers, not by the number of pictures."""
    decoded, lock = [0], threading.Lock()

    def counted(image: Image.Image) -> Tensor:
        with lock:
            decoded[0] += 1
        return tensor_of(image)

    pictures = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(100)]
    stream = picture_stream(pictures, counted, batch_size=4, num_workers=2)
    for number, _ in enumerate(stream, 1):
        assert decoded[0] <= 4 * number + 1 + 2 * 2 + 1


def test_a_broken_picture_is_an_error_in_one_line(folder):
    damaged(folder)
    with pytest.raises(ValueError, match=r"2\.png is damaged or cut short: .* --skip-broken\.$") as raised:
        list(picture_stream(folder, tensor_of, batch_size=2))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_pictures_are_skipped_on_request_named_and_counted(folder, num_workers):
    damaged(folder)
    said: list[str] = []
    stream = picture_stream(
        folder,
        tensor_of,
        batch_size=2,
        num_workers=num_workers,
        skip_broken=True,
        on_broken=lambda name, reason: said.append(f"{name}: {reason}"),
    )
    for _ in range(2):
        found = torch.cat([batch.images for batch in stream])
        assert found[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 6]
        assert [Path(name).name for name in stream.broken] == ["2.png", "5.png"]
    assert "damaged" in stream.broken[str(folder / "2.png")]
    assert "is not a picture" in stream.broken[str(folder / "5.png")]
    assert len(said) == 2, "said once, not at every pass"
    assert len(stream) == len(stream.names) == 5


def test_none_that_can_be_read(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"None of 1 pictures can be read: .*a\.png is not a picture"):
        list(picture_stream(tmp_path, tensor_of, skip_broken=True))


def test_pictures_that_change_between_passes(folder):
    stream = picture_stream(folder, tensor_of, batch_size=2)
    assert len(stream) == 7
    Image.new("RGB", (9, 9), "green").save(folder / "4.png")
    with pytest.raises(ValueError, match=r"4\.png changed while it was measured"):
        list(stream)
    (folder / "4.png").unlink()
    with pytest.raises(ValueError, match=r"4\.png could be read before, and now cannot"):
        list(stream)


def test_the_same_picture_twice_counts_twice(folder):
    stream = picture_stream([folder / "0.png", folder / "0.png"], tensor_of, batch_size=1)
    assert stream.names[1] == f"{stream.names[0]} again"
    assert [batch.names[0] for batch in stream] == list(stream.names)


class Items(Dataset[object]):
    """A data set of pictures or tensors, with labels; one item is another's size, one raises."""

    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index], 3


def test_a_dataset_of_pictures_or_tensors():
    pictures = Items([Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(3)])
    found = torch.cat([batch.images for batch in picture_stream(pictures, tensor_of, batch_size=2)])
    assert found[:, 0, 0, 0].tolist() == [0, 1, 2]
    prepared = torch.randn(3, 3, 8, 8)
    tensors = picture_stream(Items(list(prepared)), tensor_of, batch_size=2)
    assert torch.equal(torch.cat([batch.images for batch in tensors]), prepared)
    assert tensors.names[0].startswith("item 0 (sha256 ")
    odd = Items([prepared[0], torch.zeros(3, 8, 9), OSError("gone"), prepared[1]])
    with pytest.raises(ValueError, match=r"item 1 has the shape \(3, 8, 9\), expected \(3, 8, 8\)"):
        list(picture_stream(odd, tensor_of))
    left = picture_stream(odd, tensor_of, skip_broken=True)
    assert (len(left), list(left.broken)) == (2, ["item 1", "item 2"])
    assert left.broken["item 2"] == "item 2: gone"
    with pytest.raises(TypeError, match="item 0 is expected to be a PIL"):
        list(picture_stream(Items(["text"]), tensor_of, skip_broken=True))


def test_a_dataset_that_knows_its_files_names_them(folder):
    dataset = Items([Image.new("RGB", (8, 8))] * 2)
    dataset.samples = [("cats/a.png", 0), ("dogs/b.png", 1)]
    assert picture_source(dataset).names == ["cats/a.png", "dogs/b.png"]


def test_a_list_of_paths_in_a_file(folder):
    (folder / "few.txt").write_text("# two of them\n1.png\n\n3.png\n")
    assert [Path(name).name for name in picture_source(folder / "few.txt").names] == ["1.png", "3.png"]
    found = list(picture_stream(folder / "few.txt", tensor_of))
    assert found[0].images[:, 0, 0, 0].tolist() == [1, 3]
    (folder / "none.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="lists no image"):
        picture_source(folder / "none.txt")


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "at least one picture"),
        ((image for image in ()), "gone through more than once.*got generator"),
        ([3], "expects paths and PIL.Image.Image, got int"),
        (Path("no/such/folder"), "No such folder"),
        (Path(__file__), "a folder of images, or a list of paths"),
    ],
)
def test_what_is_no_source_of_pictures(pictures, message):
    with pytest.raises((ValueError, OSError), match=message):
        picture_source(pictures)


def test_options_out_of_range(folder):
    for name, value in (("batch_size", 0), ("num_workers", -1)):
        with pytest.raises(ValueError, match=f"{name} expects a number from"):
            picture_stream(folder, tensor_of, **{name: value})


def test_leaving_a_stream_early_ends_its_threads(folder):
    before = threading.active_count()
    stream: PictureStream = picture_stream(folder, tensor_of, batch_size=1)
    for _ in stream:
        break
    del stream
    assert threading.active_count() == before


def test_a_tensor_in_batches():
    images = torch.randn(5, 3, 8, 8)
    batches = list(tensor_stream(images, tuple("abcde"), 2))
    assert torch.equal(torch.cat([batch.images for batch in batches]), images)
    assert [(batch.names, batch.start) for batch in batches] == [(("a", "b"), 0), (("c", "d"), 2), (("e",), 4)]
