import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from horinsight import Estimate, load_result, save_result
from horinsight.whole_file import check_writable, is_replaceable, whole_file


def write(path: Path, text: str = "after") -> None:
    with whole_file(path) as file:
        file.write(text)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("before")

    def stop_half_way(error: type[BaseException]) -> None:
        with whole_file(target) as file:
            file.write("half")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            stop_half_way(error)
        assert target.read_text() == "before"
        assert os.listdir(tmp_path) == ["out.txt"]
    write(target)
    assert target.read_text() == "after"
    assert stat.S_IMODE(target.stat().st_mode) & 0o600 == 0o600


def test_unwritable_places(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_writable(tmp_path / "no" / "where.json")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_writable(tmp_path)


@pytest.mark.parametrize("relative", [False, True])
def test_links_are_followed_and_stay(tmp_path, relative):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "links").mkdir()
    target, link, second = tmp_path / "elsewhere/real.txt", tmp_path / "links/a.txt", tmp_path / "links/b.txt"
    link.symlink_to("../elsewhere/real.txt" if relative else target)
    second.symlink_to("a.txt" if relative else link)
    write(second, "made through a dangling link")
    assert target.read_text() == "made through a dangling link"
    write(link)
    assert target.read_text() == "after"
    assert link.is_symlink()
    assert second.is_symlink()
    assert not target.is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == ["real.txt"]
    assert sorted(os.listdir(tmp_path / "links")) == ["a.txt", "b.txt"]


def test_a_failure_leaves_the_target_of_a_link(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(TypeError), whole_file(tmp_path / "link") as file:
        file.write(b"half")
    assert (tmp_path / "real").read_text() == "before"
    assert (tmp_path / "link").is_symlink()


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "lost").symlink_to("no/where")
    (tmp_path / "folder").symlink_to(tmp_path)
    for use in (check_writable, write):
        with pytest.raises(OSError, match="go round in a circle"):
            use(tmp_path / "a")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            use(tmp_path / "lost")
        with pytest.raises(IsADirectoryError, match="is a folder"):
            use(tmp_path / "folder")


def test_permissions_and_owner_are_kept(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("before")
    target.chmod(0o640)
    if os.getuid() == 0:
        os.chown(target, 1234, 2345)
    before = target.stat()
    write(target)
    after = target.stat()
    assert target.read_text() == "after"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a file of somebody else's")
def test_where_the_owner_cannot_be_kept_the_file_is_written_into(tmp_path, monkeypatch):
    target = tmp_path / "out.txt"
    target.write_text("something longer before")
    os.chown(target, 1234, 2345)
    before = target.stat()

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refused)
    write(target)
    after = target.stat()
    assert target.read_text() == "after"
    assert (after.st_ino, after.st_uid, after.st_gid) == (before.st_ino, before.st_uid, before.st_gid)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_file_that_must_not_be_written(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("before")
    target.chmod(0o444)
    with pytest.raises(PermissionError, match="must not be written"):
        write(target)


def test_a_pipe_gets_the_content_and_stays(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    check_writable(pipe)  # does not wait for a reader
    assert not is_replaceable(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    save_result(Estimate(1.0, 0.5), pipe)
    reader.join(timeout=10)
    assert '"standard_error": 0.5' in read[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe.json"]


def test_a_device_stays(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_text("a device that takes everything")
    except OSError:
        pytest.skip("devices cannot be made here")
    (tmp_path / "link").symlink_to(device)
    for path in (device, tmp_path / "link"):
        check_writable(path)
        write(path)
        assert stat.S_ISCHR(device.stat().st_mode)


def test_standard_output_by_name_goes_where_it_goes(tmp_path):
    """With `>> file` what the file holds stays, and what the shell writes afterwards follows."""
    out = tmp_path / "out.txt"
    source = Path(__file__).parent.parent / "horinsight" / "whole_file.py"  # alone, without what takes long to import
    code = (
        f"import runpy; whole_file = runpy.run_path({str(source)!r})['whole_file']\n"
        "with whole_file('/dev/stdout') as file: file.write('result\\n')"
    )
    command = f'(echo first; "{sys.executable}" -c "$CODE"; echo last) >> "{out}"'
    subprocess.run(["sh", "-c", command], env={**os.environ, "CODE": code}, check=True, timeout=60)
    assert out.read_text() == "first\nresult\nlast\n"


def test_results_go_through_links(tmp_path):
    (tmp_path / "link.npz").symlink_to("real.npz")
    save_result(Estimate(1.0, 0.5), tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    assert load_result(Estimate, tmp_path / "real.npz") == Estimate(1.0, 0.5)
