"""A page of documentation as a program: its blocks run one after the other.

python tests/page.py PAGE

runs the page in the current folder. To the folder above goes `printed`: as JSON what each block
printed.

All Python blocks of the page share one process and one namespace; a block of bash stops at its
first command that fails. A block does not run if the line before it is `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import re
import subprocess
import sys
import traceback

LANGUAGES = ("bash", "python", "output")
_BLOCK = re.compile(
    r"^(?P<skip><!-- not run\b(?P<why>.*?)-->\n)?"
    r"(?P<indent>[ ]*)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^[ ]*```$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """code of a language; `line` of the page it begins at; not_run: why not, None if it runs."""

    language: str
    code: str
    line: int
    not_run: str | None


def blocks_of(text: str) -> list[Block]:
    """The blocks of bash, of Python and of expected output."""
    return [
        Block(
            language=found["language"],
            code=re.sub(f"^{found['indent']}", "", found["code"], flags=re.MULTILINE),
            line=text.count("\n", 0, found.start("code")) + 1,
            not_run=None if found["skip"] is None else found["why"].removeprefix(":").strip(),
        )
        for found in _BLOCK.finditer(text)
        if found["language"] in LANGUAGES
    ]


def run(page: str) -> int:
    """Runs all blocks of a page; 1 if one fails, which stdout and stderr then tell."""
    namespace = {"__name__": "__main__"}
    printed: list[tuple[int, str]] = []
    for block in blocks_of(pathlib.Path(page).read_text()):
        if block.not_run is not None or block.language == "output":
            continue
        out = io.StringIO()
        try:
            if block.language == "python":
                # The page's own lines in a traceback.
                code = compile("\n" * (block.line - 1) + block.code, page, "exec")
                with contextlib.redirect_stdout(out):
                    exec(code, namespace)
            else:
                run = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block.code], capture_output=True, text=True
                )
                out.write(run.stdout)
                if run.returncode:
                    raise RuntimeError(f"exit code {run.returncode}\n{run.stderr[-3000:]}")
        except (Exception, SystemExit):
            traceback.print_exc()
            print(f"{page}, line {block.line}: this block fails. {out.getvalue()[-2000:]}")
            return 1
        printed.append((block.line, out.getvalue()))
    pathlib.Path("../printed").write_text(json.dumps(printed))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
