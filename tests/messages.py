"""The texts that the code may show, read from its source."""

import ast
import pathlib
import re


def texts_of(package: pathlib.Path) -> list[str]:
    """A package's strings without docstrings; what an f-string fills in, or % or {}, is \\0."""
    texts = []
    for path in package.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[srd]|\{[\w:.!]*\}", "\0", node.value))
    return texts
