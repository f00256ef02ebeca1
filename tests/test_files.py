"""Files that appear whole or not at all; builds and downloads are killed in their own tests."""

import errno
import os
import pickle
import time

import pytest
from etils import epath

from sa1b_tfds.core import files


def test_a_file_is_replaced_and_what_a_kill_left_is_removed(tmp_path):
    path = epath.Path(tmp_path) / "a[b].json"
    abandoned, at_work = (tmp_path / f"a[b].json.{pid}.part" for pid in (123, 124))
    other = tmp_path / "ab.json.123.part"
    for draft in (abandoned, at_work, other):
        draft.write_bytes(b"half")
    for draft in (abandoned, other):
        os.utime(draft, (time.time() - 7200,) * 2)
    for content in (b"old", b"new"):
        files.write_whole(path, content)
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == sorted(map(str, [path.name, at_work.name, other.name]))


def test_a_folder_that_gets_many_files_is_listed_once(tmp_path, monkeypatch):
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    for number in range(5):
        files.write_whole(tmp_path / f"{number}.json", b"content")
    assert listed == [str(tmp_path)]


def test_what_fails_leaves_the_old_content_and_no_draft(tmp_path, monkeypatch):
    path = epath.Path(tmp_path) / "a.json"
    files.write_whole(path, b"old")
    monkeypatch.setattr(files, "sync", lambda draft: draft.no_such_thing)
    with pytest.raises(AttributeError):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_who_writes_alone_leaves_one_draft_at_most(tmp_path):
    draft = tmp_path / "a.json.tmp"
    draft.write_bytes(b"half")  # as a kill leaves it
    files.write_whole(tmp_path / "a.json", b"new", alone=True)
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_once_by_who_is_nearest(number):
    with (
        pytest.raises(files.DiskFull, match=f"{os.strerror(number)} while writing /a$") as caught,
        files.full_disk_named("in /"),
        files.full_disk_named("while writing /a"),
    ):
        raise OSError(number, "short")
    again = pickle.loads(pickle.dumps(caught.value))  # as from a worker
    assert (type(again), str(again)) == (files.DiskFull, str(caught.value))


def test_another_error_of_the_disk_stays_as_it_is():
    error = OSError(errno.EIO, "broken")
    with pytest.raises(OSError, match="broken") as caught, files.full_disk_named("in /"):
        raise error
    assert caught.value is error
