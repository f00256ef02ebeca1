"""Every command and every piece of Python in the README and in docs/ runs, on the dummy data."""

import doctest
import functools
import hashlib
import http.server
import importlib.util
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import sa1b_tfds
from tests import forked
from tests.messages import texts_of
from tests.page import LANGUAGES, blocks_of

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = pathlib.Path(sys.executable).parent
_DATA_DIR = "data"
_BUILD = {"README.md", "index.md", "build.md"}  # the pages that prepare the data themselves


@pytest.fixture(scope="module")
def links():
    """A links file of the dummy tars, which are served over loopback."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(ROOT / "dummy_data"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lines = ["file_name\tcdn_link"]
    for tar in sorted((ROOT / "dummy_data").glob("*.tar")):
        lines.append(f"{tar.name}\thttp://127.0.0.1:{server.server_port}/{tar.name}?signature=none")
    yield "\n".join(lines) + "\n"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> pathlib.Path:
    """The package, but its MD5 table has the dummy tars' sums under SA-1B's names."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "sa1b_tfds", folder / "sa1b_tfds")
    table = folder / "sa1b_tfds" / "download" / "sa1b_md5.txt"
    tars = sorted((ROOT / "dummy_data").glob("*.tar"))
    sums = [f"{hashlib.md5(tar.read_bytes()).hexdigest()}  {tar.name}\n" for tar in tars]
    table.write_text("".join(sums))
    return folder


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> pathlib.Path:
    """A folder with the commands of this environment that pages use, as forks."""
    folder = tmp_path_factory.mktemp("commands")
    for name, script in {
        "python": [],
        "sa1b": [SCRIPTS / "sa1b"],
        "tfds": [SCRIPTS / "tfds"],
    }.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(forked.command(*script))} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def run_page(package, commands, tmp_path):
    """(page, folder to run it in) -> the exit code; see `page.py`."""
    environment = {
        **os.environ,
        "TFDS_DATA_DIR": _DATA_DIR,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "agg",
        "PYTHONPATH": str(package),
        "PATH": os.pathsep.join([str(commands), str(SCRIPTS), os.environ["PATH"]]),
    }

    def run(page: pathlib.Path, folder: pathlib.Path) -> int:
        with open(tmp_path / "log", "w") as log:
            command = forked.command(ROOT / "tests" / "page.py", page)
            return subprocess.run(
                command, cwd=folder, env=environment, stdout=log, stderr=log
            ).returncode

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page, tmp_path, links, prepared_dummy, run_page):
    blocks = blocks_of(page.read_text())
    if not any(block.not_run is None for block in blocks):
        pytest.skip("no block of this page runs")
    work = tmp_path / "work"
    work.mkdir()
    for name in ("tars", "dummy_data"):  # as users have them, and as they are in a clone
        shutil.copytree(ROOT / "dummy_data", work / name, ignore=shutil.ignore_patterns("*.py"))
    (work / "segment_anything_links.txt").write_text(links)
    if page.name not in _BUILD:
        shutil.copytree(prepared_dummy, work / _DATA_DIR)
    code = run_page(page, work)
    assert code == 0, (tmp_path / "log").read_text()[-6000:]
    if page.name == "README.md":  # which people follow in a clone
        ignored = (ROOT / ".gitignore").read_text().splitlines()
        made = {path.name for path in work.iterdir()} - {"dummy_data", _DATA_DIR}
        assert {name for name in made if not {f"/{name}", f"/{name}/"} & {*ignored}} == set()
    printed = dict(json.loads((tmp_path / "printed").read_text()))
    for before, block in itertools.pairwise([*blocks, None]):
        got = printed.get(before.line, "")
        if block is None or block.language != "output":
            # What `tfds build` prints is pages long, and not ours.
            assert not got or "tfds build" in before.code, f"{page.name}:{before.line}: {got}"
        elif before.line in printed:
            check = doctest.OutputChecker().check_output
            ellipsis = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert check(block.code, got, ellipsis), f"{page.name}:{block.line}: it prints\n{got}"


def test_blocks_that_do_not_run_say_why():
    """A comment that names no reason, or stands before no block, would hide a block silently."""
    reasons = {}
    for page in PAGES:
        text = page.read_text()
        others = set(re.findall(r"^ *```(\w+)", text, re.MULTILINE)) - {*LANGUAGES, "text", "json"}
        assert not others, f"{page.name}: only bash and python are run, not {others}"
        skipped = [block for block in blocks_of(text) if block.not_run is not None]
        assert len(skipped) == text.count("<!-- not run"), f"{page.name}: a comment has no block"
        reasons |= {f"{page.name}:{block.line}": block.not_run for block in skipped}
    for place, reason in reasons.items():
        print(f"{place} is not run: {reason}")
        assert len(reason.split()) >= 3, place


@pytest.mark.parametrize("block", ["```python\n1 / 0\n```", "```bash\nfalse\ntouch later\n```"])
def test_a_failing_block_fails_its_page(tmp_path, run_page, block):
    """The runner finds what is wrong, and stops there."""
    page, work = tmp_path / "page.md", tmp_path / "work"
    work.mkdir()
    page.write_text(f"# A\n\n{block}\n\n```bash\ntouch later\n```\n")
    assert run_page(page, work) == 1
    assert f"{page}, line 4: this block fails" in (tmp_path / "log").read_text()
    assert not (work / "later").exists()


def test_the_reference_names_all_that_is_public():
    text = (ROOT / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^::: sa1b_tfds\.(\w+)$", text, re.MULTILINE))
    code = (ROOT / "sa1b_tfds" / "__init__.py").read_text()
    side_rooms = re.findall(r"^    from sa1b_tfds import (\w+)", code, re.MULTILINE)
    assert {*sa1b_tfds.__all__, *side_rooms} <= documented


def test_the_reference_names_all_that_pages_use():
    text = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^::: sa1b_tfds\.([\w.]+)$", text, re.MULTILINE)
    for page in PAGES:
        text = page.read_text()
        used = set(re.findall(r"sa1b_tfds\.([a-z]\w*(?:\.\w+)+)(?!\.?\w| import)", text))
        for module, line in re.findall(
            r"^from sa1b_tfds\.?([\w.]*) import (.+)$", text, re.MULTILINE
        ):
            for name in line.split(", "):
                imported = f"{module}.{name}".lstrip(".")
                is_module = not module or any(d.startswith(f"{imported}.") for d in documented)
                owned = re.findall(rf"\b{name}\.(\w+)", text)
                used |= {f"{imported}.{own}" for own in owned} if is_module else {imported}
        # A name is documented with the module or class that it is in.
        unknown = {n for n in used if not any(f"{n}.".startswith(f"{d}.") for d in documented)}
        assert not unknown, f"{page.name} uses what may change: {unknown}"


def test_a_reader_is_told_what_the_pages_take_as_set():
    for page in ("README.md", "docs/index.md"):
        assert f"`export TFDS_DATA_DIR={_DATA_DIR}`" in (ROOT / page).read_text()


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert f": {page.name}\n" in navigation


def test_the_messages_under_troubleshooting_are_those_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    ours, theirs = page.split("## Messages of TensorFlow Datasets")
    tfds_folder = pathlib.Path(tfds.__file__).parent
    folders = [tfds_folder / name for name in ("core", "scripts/cli", "datasets/segment_anything")]
    for part, packages in ((ours, [ROOT / "sa1b_tfds"]), (theirs, folders)):
        headings = re.findall(r"^### (.*)$", part, re.MULTILINE)
        messages = [message for heading in headings for message in re.findall("`([^`]+)`", heading)]
        assert len(messages) >= 2
        texts = [text for package in packages for text in texts_of(package)]
        # Where the page has three dots, the code has something else each time.
        patterns = [re.escape(message).replace(r"\.\.\.", ".*") for message in messages]
        unknown = [p for p in patterns if not any(re.search(p, t, re.DOTALL) for t in texts)]
        assert not unknown, "the code does not say this"


def test_pictures_are_what_their_script_draws(tmp_path):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.main(tmp_path)
    kept = sorted((ROOT / "docs").glob("*.jpg"))
    assert {path.name for path in kept} == {path.name for path in tmp_path.glob("*.jpg")}
    for path in kept:
        drawn, page = (np.asarray(Image.open(p)).astype(int) for p in (tmp_path / path.name, path))
        assert np.abs(drawn - page).mean() < 2, f"run docs/pictures.py: {path.name} is old"
    assert all(f"({path.name})" in _all_text() for path in kept)


def _all_text() -> str:
    return "".join(page.read_text() for page in PAGES)
