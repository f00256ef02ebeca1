"""The command line `sa1b`: runs a command, and turns errors into a line and an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import shtab

from sa1b_tfds import __version__
from sa1b_tfds.cli import (
    build,
    download,
    eval,
    export,
    locate,
    repack,
    show,
    sidecar,
    stats,
    unpack,
    verify,
)
from sa1b_tfds.cli.options import did_you_mean

_PATHS = ("FILE", "DIR", "TARS", "SOURCE", "OUT")  # what a shell completes with names of files
_COMPLETION = "--print-completion"
_COMMANDS = (locate, download, verify, unpack, build, stats, show, export, repack, sidecar, eval)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Imports only what that command needs."""
    _open_what_is_closed()
    logging.basicConfig(format="%(message)s")  # else each warning begins with "WARNING:absl:"
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parse(arguments)
    options.argv = arguments
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output has left (`sa1b ... | head`): end silently, as Unix tools do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        from sa1b_tfds.download.links import redact

        text = getattr(error, "closing", None) or str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}"
        print(f"sa1b {options.command}: {redact(text)}", file=sys.stderr)
        return 1


def _open_what_is_closed() -> None:
    """Opens the null device in place of a closed stream (`sa1b ... >&-`), for workers as well."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest free number, that of the stream
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w"))


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Returns the parser of `sa1b`, and those of the commands by name."""
    parser = argparse.ArgumentParser(
        prog="sa1b",
        description="SA-1B, from links to training batches.",
        epilog="`sa1b COMMAND --help` describes a command and its options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sa1b {__version__}")
    shtab.add_argument_to(
        parser,
        _COMPLETION,
        help="print the completion script for this shell: see docs/index.md",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add(commands)
    for command in commands.choices.values():
        for each in (command, *_actions_of(command).values()):
            for action in each._actions:
                if action.metavar in _PATHS:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser, commands.choices


def _actions_of(command: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The parsers of what a command does, by name, such as `import` of `sa1b sidecar`."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments; an error in them prints the usage of their command."""
    parser, commands = _parser()
    # argparse checks what is missing before it names what it does not know, and prints the usage of
    # `sa1b` then. A misspelt word is the likelier mistake, so it is looked for first.
    name = next((word for word in arguments if not word.startswith("-")), None)
    if arguments[:1] == [_COMPLETION]:
        name = None  # what follows is a shell
    if name is not None and name not in commands:
        parser.error(f"no such command: {name}{did_you_mean(name, commands)}")
    if name is not None:
        command = commands[name]
        given = arguments[arguments.index(name) + 1 :]
        command = _actions_of(command).get(given[0] if given else "", command)
        known = command._option_string_actions
        if "--" in given:
            given = given[: given.index("--")]
        for word in given:
            option = word.partition("=")[0]  # what follows may be a secret
            if option.startswith("--") and option not in known:
                command.error(f"no such option: {option}{did_you_mean(option, known)}")
    options, others = parser.parse_known_args(arguments)
    if others:
        options.parser.error(f"unrecognized arguments: {' '.join(others)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
