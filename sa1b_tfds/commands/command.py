"""What all commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Commands = Any  # what argparse's add_subparsers returns; its type is private


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    """Adds a command that `run` executes; it returns the exit code."""
    command = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    command.set_defaults(run=run)
    return command
