"""What docs/api.md names says what it takes, returns and raises."""

import ast
import dataclasses
import functools
import inspect
import pathlib
import pkgutil
import re
import textwrap
import types

import pytest

import sa1b_tfds

API = (pathlib.Path(__file__).parents[1] / "docs" / "api.md").read_text()
NAMED = {*re.findall(r"^::: (\S+)$", API, re.M), *(f"sa1b_tfds.{n}" for n in sa1b_tfds.__all__)}


def is_ours(thing):
    return str(getattr(thing, "__module__", "")).startswith("sa1b_tfds")


def members_of(thing):
    """{name: member} of what is public in a module or class and no other library describes."""
    if isinstance(thing, types.ModuleType):
        own = [n for n, x in vars(thing).items() if getattr(x, "__module__", "") == thing.__name__]
        members = {name: getattr(thing, name) for name in getattr(thing, "__all__", own)}
    else:
        theirs = {name for base in thing.__mro__ if not is_ours(base) for name in vars(base)}
        members = {n: x for n, x in inspect.getmembers_static(thing) if n not in theirs}
    return {name: x for name, x in members.items() if not name.startswith("_")}


def public(name):
    """Yields (name, class or None, function, property or class) of what is public in a name."""
    waiting = [(name, None, pkgutil.resolve_name(name))]
    while waiting:
        name, owner, thing = waiting.pop()
        if isinstance(thing, types.ModuleType) or inspect.isclass(thing):
            inner = thing if inspect.isclass(thing) else None
            waiting += [(f"{name}.{n}", inner, x) for n, x in members_of(thing).items()]
        if isinstance(thing, functools.cached_property):
            thing = property(thing.func)
        thing = getattr(thing, "__func__", thing)  # of a class method
        if inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, property):
            yield name, owner, inspect.unwrap(thing)


def docs_of(owner, thing):
    """A docstring: that of a class with its __init__'s, a method's else that which it overrides."""
    if inspect.isclass(thing):
        parts = [thing.__doc__, thing.__init__.__doc__ if is_ours(thing.__init__) else ""]
    else:
        bases = owner.__mro__ if owner else ()
        same = [vars(base).get(thing.__name__) for base in bases if hasattr(thing, "__name__")]
        parts = [next((x.__doc__ for x in [thing, *same] if x and x.__doc__), "")]
    return "\n".join(inspect.cleandoc(part or "") for part in parts)


def parameters_of(thing):
    if isinstance(thing, property):
        return set()
    names = inspect.signature(thing).parameters.keys() - {"self", "cls"}
    if dataclasses.is_dataclass(thing):
        ours = (base for base in thing.__mro__ if is_ours(base))
        return names & {name for base in ours for name in inspect.get_annotations(base)}
    return names if not inspect.isclass(thing) or is_ours(thing.__init__) else set()


def errors_of(thing):
    """The names of the errors that the own body of a function, or of a constructor, raises."""
    bodies = [getattr(thing, "fget", thing)]
    if inspect.isclass(thing):
        bodies = [vars(thing).get(name) for name in ("__init__", "__post_init__")]
    for body in bodies:
        if body is None or body.__code__.co_filename == "<string>":  # which dataclasses wrote
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(body)))):
            error = getattr(node.exc, "func", node.exc) if isinstance(node, ast.Raise) else None
            name = getattr(error, "attr", getattr(error, "id", ""))
            if name[:1].isupper():
                yield name


def missing_in_docs(owner, thing):
    """Yields what the docstring of a function, property or class does not say."""
    doc = docs_of(owner, thing)
    if not doc.strip():
        yield "a docstring"
    parts = re.split(r"^(\w[\w ]*):$", doc, flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for error in set(errors_of(thing)):
        if not re.search(rf"\b{error}\b.*:", sections.get("Raises", "")):
            yield f"Raises: {error}"
    for name in parameters_of(thing):
        where = doc if inspect.isclass(thing) else sections.get("Args", "")
        if not re.search(rf"^ *([*\w]+, )*\**{name}(, [*\w]+)*:", where, re.M):
            yield f"Args: {name}"
    if inspect.isfunction(thing):
        returns = inspect.signature(thing).return_annotation
        if returns not in ("None", None) and not {"Returns", "Yields"} & sections.keys():
            yield "Returns"


# By these names: to find what is in them takes the import of every extra, in each process.
@pytest.mark.parametrize("name", sorted(NAMED))
def test_docstrings_say_what_goes_in_and_what_comes_out(name):
    missing = {inner: sorted(missing_in_docs(*found)) for inner, *found in public(name)}
    assert missing
    assert {inner: what for inner, what in missing.items() if what} == {}
