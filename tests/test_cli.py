"""The command line as a Unix tool; what each command does is tested beside its function."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import pytest

import sa1b_tfds
from sa1b_tfds.cli import main as cli
from sa1b_tfds.cli.main import main
from sa1b_tfds.segment_anything import configs
from tests import building

ROOT = pathlib.Path(__file__).parents[1]
DUMMY = ROOT / "dummy_data"
COMMANDS = [module.__name__.rpartition(".")[2] for module in cli._COMMANDS]
DOWNLOAD = "download --links-file links.txt --output-dir out"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--", "the following arguments are required: COMMAND"),
        ("help fly", "no such command: fly\n"),
        ("bulid tars", "no such command: bulid. Did you mean build?"),
        ("fly", "no such command: fly\n"),
        ("unpack tars --worker 2", "no such option: --worker. Did you mean --workers?"),
        ("download --links-fil=secret", "no such option: --links-fil. Did you mean --links-file?"),
        (
            "show tars --limit 3",
            "no such option: --limit. `sa1b show --help` describes those there",
        ),
        ("show a b --out page.html", "unrecognized arguments: b"),
        ("build tars --config orignal", "no such config: orignal. Did you mean original?"),
        ("build tars --config x", "no such config: x. Choose from original, original_1pct,"),
        ("build tars --delete-tars", "delete_tars='downloaded' needs a links_file"),
        ("stats tars --workers 0", "argument --workers: '0' is not a positive number"),
        ("verify tars --start 3 --end 3", "The range start=3, end=3 holds no tar"),
        ("export tars / --format coco", "/ is a mount point"),
        ("export a b --format coco --holdout-part val", "holdout must be above 0 with holdout_pa"),
        ("export a b --format coco --holdout 2", "holdout must be 0 to 1, got 2"),
        ("repack tars out --shard-size 0", "shard_size must be positive, got 0"),
        ("repack tars out --shard-size big", "'big' is no number of bytes such as 200M"),
        ("repack tars out --tars one", "'one' is not a list such as 0:10,20"),
        ("repack tars out --form sa1b --shard-size 1G", "are for --form webdataset"),
        (f"{DOWNLOAD} --retries=-1", "retries=-1: must not be negative"),
    ],
)
def test_options_that_make_no_sense_are_2_with_usage(capsys, line, message):
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    err = capsys.readouterr().err
    command = line.split()[:1]
    usage = " ".join(["usage: sa1b", *(command if command and command[0] in COMMANDS else [])])
    assert err.startswith(f"{usage} ")
    assert message in err
    assert "secret" not in err


@pytest.mark.parametrize(
    ("line", "same"),
    [("", "--help"), ("help", "--help"), ("help build", "build --help")],
)
def test_who_asks_for_nothing_or_for_help_gets_it(capsys, line, same):
    texts = []
    for arguments in (line, same):
        with pytest.raises(SystemExit, match="0"):
            main(arguments.split())
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("usage: sa1b ")


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"sa1b {sa1b_tfds.__version__}\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sa1b", "ver"], ["verify"]),
        (["sa1b", "build", "--data"], ["--data-dir"]),
        (["sa1b", "repack", "tars", "out", "--form", ""], ["webdataset", "sa1b"]),
        (["sa1b", "verify", "a_fo"], ["a_folder"]),
    ],
)
def test_bash_completes(tmp_path, words, found):
    (tmp_path / "a_folder").mkdir()
    asked = f"""
eval "$({sys.executable} -m sa1b_tfds --print-completion bash)"
COMP_WORDS=({shlex.join(words)})
COMP_CWORD={len(words) - 1}
$(complete -p sa1b | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    run = subprocess.run(
        ["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == found, run.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse_and_a_page(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    for action in cli._actions_of(cli._parser()[1][command]).values():
        assert "positional arguments" not in action.format_help()
    assert "positional arguments" not in text  # each is in a group of its own
    examples = re.findall(rf"^  sa1b ({command} .*)$", text, re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        cli._parse(shlex.split(example))
    assert (ROOT / re.search(r"^more: (\S+)$", text, re.MULTILINE)[1]).exists()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("export", "OUT folder to write: a new one, or one that this command began"),
        ("repack", "OUT folder to write: a new one, or one that this command began"),
        ("locate", "Exact for tars in --tars; an estimate for others"),
        ("verify", "DIR folder of the tars, or one tar"),
    ],
)
def test_help_answers_what_was_asked(command, sentence):
    assert sentence in " ".join(cli._parser()[1][command].format_help().split())


def test_help_of_build_says_all_configs():
    help = cli._parser()[1]["build"]._option_string_actions["--config"].help
    sizes, ends = ("original", "resized_1024"), ("", "_1pct", "_10pct")
    assert {f"{size}{end}" for size in sizes for end in ends} == {c.name for c in configs.ALL}
    assert all(part in help for part in (*sizes, *ends))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_is_explained_with_its_default(command):
    for action in cli._parser()[1][command]._actions:
        assert action.help, action.dest
        has_default = not action.required and action.dest not in ("help", "plan")
        assert not has_default or "(default: " in action.help, action.dest


@pytest.mark.parametrize(
    "command",
    [
        "build tars",
        "build tars --plan",
        "stats tars",
        "show tars",
        "show tars --batch",
        "export tars out --format coco",
        "repack tars out",
        "unpack tars",
        "locate ids.list --tars tars",
        "sidecar join tars --out side",
    ],
)
def test_an_unfinished_download_is_never_taken_for_data(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids.list").write_text("1")
    (tmp_path / "tars").mkdir()
    for end, content in ((".part", "01234"), (".part.json", "{}")):
        (tmp_path / "tars" / f"sa_000000.tar{end}").write_text(content)
    assert main(command.split()) == 1
    assert capsys.readouterr().err == (
        f"sa1b {command.split()[0]}: tars holds no whole tar: 1 download is unfinished"
        " (sa_000000.tar). Run `sa1b download` again.\n"
    )


def test_a_reader_that_leaves_ends_it_without_a_word():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sa1b_tfds", "verify", str(DUMMY)]
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (run.returncode, run.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_keep_no_build_from_its_end(tmp_path, closed):
    build = f"{sys.executable} -m sa1b_tfds build {DUMMY} --data-dir {tmp_path} --workers 1"
    run = subprocess.run(f"{build} {closed}", shell=True, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / building.FINAL / "build_report.json").exists()
    assert ("images of" in run.stdout) == (closed == "2>&-")


@pytest.mark.parametrize(
    "command",
    [
        ["stats", str(DUMMY), "--json"],
        ["show", str(DUMMY), "--out"],
        ["eval", "--predictions", "p.json", "--data", str(DUMMY), "--out"],
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path, capsys, command):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main([*command, str(tmp_path / "file" / "out.html")])
    assert f"{tmp_path}/file cannot be made: " in capsys.readouterr().err


def test_output_is_the_commands_own(tmp_path):
    """No prefix of absl before a warning, no lines of TFDS or TensorFlow, the same on a pipe."""
    tars = building.write_tars(tmp_path / "tars", tars=1)
    (tars / "sa_9.jpg").write_bytes(b"")  # of which a warning speaks
    lines = []
    for arguments in (
        ["build", tars, "--data-dir", tmp_path / "data"],
        ["show", tmp_path / "data", "--batch", "--out", tmp_path / "batch.png"],
    ):
        command = [sys.executable, "-m", "sa1b_tfds", *map(str, arguments)]
        environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        lines += [*done.stderr.splitlines(), *done.stdout.splitlines()]
    changing = re.compile(r"^\d\d:\d\d:\d\d |[\d.]+ (?=kB)")
    assert [changing.sub("", line).replace(str(tmp_path), "TMP") for line in lines] == [
        "Reading the tars in TMP/tars; the extracted files there are left out.",
        "1 tar, kB to do",
        "sa_000000.tar: done",
        "4 images of 1 tar in 1 shard, kB; 0 skipped",
        "4 images in TMP/batch.png",
    ]
