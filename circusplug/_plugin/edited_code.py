# Which modules of plugins were edited on disk since they were imported, and importing them anew.
#
# What is edited shows in the content of a file: times may be kept, and be too coarse. Who has to
# be imported anew, too, shows in the import statements of those that were not edited, for their
# files are what they were made from. Nothing else is touched: no module of Python's, of circus, of
# circusplug or of a library, unless the plugin's class itself is in that library.
#
# Owner: any thread. `_lock` guards what is remembered. One thread at a time imports anew; others
# that load a plugin concerned wait for it (`_importing`, guarded by `_changed`).

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Any

_lock = threading.Lock()
#: What the files of modules held when they were imported, or a moment later.
_hashes: weakref.WeakKeyDictionary[ModuleType, bytes] = weakref.WeakKeyDictionary()
#: The packages that plugins' classes are in.
_packages: set[str] = set()
#: How many modules there were when all had been looked at.
_looked_at = 0

#: Off in an isolated plugin's process, whose code is that of its start: a look at every module
#: would make it a megabyte larger.
_is_on = True

_one_at_a_time = threading.Lock()
_changed = threading.Condition()
_importing: tuple[int, Collection[str]] = (0, ())

_NEVER = {*sys.stdlib_module_names, "__main__", "__mp_main__", "circus", "circusplug"}
_LIBRARIES = {"site-packages", "dist-packages"}


def turn_off() -> None:
    """Remember nothing from now on: in this process nothing is imported anew."""
    global _is_on
    _is_on = False


def remember(module: str) -> None:
    """Note what the files hold of all modules that may be a plugin's and are imported by now.

    Args:
        module: The one that the plugin's class is in.
    """
    global _looked_at
    if not _is_on:
        return
    with _lock:
        modules: dict[str, Any] = sys.modules.copy()
        if len(modules) == _looked_at and modules.get(module) in _hashes:
            return  # the next of many plugins with one class
        _packages.add(_package(module))
        _looked_at = len(modules)
        for name, there in modules.items():
            if isinstance(there, ModuleType) and there not in _hashes:
                file = _if_plugins(name, vars(there).get("__file__"))
                if file is not None and (source := _read(file)) is not None:
                    _hashes[there] = importlib.util.source_hash(source)


def find_edited(modules: Iterable[str], everyone: Iterable[str]) -> set[str]:
    """Which modules have to be imported anew, because they were edited or import such ones.

    Args:
        modules: Those of the plugins that are to have the edited code: what they import counts.
        everyone: Those of all plugins on threads.
    """
    asked = set(modules)
    imports, edited = _look_at(asked.union(everyone))
    below = _closure(asked, lambda name: imports.get(name, set()))
    above = _closure(below & edited, lambda name: {one for one in imports if name in imports[one]})
    return {name for name in above if name in sys.modules}


def _look_at(modules: Iterable[str]) -> tuple[dict[str, set[str]], set[str]]:
    """What each of some modules, and of those below, imports; and which of all are edited."""
    imports: dict[str, set[str]] = {}
    edited = set()
    left = list(modules)
    left += _parents(left)
    while left:
        name = left.pop()
        file = _file(name) or (_file_to_import(name) if name not in sys.modules else None)
        if name in imports or file is None:
            continue
        source = _read(file)
        module = sys.modules.get(name)
        if module is not None:
            with _lock:  # what nobody has looked at yet was imported late
                now = b"" if source is None else importlib.util.source_hash(source)
                if _hashes.setdefault(module, now) != now:
                    edited.add(name)
        imports[name] = _imports(name, source or b"", os.path.basename(file) == "__init__.py")
        left += imports[name]
    return imports, edited


def _closure(start: Collection[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    found: set[str] = set()
    left = list(start)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += following(name)
    return found


def _imports(name: str, source: bytes, is_package: bool) -> set[str]:
    """What a module imports as far as statements tell, the packages that it is in included."""
    here = name if is_package else name.rpartition(".")[0]
    found = {name}
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # it is being edited
        nodes = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with contextlib.suppress(ImportError):  # relative to what there is not
                dotted = f"{'.' * node.level}{node.module or ''}"
                origin = importlib.util.resolve_name(dotted, here)
                found.update((origin, *(f"{origin}.{alias.name}" for alias in node.names)))
    return (found | _parents(found)) - {name}


def _parents(names: Iterable[str]) -> set[str]:
    """The packages that modules are in."""
    return {name[:dot] for name in names for dot, mark in enumerate(name) if mark == "."}


@contextlib.contextmanager
def importing_anew(names: Collection[str]) -> Iterator[Callable[[], None]]:
    """Take modules away, so that the block imports them anew.

    If it raises, the old ones are back in their places, exactly as they were. Until it is over,
    other threads that load a plugin in one of the modules wait.

    Yields:
        What puts the old ones back later.
    """
    if not names:
        yield lambda: None
        return
    with _one_at_a_time:
        _announce((threading.get_ident(), names))
        try:
            put_back = _take_away(names)
            try:
                yield put_back
            except BaseException:
                put_back()
                raise
        finally:
            _announce((0, ()))


def wait_until_imported(module: str) -> None:
    """Wait while another thread imports a module anew."""
    here = threading.get_ident()
    with _changed:
        _changed.wait_for(lambda: _importing[0] == here or module not in _importing[1])


def _announce(importing: tuple[int, Collection[str]]) -> None:
    global _importing
    with _changed:
        _importing = importing
        _changed.notify_all()


def _take_away(names: Collection[str]) -> Callable[[], None]:
    """Take modules out of `sys.modules` and out of their packages; returns what undoes it."""
    global _looked_at
    old = {name: sys.modules.pop(name) for name in names}
    there = set(sys.modules)
    kept = [(name, module) for name, module in old.items() if _detach(name, module)]
    for module in old.values():
        # Python takes it for the file's if times and sizes are the same.
        with contextlib.suppress(OSError):
            os.unlink(str(vars(module).get("__cached__")))
    importlib.invalidate_caches()
    with _lock:
        _looked_at = 0

    def put_back() -> None:
        for name in set(sys.modules) - there:
            if name in old or _file(name) is not None:  # it may hold something of the new ones
                _detach(name, sys.modules.pop(name))
        sys.modules.update(old)
        for name, module in kept:
            parent, _, last = name.rpartition(".")
            setattr(sys.modules[parent], last, module)

    return put_back


def _detach(name: str, module: ModuleType) -> bool:
    """Take a module out of its package's namespace; False if it was not there."""
    parent, _, last = name.rpartition(".")
    package = sys.modules.get(parent)
    if package is None or vars(package).get(last) is not module:
        return False
    delattr(package, last)
    return True


def _file(name: str) -> str | None:
    """The source of an imported module that may be a plugin's; None for any other."""
    module = sys.modules.get(name)
    if not isinstance(module, ModuleType):
        return None
    return _if_plugins(name, vars(module).get("__file__"))


def _file_to_import(name: str) -> str | None:
    """The source of a module that is not imported; nothing is imported to find it."""
    parent = name.rpartition(".")[0]
    path = getattr(sys.modules.get(parent), "__path__", ()) if parent else None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        return _if_plugins(name, spec.origin if spec is not None else None)
    return None


def _if_plugins(name: str, file: object) -> str | None:
    if not isinstance(file, str) or not file.endswith(".py") or _package(name) in _NEVER:
        return None
    in_library = not _LIBRARIES.isdisjoint(file.split(os.sep))
    return file if not in_library or _package(name) in _packages else None


def _package(name: str) -> str:
    return name.partition(".")[0]


def _read(file: str) -> bytes | None:
    with contextlib.suppress(OSError), open(file, "rb") as stream:
        return stream.read()
    return None
