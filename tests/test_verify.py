"""`verify`: what it says of whole, torn, wrong, missing and unfinished tars."""

import fcntl
import hashlib
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tarfile
import termios

import numpy as np
import psutil
import pytest
from PIL import Image

from sa1b_tfds.cli.main import main
from sa1b_tfds.core.progress import Reporter, Totals
from sa1b_tfds.core.text import counted
from sa1b_tfds.download.check import hash_file
from sa1b_tfds.download.unpack import unpack
from sa1b_tfds.download.verify import verify_folder
from sa1b_tfds.masks.rle import encode_mask
from sa1b_tfds.tars import inflate
from tests.downloading import fetch_all, md5_of
from tests.fault_server import DAMAGED, FaultServer, packed, slow_tar

NAME = "sa_000000.tar"


def test_a_file_is_hashed_in_steps_that_are_told(tmp_path):
    data = np.random.default_rng(0).bytes(2 * 2**20 + 5)
    (tmp_path / "file").write_bytes(data)
    told, checks = [], []
    digest = hash_file(
        tmp_path / "file", check=lambda: checks.append(len(told)), on_hashed=told.append
    )
    assert digest.hexdigest() == hashlib.md5(data).hexdigest()
    assert told == [2**20, 2 * 2**20, len(data)]
    assert checks == [0, 1, 2]


def jpeg(height=30, width=40):
    out = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def annotation_json(counts=None, **image):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:10, 5:20] = 1
    annotation = {
        "id": 1,
        "area": int(mask.sum()),
        "bbox": [5.0, 5.0, 14.0, 4.0],
        "crop_box": [0.0, 0.0, 40.0, 30.0],
        "predicted_iou": 0.9,
        "stability_score": 0.9,
        "point_coords": [[7.5, 7.5]],
        "segmentation": {
            "size": [30, 40],
            "counts": encode_mask(mask)["counts"].decode() if counts is None else counts,
        },
    }
    image = {"image_id": 7, "width": 40, "height": 30, "file_name": "sa_7.jpg", **image}
    return json.dumps({"image": image, "annotations": [annotation]}).encode()


def tar_of(**files):
    files = {"sa_7.jpg": jpeg(), "sa_7.json": annotation_json(), **files}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            if data is not None:
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


GOOD = tar_of()
PACKED = packed(GOOD)


@pytest.mark.parametrize("form", ["plain", "gzip"])
@pytest.mark.parametrize(
    ("data", "options", "status", "reason"),
    [
        (GOOD, {}, "whole", None),
        (GOOD, {"deep": True}, "whole", None),
        (GOOD, {"md5": {"sa_000009.tar": "0" * 32}}, "whole", None),
        (GOOD[:1024], {}, "torn", "the tar is torn here"),
        (GOOD[:700], {"deep": True}, "torn", "the tar is torn here"),
        (b"", {}, "torn", "the tar is torn here"),
        (b"<html>" * 300, {}, "torn", "it is no tar: it begins with b'<html><html><htm'"),
        (tar_of(**{"sa_7.json": None}), {}, "wrong", "sa_7.jpg: its .json is missing"),
        (tar_of(**{"sa_7.json": None, "sa_7.jpg": None}), {}, "wrong", "it holds no pair"),
        (tar_of(**{"../sa_8.jpg": b""}), {}, "wrong", "its path leads out of the archive"),
        (tar_of(**{"sa_7.json": b"{"}), {}, "whole", None),
        (tar_of(**{"sa_7.json": b"{"}), {"deep": True}, "wrong", "sa_7.json: it is not JSON"),
        (
            tar_of(**{"sa_7.json": annotation_json(counts="0")}),
            {"deep": True},
            "wrong",
            "annotation 0: the RLE is malformed: its runs do not sum",
        ),
        (
            tar_of(**{"sa_7.json": b'{"image": NaN}'}),
            {"deep": True},
            "wrong",
            "JSON: it holds NaN ",
        ),
        (tar_of(**{"sa_7.json": b"[-Infinity]"}), {"deep": True}, "wrong", "it holds Infinity "),
        (tar_of(**{"sa_7.jpg": b"GIF"}), {"deep": True}, "wrong", "sa_7.jpg: it is not a JPEG"),
        (tar_of(**{"sa_7.jpg": jpeg()[:-9]}), {"deep": True}, "wrong", "the JPEG is cut off"),
        (tar_of(**{"sa_7.jpg": jpeg(9, 9)}), {"deep": True}, "wrong", "disagrees with the image's"),
    ],
    ids=lambda value: "tar" if isinstance(value, bytes) else None,
)
def test_what_is_said_of_a_tar(tmp_path, form, data, options, status, reason):
    (tmp_path / NAME).write_bytes(packed(data) if form == "gzip" else data)

    (report,) = verify_folder(tmp_path, **options)

    assert (report.name, report.status) == (NAME, status), report.reasons
    assert (report.form, report.md5, report.note) == (form, False, None)
    assert bool(report.reasons) == (status != "whole")
    if reason:
        assert any(re.search(reason, said) for said in report.reasons), report
    else:
        assert report.pairs == 1


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_compressed_tar_is_torn(tmp_path, what, deep):
    data, message = DAMAGED[what]
    (tmp_path / NAME).write_bytes(data)
    (report,) = verify_folder(tmp_path, deep=deep)
    assert report.status == "torn"
    assert any(re.search(message, said) for said in report.reasons), report.reasons


def test_a_bomb_is_torn(tmp_path, monkeypatch):
    monkeypatch.setattr(inflate, "_MAX_RATIO_FROM", 2**20)
    (tmp_path / NAME).write_bytes(slow_tar(0))
    (report,) = verify_folder(tmp_path)
    assert report.status == "torn"
    assert "it is damaged: it inflates to over 20 times its size" in report.reasons[0]


ZEROS = "0" * 32
WRONG = "the MD5 is .*, the table says 000"


@pytest.mark.parametrize(
    ("data", "md5", "options", "status", "compared", "pairs", "reason"),
    [
        (PACKED, md5_of(PACKED), {}, "whole", True, None, None),
        (PACKED, md5_of(PACKED), {"deep": True}, "whole", True, 1, None),
        (PACKED, md5_of(PACKED), {"md5_of_any_form": True}, "whole", True, None, None),
        (PACKED, ZEROS, {}, "wrong", True, 1, WRONG),
        (PACKED[:-1], ZEROS, {}, "torn", True, 1, WRONG),
        (PACKED[:-1], md5_of(PACKED[:-1]), {}, "whole", True, None, None),
        (PACKED[:-1], md5_of(PACKED[:-1]), {"deep": True}, "torn", True, 1, "it is damaged"),
        # A plain tar cannot have the MD5 of a compressed one.
        (GOOD, ZEROS, {}, "whole", False, 1, None),
        (GOOD, md5_of(GOOD), {}, "whole", False, 1, None),
        (GOOD, md5_of(GOOD), {"md5_of_any_form": True}, "whole", True, 1, None),
        (GOOD, ZEROS, {"md5_of_any_form": True}, "wrong", True, 1, WRONG),
    ],
)
def test_an_md5_is_of_the_bytes_that_are_served(
    tmp_path, data, md5, options, status, compared, pairs, reason
):
    (tmp_path / NAME).write_bytes(data)
    (report,) = verify_folder(tmp_path, md5={NAME: md5}, **options)
    assert (report.status, report.md5, report.pairs) == (status, compared, pairs), report.reasons
    assert bool(report.reasons) == (reason is not None)
    assert not reason or re.search(reason, report.reasons[0])


@pytest.fixture
def downloaded(tmp_path):
    """A folder with a tar that our download has checked by its MD5."""
    with FaultServer({NAME: PACKED}) as server:
        fetch_all(server, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "what"),
    [({}, "MD5"), ({"md5": {}}, "form, not its MD5,"), ({"verify": "size"}, "form, not its MD5,")],
    ids=["md5", "size", "md5 not looked at"],
)
def test_what_a_download_has_checked_is_not_inflated(tmp_path, monkeypatch, settings, what):
    with FaultServer({NAME: PACKED}) as server:
        fetch_all(server, tmp_path, **settings)
    inflated = []
    blocks = inflate.Inflated.blocks
    monkeypatch.setattr(
        inflate.Inflated, "blocks", lambda self: inflated.append(self) or blocks(self)
    )
    (report,) = verify_folder(tmp_path)
    assert (report.status, report.form, report.pairs, report.note) == (
        "whole",
        "gzip",
        None,
        f"its {what} was checked when it was downloaded, and it has not changed since",
    )
    assert inflated == []

    (report,) = verify_folder(tmp_path, deep=True)  # is asked to
    assert (report.status, report.pairs, report.note, len(inflated)) == ("whole", 1, None, 1)

    os.utime(tmp_path / NAME)
    (report,) = verify_folder(tmp_path)
    assert (report.status, report.pairs, report.note, len(inflated)) == ("whole", 1, None, 2)


def test_a_download_with_another_md5_is_wrong(tmp_path):
    with FaultServer({NAME: PACKED}) as server:
        (failed,) = fetch_all(server, tmp_path, md5={NAME: ZEROS})
    (report,) = verify_folder(tmp_path)
    assert (report.status, report.reasons) == ("wrong", (failed.reason,))
    assert (
        f"{ZEROS}, fetched from the start and checked again. The file is kept as {NAME}.part: "
        in (failed.reason)
    )
    (tmp_path / f"{NAME}.part").write_bytes(PACKED[:99])
    (report,) = verify_folder(tmp_path)
    assert report.status == "unfinished"


def test_a_tar_that_changed_since_the_download_is_read_again(downloaded):
    tar = downloaded / NAME
    tar.write_bytes(PACKED[:-9] + bytes(9))
    (report,) = verify_folder(downloaded)
    assert (report.status, report.note) == ("torn", None)
    assert "it is damaged: " in report.reasons[0]


@pytest.mark.parametrize(
    ("table", "after", "status", "note", "reason"),
    [
        pytest.param(
            {NAME: md5_of(PACKED)},
            lambda tar: None,
            "whole",
            "plain: unpacked from the file with the right MD5",
            None,
            id="the MD5 was right",
        ),
        pytest.param(
            {NAME: ZEROS},
            lambda tar: None,
            "wrong",
            None,
            f"it was unpacked from a file with the MD5 {md5_of(PACKED)}, the table says {ZEROS}",
            id="the MD5 was another one",
        ),
        pytest.param({NAME: ZEROS}, os.utime, "whole", None, None, id="it changed since"),
        pytest.param({}, lambda tar: None, "whole", None, None, id="the table has no MD5"),
    ],
)
@pytest.mark.parametrize("way", ["unpack", "download --unpack"])
def test_the_md5_of_an_unpacked_tar(tmp_path, way, table, after, status, note, reason):
    with FaultServer({NAME: PACKED}) as server:
        fetch_all(server, tmp_path, unpack=way != "unpack")
    if way == "unpack":
        unpack([tmp_path], workers=1)
    assert (tmp_path / NAME).read_bytes() == GOOD
    after(tmp_path / NAME)
    (report,) = verify_folder(tmp_path, md5=table)
    assert (report.status, report.form, report.note) == (status, "plain", note)
    assert report.reasons == (() if reason is None else (reason,))
    assert report.md5 == bool(note or reason)
    assert report.pairs == 1


class Heard(Reporter):
    """Keeps how many bytes are done at each time that something moves."""

    def __init__(self):
        self.totals = Totals()
        self.positions = []

    def planned(self, plan):
        self.totals.plan(plan)

    def running(self, states):
        self.totals.move(states)
        self.positions.append(self.totals.position)

    def ended(self, outcome):
        self.totals.end(outcome)


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_has_a_total_and_gets_there(tmp_path, workers):
    (tmp_path / NAME).write_bytes(slow_tar(0))
    (tmp_path / "sa_000001.tar").write_bytes(GOOD)
    (tmp_path / "sa_000002.tar").write_bytes(packed(tar_of(**{"sa_7.jpg": jpeg()[:-9]})))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    heard = Heard()
    assert len(list(verify_folder(tmp_path, workers=workers, reporter=heard))) == 3
    assert heard.totals.total == total
    done = heard.positions
    assert done == sorted(done)
    assert done[-1] == total
    assert len(done) >= 3 if workers > 1 else len(done) > 5


@pytest.mark.parametrize("deep", [False, True])
def test_the_bar_moves_while_an_md5_is_taken(tmp_path, monkeypatch, deep):
    monkeypatch.setattr("sa1b_tfds.download.check._BLOCK", 1000)
    (tmp_path / NAME).write_bytes(slow_tar(0))
    size = len(slow_tar(0))
    md5 = {NAME: hashlib.md5(slow_tar(0)).hexdigest()}
    heard = Heard()
    list(verify_folder(tmp_path, reporter=heard, md5=md5, workers=1, deep=deep))
    told = heard.positions
    assert told == sorted(told)
    assert told[-1] == size
    assert len([done for done in told if 0 < done < size / 2]) >= 10


def test_a_bar_of_bytes_is_on_the_terminal_only(tmp_path):
    (tmp_path / NAME).write_bytes(slow_tar(0))
    run = [sys.executable, "-m", "sa1b_tfds", "verify", str(tmp_path)]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run(run, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.set_blocking(ours, False)
    shown = os.read(ours, 2**16).decode()
    for end in (ours, theirs):
        os.close(end)
    size = len(slow_tar(0)) / 1000
    assert re.search(rf"100%\|█+\| {size:.0f}k/{size:.0f}k \[", shown), shown
    assert done.stdout == f"{NAME}: whole, 3 pairs\n1 of 1 tar whole\n"
    assert subprocess.run(run, capture_output=True, text=True).stderr == ""


def test_a_range_and_what_is_missing_from_it(tmp_path):
    for number in (1, 3, 7):
        (tmp_path / f"sa_{number:06d}.tar").write_bytes(GOOD)
    (tmp_path / "sa_000002.tar.part").write_bytes(GOOD[:100])
    (tmp_path / "sa_000002.tar.part.json").write_text("{}")
    (tmp_path / "other.txt").write_text("not looked at")
    for name in ("mine_0.tar", "sa_co_gold.tar", "sa_co_gold.tar.part"):
        (tmp_path / name).write_bytes(GOOD)  # nor are these: no build would take them
    (tmp_path / "sa_000003.tar.unpacked.part").write_bytes(GOOD[:100])  # of a killed `unpack`

    def said(**options):
        reports = verify_folder(tmp_path, workers=1, **options)
        return {int(report.name[3:9]): report.status for report in reports}

    assert said() == {1: "whole", 2: "unfinished", 3: "whole", 7: "whole"}
    assert said(start=3) == {3: "whole", 7: "whole"}
    assert said(end=3) == {0: "missing", 1: "whole", 2: "unfinished"}
    assert said(start=2, end=5) == {2: "unfinished", 3: "whole", 4: "missing"}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_read_leaves_the_others_alone(tmp_path, workers):
    (tmp_path / "sa_000000.tar").symlink_to(tmp_path / "nowhere")
    (tmp_path / "sa_000001.tar").mkdir()
    (tmp_path / "sa_000002.tar").write_bytes(PACKED)
    reports = {report.name[3:9]: report for report in verify_folder(tmp_path, workers=workers)}
    assert {n: report.status for n, report in sorted(reports.items())} == {
        "000000": "wrong",
        "000001": "wrong",
        "000002": "whole",
    }
    assert "No such file or directory" in reports["000000"].reasons[0]
    assert "Is a directory" in reports["000001"].reasons[0]


def test_one_tar_is_looked_at_alone(tmp_path, capsys):
    for name in (NAME, "sa_000001.tar", f"{NAME}.part"):
        (tmp_path / name).write_bytes(GOOD)
    assert main(["verify", str(tmp_path / NAME)]) == 0
    said = f"{NAME}: whole, 1 pair\n1 of 1 tar whole\n"
    assert capsys.readouterr().out == said
    (tmp_path / "notes.txt").write_text("no tar")
    (report,) = verify_folder(tmp_path / "notes.txt")
    assert (report.name, report.status) == ("notes.txt", "torn")


def test_many_reasons_are_cut(tmp_path):
    (tmp_path / NAME).write_bytes(tar_of(**{f"sa_{n}.jpg": b"" for n in range(100, 150)}))

    (report,) = verify_folder(tmp_path)

    assert len(report.reasons) == 21
    assert report.reasons[-1] == "and 30 more"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": 2, "end": 2}, ValueError, "start=2, end=2 holds no tar"),
        ({"start": -1}, ValueError, "start=-1"),
        ({"workers": 0}, ValueError, "workers must be positive, got 0"),
        ({"folder": "none"}, FileNotFoundError, "none is not there: name the folder of the tars, "),
        ({"folder": __file__, "end": 3}, ValueError, "range of numbers is for a folder, and .* is"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        verify_folder(**{"folder": tmp_path, **options})


def test_the_command_over_several_processes(tmp_path):
    """The first tar takes longest, and its line comes first."""
    many = tar_of(**{f"sa_{n}.jpg": jpeg() for n in range(1, 1000)})
    for number, data in enumerate([many[:-99999], GOOD, GOOD]):
        (tmp_path / f"sa_{number:06d}.tar").write_bytes(data)
    run = [sys.executable, "-m", "sa1b_tfds", "verify", str(tmp_path), "--workers", "2"]

    text = subprocess.run([*run, "--deep", "--end", "4"], capture_output=True, text=True)
    lines = text.stdout.splitlines()
    assert text.returncode == 1, text.stderr
    assert lines[-1] == "2 of 4 tars whole, 1 missing, 1 torn"
    tars = [line for line in lines if line.startswith("sa_")]
    assert [line[:9] for line in tars] == [f"sa_{number:06d}" for number in range(4)]
    assert "sa_000001.tar: whole, 1 pair" in tars

    as_json = subprocess.run([*run, "--start", "1", "--json"], capture_output=True, text=True)
    events = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert as_json.returncode == 0, as_json.stderr
    assert events[-1] == {"event": "summary", "ok": True, "whole": 2}


def test_a_process_that_is_killed_fails_its_tar_only(tmp_path):
    os.mkfifo(tmp_path / "sa_000002.tar")  # whoever opens it waits for a writer
    for number in (0, 1):
        (tmp_path / f"sa_{number:06d}.tar").write_bytes(GOOD)
    reports = verify_folder(tmp_path, workers=2)
    found = {report.name: report for report in (next(reports), next(reports))}
    for process in psutil.Process().children():
        process.kill()
    (killed,) = reports
    assert {report.status for report in found.values()} == {"whole"}
    assert (killed.name, killed.status) == ("sa_000002.tar", "wrong")
    assert "it was not looked at to its end: " in killed.reasons[0]
    assert "was ended by SIGKILL" in killed.reasons[0]


IN_GZIP = "The MD5 of {} of them is not known: they were read up to their checksum"
IN_PLAIN = "No MD5 is known for {} of them in the plain form: "


@pytest.mark.parametrize(
    ("tars", "options", "lines"),
    [
        ([PACKED], [], [IN_GZIP.format(1) + "."]),
        (
            [GOOD],
            [],
            [IN_PLAIN.format(1) + "only their headers were read. --deep reads them whole."],
        ),
        ([GOOD], ["--deep"], [IN_PLAIN.format(1) + "they were read whole."]),
        (
            [GOOD, PACKED, PACKED, GOOD],
            ["--workers", "1"],
            [
                IN_GZIP.format(2) + ".",
                IN_PLAIN.format(2) + "only their headers were read. --deep reads them whole.",
            ],
        ),
    ],
)
def test_tars_whose_md5_is_not_known_are_counted(tmp_path, capsys, tars, options, lines):
    for number, tar in enumerate(tars, 123456):
        (tmp_path / f"sa_{number}.tar").write_bytes(tar)
    assert main(["verify", str(tmp_path), "--md5", *options]) == 0
    assert capsys.readouterr().out.splitlines()[len(tars) :] == [
        f"{len(tars)} of {counted(len(tars), 'tar')} whole",
        *lines,
    ]
    main(["verify", str(tmp_path), "--md5", "--json", *options])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["without_md5"] == len(tars)


def test_a_tar_without_an_md5_that_the_download_checked_is_said(tmp_path, capsys):
    with FaultServer({"sa_123456.tar": PACKED}) as server:
        fetch_all(server, tmp_path, md5={})
    assert main(["verify", str(tmp_path), "--md5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sa_123456.tar: whole; its form, not its MD5, was checked when it was downloaded, and it"
        " has not changed since",
        "1 of 1 tar whole",
        IN_GZIP.format(1) + ", now or when they were downloaded.",
    ]


def test_the_command_says_where_a_plain_tar_is_from(downloaded, capsys, monkeypatch):
    monkeypatch.setattr(
        "sa1b_tfds.download.md5_table.read_md5_table", lambda path: {NAME: md5_of(PACKED)}
    )
    unpack([downloaded])
    assert main(["verify", str(downloaded), "--md5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{NAME}: whole, 1 pair; plain: unpacked from the file with the right MD5",
        "1 of 1 tar whole",
    ]
    main(["verify", str(downloaded), "--md5", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (report["form"], report["md5"], report["pairs"]) == ("plain", True, 1)


def test_md5_uses_the_table_that_comes_with_the_package(tmp_path, capsys):
    (tmp_path / NAME).write_bytes(PACKED)

    assert main(["verify", str(tmp_path), "--md5"]) == 1
    assert "the table says 78d0f487c735a3de86ae6e1b0ff24ea9" in capsys.readouterr().out


def test_an_empty_folder_is_no_success(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "0 of 0 tars whole\n"
