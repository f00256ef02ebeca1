"""The command line `sa1b`: finds the command and turns errors into a line and an exit code.

The commands are in `commands/`, one a file.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from sa1b_tfds.cli import build, download, eval, export, repack, show, stats, unpack, verify

_COMMANDS = (download, verify, unpack, build, stats, show, export, repack, eval)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Loads only what that command needs."""
    _open_what_is_closed()
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    options.argv = arguments
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read the output has left (`sa1b ... | head`): end without a word, as Unix tools do.
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
    """Gives a stream that the caller closed (`sa1b ... >&-`) the null device, also for workers."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: the one closed
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sa1b", description="SA-1B, from links to training batches.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
