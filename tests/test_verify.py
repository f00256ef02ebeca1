"""`verify`: what it says of whole, torn, wrong, missing and unfinished tars."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import psutil
import pytest
from PIL import Image

from sa1b_tfds.cli import main
from sa1b_tfds.rle import encode_mask
from sa1b_tfds.verify import verify_folder

NAME = "sa_000000.tar"


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


@pytest.mark.parametrize(
    ("data", "options", "status", "reason"),
    [
        (GOOD, {}, "whole", None),
        (GOOD, {"deep": True}, "whole", None),
        (GOOD, {"md5": {NAME: hashlib.md5(GOOD).hexdigest()}}, "whole", None),
        (GOOD, {"md5": {"sa_000009.tar": "0" * 32}}, "whole", None),
        (GOOD, {"md5": {NAME: "0" * 32}}, "wrong", "the MD5 is .*, the table says 000"),
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
        (tar_of(**{"sa_7.jpg": b"GIF"}), {"deep": True}, "wrong", "it is not a JPEG"),
        (tar_of(**{"sa_7.jpg": jpeg()[:-9]}), {"deep": True}, "wrong", "the JPEG is cut off"),
        (tar_of(**{"sa_7.jpg": jpeg(9, 9)}), {"deep": True}, "wrong", "disagrees with the image's"),
    ],
    ids=lambda value: "tar" if isinstance(value, bytes) else None,
)
def test_what_is_said_of_a_tar(tmp_path, data, options, status, reason):
    (tmp_path / NAME).write_bytes(data)

    (report,) = verify_folder(tmp_path, **options)

    assert (report.name, report.status) == (NAME, status), report.reasons
    assert bool(report.reasons) == (status != "whole")
    if reason:
        assert any(re.search(reason, said) for said in report.reasons), report
    else:
        assert report.pairs == 1
        assert report.md5 == (NAME in options.get("md5", {}))


def test_a_range_and_what_is_missing_from_it(tmp_path):
    for number in (1, 3, 7):
        (tmp_path / f"sa_{number:06d}.tar").write_bytes(GOOD)
    (tmp_path / "sa_000002.tar.part").write_bytes(GOOD[:100])
    (tmp_path / "sa_000002.tar.part.json").write_text("{}")
    (tmp_path / "other.txt").write_text("not looked at")
    for name in ("mine_0.tar", "sa_co_gold.tar", "sa_co_gold.tar.part"):
        (tmp_path / name).write_bytes(GOOD)  # nor are these: no build would take them

    def said(**options):
        reports = verify_folder(tmp_path, workers=1, **options)
        return {int(report.name[3:9]): report.status for report in reports}

    assert said() == {1: "whole", 2: "unfinished", 3: "whole", 7: "whole"}
    assert said(start=3) == {3: "whole", 7: "whole"}
    assert said(end=3) == {0: "missing", 1: "whole", 2: "unfinished"}
    assert said(start=2, end=5) == {2: "unfinished", 3: "whole", 4: "missing"}


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
        ({"folder": "none"}, NotADirectoryError, "none is not a folder: verify takes the folder"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        verify_folder(**{"folder": tmp_path, **options})


def test_the_command_over_several_processes(tmp_path):
    for number in range(3):
        (tmp_path / f"sa_{number:06d}.tar").write_bytes(GOOD if number else GOOD[:1024])
    run = [sys.executable, "-m", "sa1b_tfds.cli", "verify", str(tmp_path), "--workers", "2"]

    text = subprocess.run([*run, "--deep", "--end", "4"], capture_output=True, text=True)
    lines = text.stdout.splitlines()
    assert text.returncode == 1, text.stderr
    assert lines[-1] == "2 of 4 tars whole, 1 missing, 1 torn"
    assert "sa_000001.tar: whole, 1 pairs" in lines

    as_json = subprocess.run([*run, "--start", "1", "--json"], capture_output=True, text=True)
    events = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert as_json.returncode == 0, as_json.stderr
    assert events[-1] == {"event": "summary", "ok": True, "whole": 2}


def test_a_process_that_is_killed_fails_its_tar_only(tmp_path):
    os.mkfifo(tmp_path / "sa_000000.tar")  # whoever opens it waits for a writer
    for number in (1, 2):
        (tmp_path / f"sa_{number:06d}.tar").write_bytes(GOOD)
    reports = verify_folder(tmp_path, workers=2)
    found = {report.name: report for report in (next(reports), next(reports))}
    for process in psutil.Process().children():
        process.kill()
    (killed,) = reports
    assert {report.status for report in found.values()} == {"whole"}
    assert (killed.name, killed.status) == ("sa_000000.tar", "wrong")
    assert "it was not looked at to its end: " in killed.reasons[0]
    assert "was ended by SIGKILL" in killed.reasons[0]


def test_a_tar_whose_md5_is_not_known_is_said(tmp_path, capsys):
    (tmp_path / "sa_123456.tar").write_bytes(GOOD)
    assert main(["verify", str(tmp_path), "--md5"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "1 of 1 tars whole",
        "The MD5 of 1 of them is not known: only their headers were read.",
    ]


def test_md5_uses_the_table_that_comes_with_the_package(tmp_path, capsys):
    (tmp_path / NAME).write_bytes(GOOD)

    assert main(["verify", str(tmp_path), "--md5"]) == 1
    assert "the table says 78d0f487c735a3de86ae6e1b0ff24ea9" in capsys.readouterr().out


def test_an_empty_folder_is_no_success(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "0 of 0 tars whole\n"
