"""`sa1b unpack`: plain tars of compressed ones, whole or not at all, whatever happens meanwhile."""

import gzip
import os
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from sa1b_tfds.cli.main import main
from sa1b_tfds.core.files import DiskFull
from sa1b_tfds.core.lock import FolderInUse, lock_folder
from sa1b_tfds.core.text import format_bytes
from sa1b_tfds.download import check
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.unpack import unpack
from tests import building
from tests.downloading import (
    NAMES,
    as_if_alone,
    fetch_all,
    forms_of_slow,
    in_an_interpreter,
    md5_of,
    sa1b,
    wait_for,
    wait_for_or_end,
    write_inputs,
    write_slow,
)
from tests.fault_server import DAMAGED, Fault, FaultServer, make_tar, packed, slow_tar

pytestmark = pytest.mark.usefixtures("threads")

PLAIN = [make_tar(number, image_bytes=20_000, form="plain") for number in range(3)]
PACKED = [packed(plain) for plain in PLAIN]
BYTES = {"p": PLAIN, "g": PACKED}


def write(folder, **files):
    """Writes files: 'g0' is the first tar compressed, 'p0' the same plain, '->path' a link."""
    for name, what in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if what.startswith("->"):
            path.symlink_to(folder / what[2:])
        else:
            path.write_bytes(BYTES[what[0]][int(what[1])])


def read(folder):
    """What `write` wrote, or was made of it since; locks and records are left out."""
    found = {}
    contents = {data: f"{form}{n}" for form, tars in BYTES.items() for n, data in enumerate(tars)}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"->{os.path.relpath(path.readlink(), folder)}"
        elif path.is_file() and path.name not in (".sa1b.lock", ".sa1b.json"):
            found[str(path.relative_to(folder))] = contents.get(path.read_bytes(), "other bytes")
    return found


A, B = NAMES[0], NAMES[1]
IN_TARS = {f"tars/{A}": "g0", f"tars/{B}": "g1"}


@pytest.mark.parametrize(
    ("there", "arguments", "out", "after", "statuses"),
    [
        pytest.param(
            IN_TARS, ["tars"], None, {f"tars/{A}": "p0", f"tars/{B}": "p1"}, "u u", id="a folder"
        ),
        pytest.param(
            IN_TARS, [f"tars/{B}"], None, {f"tars/{A}": "g0", f"tars/{B}": "p1"}, "u", id="one tar"
        ),
        pytest.param(
            IN_TARS,
            ["tars", f"tars/{A}", "tars/../tars"],
            None,
            {f"tars/{A}": "p0", f"tars/{B}": "p1"},
            "u u",
            id="the same tars three times",
        ),
        pytest.param(
            {**IN_TARS, "link": "->tars"},
            ["tars", "link"],
            None,
            {f"tars/{A}": "p0", f"tars/{B}": "p1", "link": "->tars"},
            "u u",
            id="the same folder by a link",
        ),
        pytest.param(
            {f"tars/a/{A}": "g0", f"tars/b/c/{A}": "g1"},
            ["tars"],
            None,
            {f"tars/a/{A}": "p0", f"tars/b/c/{A}": "p1"},
            "u u",
            id="subfolders",
        ),
        pytest.param(
            {"tars/sa_000000.tar.gz": "g0", "tars/sa_000001.tgz": "g1", "tars/mine.tar": "g2"},
            ["tars"],
            None,
            {"tars/sa_000000.tar.gz": "p0", "tars/sa_000001.tgz": "p1", "tars/mine.tar": "g2"},
            "u u",
            id="names that say so are kept, and other files left alone",
        ),
        pytest.param(
            IN_TARS,
            ["tars"],
            "out/new",
            {**IN_TARS, f"out/new/{A}": "p0", f"out/new/{B}": "p1"},
            "u u",
            id="another folder",
        ),
        pytest.param(
            {f"tars/a/{A}": "g0", f"tars/b/{A}": "g1"},
            ["tars"],
            "out",
            {f"tars/a/{A}": "g0", f"tars/b/{A}": "g1", f"out/a/{A}": "p0", f"out/b/{A}": "p1"},
            "u u",
            id="subfolders in another folder",
        ),
        pytest.param(
            {f"tars/{A}": "p0", f"tars/{B}": "g1"},
            ["tars"],
            None,
            {f"tars/{A}": "p0", f"tars/{B}": "p1"},
            "p u",
            id="one is plain",
        ),
        pytest.param(
            {f"tars/{A}": "p0", f"tars/{B}": "g1"},
            ["tars"],
            "out",
            {f"tars/{A}": "p0", f"tars/{B}": "g1", f"out/{B}": "p1"},
            "p u",
            id="one is plain and stays where it is",
        ),
        pytest.param(
            {f"other/{A}": "g0", f"tars/{A}": f"->other/{A}"},
            ["tars"],
            None,
            {f"other/{A}": "g0", f"tars/{A}": "p0"},
            "u",
            id="a link becomes a tar, and what it led to stays",
        ),
        pytest.param(
            {f"other/{A}": "g0", f"tars/{A}": f"->other/{A}"},
            ["tars"],
            "out",
            {f"other/{A}": "g0", f"tars/{A}": f"->other/{A}", f"out/{A}": "p0"},
            "u",
            id="a link in another folder",
        ),
        pytest.param(
            {**IN_TARS, "link": "->tars"},
            ["tars"],
            "link",
            {f"tars/{A}": "p0", f"tars/{B}": "p1", "link": "->tars"},
            "u u",
            id="the other folder is the same one",
        ),
        pytest.param(
            {**IN_TARS, f"out/{A}": "p1", f"out/{B}": "g1"},
            ["tars"],
            "out",
            {**IN_TARS, f"out/{A}": "p1", f"out/{B}": "g1"},
            "f f",
            id="other files in the way",
        ),
    ],
)
def test_what_is_unpacked_and_where_to(tmp_path, there, arguments, out, after, statuses):
    write(tmp_path, **there)
    paths = [tmp_path / argument for argument in arguments]

    def run():
        results = unpack(paths, out and tmp_path / out, workers=2)
        return " ".join(result.status[0] for result in results)

    assert run() == statuses
    assert read(tmp_path) == after
    times = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*.t*")}
    assert run() == statuses.replace("u", "p")
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*.t*")} == times


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(PLAIN[2]), os.utime])
def test_a_tar_in_out_that_changed_since_is_in_the_way(tmp_path, damage):
    write(tmp_path, **IN_TARS)
    unpack([tmp_path / "tars"], tmp_path / "out", workers=1)
    damage(tmp_path / "out" / A)
    (first, second) = unpack([tmp_path / "tars"], tmp_path / "out", workers=1)
    assert (first.status, second.status) == ("failed", "plain")
    assert (
        first.reason == f"{tmp_path}/out/{A} is there already and may be another tar: move it away"
    )


def test_two_tars_of_one_name_do_not_share_a_place(tmp_path):
    write(tmp_path, **{f"x/{A}": "g0", f"y/{A}": "g1", f"z/{A}": "p2"})
    with pytest.raises(ValueError, match=rf"x/{A} and .*y/{A} would both be .*out/{A}: unpack"):
        unpack([tmp_path / "x", tmp_path / "y"], tmp_path / "out")
    results = unpack([tmp_path / "x", tmp_path / "z"], tmp_path / "out")
    assert [result.status for result in results] == ["unpacked", "plain"]
    (other,) = unpack([tmp_path / "y"], tmp_path / "out")
    assert "is there already and may be another tar" in other.reason
    assert list(read(tmp_path).values()) == ["p0", "g0", "g1", "p2"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "tars is not there."),
        (lambda path: path.mkdir(), "tars holds no sa_*.tar."),
        (lambda path: write(path, **{"mine.tar": "g0"}), "tars holds no sa_*.tar."),
        (lambda path: write(path, **{"sa_0.jpg": "p0"}), "tars holds no sa_*.tar."),
    ],
)
def test_where_there_is_no_tar_that_is_said(tmp_path, capsys, make, message):
    make(tmp_path / "tars")
    assert main(["unpack", str(tmp_path / "tars")]) == 1
    assert capsys.readouterr().err == f"sa1b unpack: {tmp_path}/{message}\n"


@pytest.fixture(scope="module")
def among_damaged(tmp_path_factory):
    """A folder in which good tars stand among all kinds of damaged ones, and its results."""
    folder = tmp_path_factory.mktemp("among_damaged")
    names = {what: f"sa_{number:06d}.tar" for number, what in enumerate(DAMAGED, 100)}
    for what, name in names.items():
        (folder / name).write_bytes(DAMAGED[what][0])
    write(folder, **{A: "g0", "sa_000110.tar.gz": "g1", "sa_999999.tar": "g2"})
    results = {result.name: result for result in unpack([folder], workers=2)}
    return folder, {what: (results[name], folder / name) for what, name in names.items()}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_tar_is_named_and_stays(among_damaged, what):
    result, path = among_damaged[1][what]
    data, message = DAMAGED[what]
    assert result.status == "failed"
    assert re.search(message, result.reason), result.reason
    assert path.read_bytes() == data


def test_good_tars_among_damaged_ones_are_unpacked(among_damaged):
    folder = among_damaged[0]
    assert set(read(folder).values()) == {"p0", "p1", "p2", "other bytes"}
    assert {path.suffix for path in folder.iterdir()} == {".tar", ".gz", ".json", ".lock"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(packed(PLAIN[0][:9999]) + packed(PLAIN[0][9999:]), id="two members"),
        pytest.param(PACKED[0] + packed(b""), id="an empty member at the end"),
        pytest.param(packed(b"") * 3 + PACKED[0], id="empty members before it"),
        pytest.param(PACKED[0] + bytes(100_000), id="zeros after it"),
        pytest.param(
            b"\x1f\x8b\x08\x1c" + bytes(6) + b"\2\0ab" + b"name\0comment\0" + PACKED[0][10:],
            id="a header with all there may be",
        ),
        pytest.param(gzip.compress(PLAIN[0], 0), id="stored"),
        pytest.param(gzip.compress(PLAIN[0], 9), id="compressed best"),
    ],
)
def test_gzip_in_other_forms(tmp_path, data):
    (tmp_path / A).write_bytes(data)
    (result,) = unpack([tmp_path / A], workers=1)
    assert (result.status, result.bytes) == ("unpacked", len(PLAIN[0])), result.reason
    assert read(tmp_path) == {A: "p0"}


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("sa1b_tfds.tars.inflate._MAX_RATIO_FROM", 2**20)
    (tmp_path / A).write_bytes(slow_tar(3, member=2**23))
    problem = check.unpack_file(tmp_path / A, A, tmp_path / "out", lambda size: None)
    assert "it is damaged: it inflates to over 20 times its size, as no tar of images" in problem
    assert not (tmp_path / "out").exists()


def test_the_mode_of_a_tar_is_kept(tmp_path):
    write(tmp_path, **{A: "g0"})
    (tmp_path / A).chmod(0o640)
    unpack([tmp_path], workers=1)
    assert (tmp_path / A).stat().st_mode & 0o777 == 0o640


def drafts(folder):
    return [path.name for path in folder.iterdir() if ".part" in path.name or ".tmp" in path.name]


def test_kill_9_at_random_moments_leaves_every_tar_whole(tmp_path):
    tars, moments, met = write_slow(tmp_path / "tars"), random.Random(9), 0
    for kill in range(20):
        if kill >= 5 and met:
            break
        process = sa1b("unpack", tars, "--workers", 2, command=in_an_interpreter)
        wait_for_or_end(lambda: drafts(tars), process)
        if kill < 10:  # else at sight, as a busy machine may let each such moment pass
            time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.communicate()
        met += bool(drafts(tars))
        if "g" not in forms_of_slow(tars):
            write_slow(tars)
    process = sa1b("unpack", tars, "--workers", 2, command=in_an_interpreter)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert forms_of_slow(tars) == "ppp"
    assert drafts(tars) == []
    assert met, "no kill met a tar that was being unpacked"
    assert re.search(r"^[1-3] of 3 tars unpacked, ", out)


def test_ctrl_c_leaves_whole_tars_and_no_draft(tmp_path):
    tars = write_slow(tmp_path / "tars")
    process = sa1b("unpack", tars, "--workers", 2, command=in_an_interpreter)
    wait_for(lambda: drafts(tars))
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=120)
    assert time.monotonic() - began < as_if_alone(2)
    assert process.returncode == 130
    assert out == ""
    assert err.endswith("Interrupted. Run the same command again; it continues.\n")
    assert "g" in forms_of_slow(tars)
    assert drafts(tars) == []


def test_a_full_disk_is_said_and_the_compressed_tars_stay(small_disk, capsys):
    disk = small_disk(2**23)
    write_slow(disk, 2)  # much larger than a tar of SA-1B becomes
    assert main(["unpack", str(disk), "--workers", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == f"{A}: failed, No space left on device while writing {disk}/{A}.unpacked.part"
    )
    assert lines[1].startswith(f"{B}: failed, ")
    assert lines[2:] == ["0 of 2 tars unpacked, 0 bytes; 2 failed"]
    assert forms_of_slow(disk) == "gg"
    assert drafts(disk) == []

    subprocess.run(["mount", "-o", "remount,size=320m", str(disk)], check=True)
    assert main(["unpack", str(disk), "--workers", "2"]) == 0
    assert forms_of_slow(disk) == "pp"


@pytest.fixture(scope="module")
def larger():
    """Tars that grow by no more than those of SA-1B do."""
    return [make_tar(number, image_bytes=300_000) for number in range(3)]


def write_all(folder, tars):
    folder.mkdir(exist_ok=True)
    for name, tar in zip(NAMES, tars, strict=True):
        (folder / name).write_bytes(tar)


@pytest.mark.parametrize("workers", [1, 3])
def test_in_place_needs_room_for_one_tar_more(small_disk, larger, workers):
    size = len(larger[0])
    disk = small_disk(int(3 * size + (1 + 3 * 0.07) * size))
    write_all(disk, larger)
    results = unpack([disk], workers=workers)
    assert [result.status for result in results] == ["unpacked"] * 3, results
    for name, tar in zip(NAMES, larger, strict=True):
        assert (disk / name).read_bytes() == gzip.decompress(tar)


@pytest.mark.parametrize(
    ("to", "tars", "message"),
    [
        ("in place", 4, r"To unpack 3 tars needs 1\.1 MB more, and DISK has .* free. Nothing was"),
        ("another folder", 3, r"What comes of 3 tars needs up to 2\.9 MB, and in DISK .* are free"),
    ],
)
def test_too_little_room_is_seen_before_anything_is_written(
    small_disk, tmp_path, larger, to, tars, message
):
    disk = small_disk(tars * len(larger[0]))
    folder = disk if to == "in place" else tmp_path / "tars"
    write_all(folder, larger)
    with pytest.raises(DiskFull, match=message.replace("DISK", str(disk))):
        unpack([folder], None if folder == disk else disk, workers=1)
    assert [(folder / name).read_bytes() for name in NAMES] == larger
    assert {path.name for path in disk.iterdir()} <= {*NAMES, ".sa1b.lock"}


@pytest.mark.parametrize("to", ["tars", "out"])
def test_one_run_in_a_folder_at_a_time(tmp_path, to):
    write(tmp_path, **IN_TARS)
    (tmp_path / to).mkdir(exist_ok=True)
    out = None if to == "tars" else tmp_path / "out"
    with (
        lock_folder(tmp_path / to, "sa1b download"),
        pytest.raises(
            FolderInUse, match=rf"{to} \(sa1b download, process {os.getpid()} on .*\)\. W"
        ),
    ):
        unpack([tmp_path / "tars"], out)
    with (
        lock_folder(tmp_path / to, "sa1b unpack"),
        pytest.raises(FolderInUse, match=r"process works in .* \(sa1b unpack, process \d"),
    ):
        unpack([tmp_path / "tars"], out)
    assert read(tmp_path) == IN_TARS
    assert all(result.status == "unpacked" for result in unpack([tmp_path / "tars"], out))


def test_a_folder_with_a_download_running_is_refused(tmp_path, capsys):
    out = tmp_path / "out"
    write(out, **{B: "g1"})
    with FaultServer({A: PACKED[0]}) as server:
        server.faults[A] = [Fault(send=1000, stall=60)]
        process = sa1b(*write_inputs(server, tmp_path))
        wait_for(lambda: (out / f"{A}.part").exists())
        assert main(["unpack", str(out)]) == 1
        assert f"Another process works in {out} " in capsys.readouterr().err
        process.kill()
        process.communicate()
    assert main(["unpack", str(out)]) == 0
    assert (out / B).read_bytes() == PLAIN[1]
    assert (out / f"{A}.part").read_bytes() == PACKED[0][:1000]


def test_tars_on_a_read_only_disk_are_unpacked_elsewhere(small_disk, tmp_path):
    disk = small_disk(2**20)
    write(disk, **{A: "g0", f"b/{B}": "g1"})
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        unpack([disk])
    unpack([disk], tmp_path / "out")
    assert read(tmp_path / "out") == {A: "p0", f"b/{B}": "p1"}


@pytest.mark.parametrize(
    ("files", "arguments", "code", "printed"),
    [
        (
            IN_TARS,
            [],
            0,
            [f"2 of 2 tars unpacked, {format_bytes(len(PLAIN[0]) + len(PLAIN[1]))}"],
        ),
        (
            {f"tars/{A}": "p0", f"tars/{B}": "g1"},
            ["--workers", "1"],
            0,
            [f"1 of 2 tars unpacked, {format_bytes(len(PLAIN[1]))}; 1 plain before"],
        ),
        (
            {f"tars/{A}": "p0"},
            ["--out", "out"],
            0,
            [
                f"{A}: plain, it is plain, and stays where it is",
                "0 of 1 tar unpacked, 0 bytes; 1 plain before",
            ],
        ),
        (
            {f"tars/{A}": "g0", f"tars/{B}": "g1", f"out/{A}": "g0"},
            ["--out", "out"],
            1,
            [
                f"{A}: failed, out/{A} is there already and may be another tar: move it away",
                f"1 of 2 tars unpacked, {format_bytes(len(PLAIN[1]))}; 1 failed",
            ],
        ),
    ],
)
def test_summary_and_exit_code(tmp_path, files, arguments, code, printed):
    write(tmp_path, **files)
    process = sa1b("unpack", "tars", *arguments, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out.splitlines()) == (code, printed), err
    assert err.count(": done") == int(printed[-1][0])


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_workers_that_make_no_sense_are_refused(tmp_path, capsys, workers):
    with pytest.raises(SystemExit, match="2"):
        main(["unpack", str(tmp_path), f"--workers={workers}"])
    assert f"'{workers}' is not a positive number" in capsys.readouterr().err


def test_the_record_keeps_what_the_download_has_checked(tmp_path):
    with FaultServer({A: PACKED[0]}) as server:
        fetch_all(server, tmp_path)
    unpack([tmp_path], workers=1)
    md5 = md5_of(PACKED[0])
    record = CheckedFiles(tmp_path)
    assert (record.checked_by(A), record.md5(A)) == ("md5", md5)

    # Its size and time are the same, so the record is of the plain tar as well.
    (tmp_path / A).rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / A)
    assert CheckedFiles(tmp_path).md5(A) == md5
    os.utime(tmp_path / A)
    assert CheckedFiles(tmp_path).checked_by(A) is None


def test_the_record_of_a_tar_that_nobody_checked(tmp_path):
    write(tmp_path, **IN_TARS)
    unpack([tmp_path / "tars"], tmp_path / "out", workers=1)
    record = CheckedFiles(tmp_path / "out")
    assert (record.checked_by(A), record.md5(A)) == ("size", None)
    assert not (tmp_path / "tars" / ".sa1b.json").exists()
    stat = (tmp_path / "tars" / A).stat()
    assert record.unpacked_from(A) == {"bytes": stat.st_size, "modified": int(stat.st_mtime)}


def test_tars_that_end_at_once_are_all_recorded(tmp_path, monkeypatch):
    """Also those of one folder that is named by several paths."""
    write(tmp_path, **IN_TARS, **{f"tars/{NAMES[2]}": "g2"}, link="->tars")
    read_record = CheckedFiles.__init__

    def slowly(record, folder):
        read_record(record, folder)
        time.sleep(0.1)

    monkeypatch.setattr(CheckedFiles, "__init__", slowly)
    paths = [tmp_path / "tars" / A, tmp_path / "link" / B, tmp_path / "tars" / NAMES[2]]
    unpack(paths, workers=3)
    monkeypatch.undo()
    record = CheckedFiles(tmp_path / "tars")
    assert [record.checked_by(name) for name in NAMES] == ["size"] * 3
    assert all(record.unpacked_from(name) for name in NAMES)


# A build before, and one after.


@pytest.fixture
def built(tmp_path):
    """Tars of images, compressed, and the data that was built of them."""
    tars = building.write_tars(tmp_path / "tars", tars=3, images=2)
    for tar in tars.iterdir():
        if not (data := tar.read_bytes()).startswith(b"\x1f\x8b"):
            tar.write_bytes(packed(data))
    assert _build(tars, tmp_path / "data") == 0
    return tars, tmp_path / "data", building.shards_of(tmp_path / "data" / building.FINAL)


def _build(tars, data, *options):
    return main(["build", str(tars), "--data-dir", str(data), "--workers", "2", *options])


@pytest.mark.parametrize("options", [(), ("--add",), ("--delete-tars=all",)])
def test_an_unpacked_tar_is_not_converted_again(built, capsys, caplog, options):
    tars, data, shards = built
    capsys.readouterr()
    assert main(["unpack", str(tars)]) == 0
    assert not any(tar.read_bytes().startswith(b"\x1f\x8b") for tar in tars.glob("*.tar"))
    capsys.readouterr()
    assert _build(tars, data, *options) == 0
    assert ": done" not in capsys.readouterr().err
    assert "changed" not in caplog.text
    assert building.shards_of(data / building.FINAL) == shards
    left = [] if options == ("--delete-tars=all",) else NAMES
    assert sorted(tar.name for tar in tars.glob("*.tar")) == left


def test_nor_is_it_by_another_process_from_another_folder(built, tmp_path):
    tars, data, shards = built
    unpack([tars], tmp_path / "out")
    shutil.rmtree(tars)
    process = sa1b("build", tmp_path / "out", "--data-dir", data, "--add")
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 0, err
    assert ": done" not in err
    assert building.shards_of(data / building.FINAL) == shards


def test_an_unpacked_tar_that_changed_is_converted_again(built, capsys):
    tars, data, _ = built
    unpack([tars])
    building.make.write_tar(tars / A, building.make.files_of(100))
    capsys.readouterr()
    assert _build(tars, data, "--add") == 0
    assert capsys.readouterr().err.count(": done") == 1


def test_the_report_has_the_md5_of_the_compressed_tar(built, tmp_path):
    tars = built[0]
    files = {tar.name: tar.read_bytes() for tar in tars.glob("*.tar")}
    with FaultServer(files) as server:
        fetch_all(server, tmp_path / "disk")
    unpack([tmp_path / "disk"])
    assert _build(tmp_path / "disk", tmp_path / "new") == 0
    assert {tar["name"]: tar["md5"] for tar in building.report_of(tmp_path / "new")["tars"]} == {
        name: md5_of(data) for name, data in files.items()
    }
