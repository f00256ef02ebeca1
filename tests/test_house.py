"""Where modules live and what they may import: the map of CONTRIBUTING.md, held."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "sa1b_tfds"
MAP = (ROOT / "CONTRIBUTING.md").read_text().partition("## The map")[2]
ROOMS = re.findall(r"^      ([\w/.]+)  +\S", MAP, re.MULTILINE)


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module):
    """The entry of the map that a module is in: the longest that begins its path."""
    path = MODULES[module].relative_to(PACKAGE).as_posix()
    return max((room for room in ROOMS if path.startswith(room)), key=len)


def imports_of(module):
    """The modules of the package that a module imports, at its top or in a function."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in MODULES or node.module in MODULES:
                    yield name if name in MODULES else node.module


def test_the_map_names_what_is_there():
    entries = {
        path.name + "/" * path.is_dir()
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or any(path.glob("*.py"))
    }
    assert entries == {room for room in ROOMS if room.count("/") + room.count(".") == 1}
    assert all((PACKAGE / room).exists() for room in ROOMS)


@pytest.mark.parametrize(
    "page",
    [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_modules_that_a_page_names_exist(page):
    for name in re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|md|txt))`", page.read_text()):
        assert any((folder / name).exists() for folder in (PACKAGE, ROOT)), name


@pytest.mark.parametrize("module", MODULES)
def test_modules_that_a_module_names_exist(module):
    path = MODULES[module]
    for name in re.findall(r"`([a-z_/]+\.py)`", path.read_text()):
        beside = [path.parent, PACKAGE, ROOT]
        theirs = name.endswith("amg.py")  # a script of segment-anything
        assert theirs or any((folder / name).exists() for folder in beside), name


# The package itself names what is public, from all rooms, and imports it only when it is used.
@pytest.mark.parametrize("module", [name for name in MODULES if name != "sa1b_tfds"])
def test_a_module_imports_from_its_room_and_those_above(module):
    at = [room_of(module), *ROOMS[: ROOMS.index(room_of(module))]]
    # A folder in a room may use that room, and the room that folder.
    top = room_of(module).partition("/")[0]
    for imported in imports_of(module):
        room = room_of(imported)
        assert room in at or room.partition("/")[0] == top, f"{module} imports {imported}"


def test_no_imports_form_a_circle():
    graph = {name: set(imports_of(name)) - {name} for name in MODULES if name != "sa1b_tfds"}
    assert list(graphlib.TopologicalSorter(graph).static_order())
