# The package as it is installed and imported: what the wheel holds, what an import costs, and
# that imports only ever point down. The order of the rooms is the table in
# ARCHITECTURE.md.

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import circusplug

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "circusplug"


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built by the backend that pyproject.toml names, without a network."""
    directory = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(directory)], cwd=ROOT, check=True, capture_output=True
    )
    (path,) = directory.iterdir()
    with zipfile.ZipFile(path) as file:
        yield file


def _in_wheel(wheel: zipfile.ZipFile, name: str) -> str:
    (found,) = [item for item in wheel.namelist() if item.endswith(f".dist-info/{name}")]
    return wheel.read(found).decode()


def test_the_wheel_holds_every_module_the_documentation_the_type_marker_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    sources = [*PACKAGE.rglob("*.py"), *PACKAGE.glob("docs/*.md")]
    ours = {str(path.relative_to(ROOT)) for path in sources}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == {*ours, "circusplug/py.typed"}


def test_the_wheel_brings_the_commands_and_the_fixtures(wheel: zipfile.ZipFile) -> None:
    text = _in_wheel(wheel, "entry_points.txt")
    assert re.findall(r"^\[(.*)\]$|^(\S+) = (\S+)$", text, re.MULTILINE) == [
        ("console_scripts", "", ""),
        ("", "circus-plugin", "circusplug._cli.main:run_plugin"),
        ("", "circusplug", "circusplug._cli.main:run"),
        ("pytest11", "", ""),
        ("", "circusplug", "circusplug._pytest_plugin"),
    ]


def test_the_wheel_needs_pyzmq_and_configobj_only(wheel: zipfile.ZipFile) -> None:
    metadata = Parser().parsestr(_in_wheel(wheel, "METADATA"))
    needed = [item for item in metadata.get_all("Requires-Dist", []) if "extra ==" not in item]
    assert sorted(re.split(r"[<>=]", item)[0] for item in needed) == ["configobj", "pyzmq"]
    assert set(metadata.get_all("Provides-Extra", [])) >= {"circusd", "ssh", "test"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert _in_wheel(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert metadata["Version"] == circusplug.__version__


# The version and the names


def test_the_version_is_the_same_everywhere() -> None:
    declared = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert declared[1] == circusplug.__version__
    assert importlib.metadata.version("circusplug") == circusplug.__version__


def test_all_names_everything_public_in_order_and_nothing_else() -> None:
    names = circusplug.__all__
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    homes = [name for names in circusplug._HOMES.values() for name in names]
    assert sorted([*homes, "__version__"]) == names
    assert set(names) <= set(dir(circusplug))
    with pytest.raises(AttributeError, match="'circusplug' has no attribute 'Watcher'"):
        circusplug.Watcher  # noqa: B018 - looked up


def test_what_is_public_has_a_docstring() -> None:
    bare = [name for name in circusplug.__all__ if not getattr(circusplug, name).__doc__]
    assert bare == []


# What an import costs


def _modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


HEAVY = {"argparse", "circus", "configobj", "multiprocessing", "pexpect", "psutil", "tornado"}
HEAVY |= {"prometheus_client"}
FACES = {"circusplug._cli.main", "circusplug.options", "circusplug.plugins", "circusplug.testing"}


def test_the_root_module_imports_nothing_heavy_and_no_other_public_face() -> None:
    assert _modules_after("import circusplug") & {*HEAVY, *FACES} == set()


@pytest.mark.parametrize("face", ["options", "plugins", "testing"])
def test_the_other_faces_import_nothing_heavy(face: str) -> None:
    assert _modules_after(f"import circusplug.{face}") & HEAVY == set()


def test_the_command_imports_what_a_subcommand_needs_only_for_it() -> None:
    heavy = _modules_after("import circusplug._cli.main") & HEAVY
    assert heavy == {"argparse"}


def test_the_pytest_plugin_imports_the_test_kit_only_when_it_is_used() -> None:
    assert _modules_after("import circusplug._pytest_plugin") & {*HEAVY - {"argparse"}, *FACES} == (
        set()
    )


# The rooms


def _rooms() -> list[str]:
    """The rooms in the order of ARCHITECTURE.md's table; the root module is ""."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text.partition("## The rooms, low to high")[2].partition("\n## ")[0]
    names = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    return ["" if name == "circusplug" else name for name in names]


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _at_import(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements that an import of the module runs, be they in an `if` or a class."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _at_import(node.orelse)
        else:
            for field in ("body", "orelse", "finalbody"):
                yield from _at_import(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _at_import(handler.body)


@functools.cache
def _imported(name: str) -> set[str]:
    """The modules of the package that importing one of them imports, itself left out."""
    path = MODULES[name]
    package = name.split(".") if name else []
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in _at_import(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {".".join(inner) for first, *inner in names if first == "circusplug"}
            continue
        source = node.module.split(".") if node.module else []
        if node.level:
            source = [*package[: len(package) - node.level + 1], *source]
        elif source and source[0] == "circusplug":
            source = source[1:]
        else:
            continue
        for alias in node.names:
            inner = ".".join([*source, alias.name])
            found.add(inner if inner in MODULES else ".".join(source))
    return found - {name}


def test_every_room_is_in_the_table_once() -> None:
    assert sorted(_rooms()) == sorted({name.partition(".")[0] for name in MODULES})


def test_imports_only_point_down_the_rooms() -> None:
    height = {name: number for number, name in enumerate(_rooms())}
    up = []
    for name in MODULES:
        room = name.partition(".")[0]
        for other in _imported(name):
            other_room = other.partition(".")[0]
            if other_room != room and height[other_room] > height[room]:
                up.append(f"{name or 'circusplug'} imports {other or 'circusplug'}")
    assert up == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    order = list(TopologicalSorter({name: _imported(name) for name in MODULES}).static_order())
    assert set(order) == set(MODULES)


def test_a_private_room_s_init_imports_nothing() -> None:
    """An import of one module of a room costs that module alone."""
    inits = [path for name, path in MODULES.items() if name in _rooms() and name[:1] == "_"]
    folders = [path for path in inits if path.name == "__init__.py"]
    assert len(folders) >= 9
    assert [path for path in folders if "import" in path.read_text()] == []


def test_few_modules_stand_in_the_root_and_no_file_is_long() -> None:
    flat = [path.name for path in PACKAGE.glob("*.py")]
    assert len(flat) <= 9, flat
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
