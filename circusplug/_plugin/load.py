# From the `use` of a plugin to a class that can be constructed, or one clear line why not.

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any

from .._config.declared import declared_by
from .._config.specs import PluginSpec
from .._config.values import did_you_mean
from .._errors import PluginLoadError, SpecError, describe
from .base import CircusPlugin
from .edited_code import remember, wait_until_imported


def load_plugin_class(use: str | type, where: str = "") -> type[Any]:
    """Import a plugin class and check that it is one.

    Args:
        use: Dotted name (``package.module.Class``), the name that a package has registered for
            one, or the class itself.
        where: Put in front of the message, e.g. ``circus.ini: [plugin:logger]``.

    Returns:
        A class to be called with ``(endpoint, pubsub_endpoint, check_delay, ssh_server,
        **config)``; one made for Circus's own base class comes back adopted.

    Raises:
        PluginLoadError: No such module or class, its import fails, or it is no plugin.
    """
    found = _resolve(use.strip(), where) if isinstance(use, str) else use
    name = use if isinstance(use, str) else f"{found.__module__}.{found.__qualname__}"
    if is_circus_plugin(found) and not issubclass(found, CircusPlugin):
        from .adopt import adopt

        _refuse_handler_without_event(found, name, where)
        return adopt(found)
    if not issubclass(found, CircusPlugin):
        raise _error(where, f"{name} is no plugin; derive it from circusplug.CircusPlugin")
    if found.handle_recv is CircusPlugin.handle_recv:
        raise _error(where, f"{name} has no handle_recv(self, data); a plugin must define it")
    _refuse_handler_without_event(found, name, where)
    if inspect.iscoroutinefunction(found.handle_stop):
        raise _error(
            where,
            f"{name}: handle_stop runs when the plugin's loop has ended, so it cannot be async; "
            "make it a plain function (call and cast work in it)",
        )
    return found


def _refuse_handler_without_event(found: type[Any], name: str, where: str) -> None:
    handler = inspect.getattr_static(found, "handle_recv", None)
    if inspect.isfunction(handler) and (refusal := _refusal(handler, object(), (b"", b""))):
        raise _error(
            where,
            f"{name}: handle_recv is called with one event ({refusal}); write "
            "handle_recv(self, data)",
        )


def _refusal(function: Any, *arguments: Any, **options: Any) -> str:
    """Why a function cannot be called with arguments, or nothing."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # it does not tell
        return ""
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        return str(error)
    return ""


def is_circus_plugin(cls: type) -> bool:
    """Whether a class derives from Circus's own base class; circus is not imported for that."""
    return any(
        base.__module__ == "circus.plugins" and base.__name__ == "CircusPlugin"
        for base in cls.__mro__
    )


def _resolve(use: str, where: str) -> type[Any]:
    try:
        module_name, class_name = _split(use)
    except ValueError as error:
        raise _error(where, f"'use' names {use!r}, but {error}") from None
    if not module_name or not class_name:
        raise _error(
            where,
            f"'use' names {use!r}, which is no dotted name; write package.module.Class",
        )
    module = _import(use, module_name, where)
    try:
        found = getattr(module, class_name, None)
    except Exception as error:
        raise _failed(use, module_name, where, error) from error
    if inspect.isclass(found):
        return found
    if found is not None:
        raise _error(where, f"'use' names {use}, which is a {type(found).__name__}, not a class")
    classes = [name for name, item in vars(module).items() if inspect.isclass(item)]
    classes += getattr(module, "__all__", [])  # some may be imported with their first use
    guess = did_you_mean(class_name, classes)
    raise _error(where, f"'use' names {use}, but module {module_name} has no {class_name!r}{guess}")


def _import(use: str, module_name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(missing + "."):
            raise _error(
                where,
                f"'use' names {use}, but there is no module {missing!r}{_near(missing)}; install "
                "it, or put its directory into PYTHONPATH",
            ) from None
        raise _error(
            where, f"'use' names {use}, but importing {module_name} needs {missing!r}; install it"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed(use, module_name, where, error) from error


def _failed(use: str, module_name: str, where: str, error: BaseException) -> PluginLoadError:
    text = f"{type(error).__name__}: {error}"
    return _error(where, f"'use' names {use}, but importing {module_name} failed: {text}")


def _near(missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    if not parent or parent not in sys.modules:
        return ""
    import pkgutil

    path = getattr(sys.modules[parent], "__path__", [])
    return did_you_mean(last, [info.name for info in pkgutil.iter_modules(path)], f"{parent}.")


def _error(where: str, text: str) -> PluginLoadError:
    return PluginLoadError(f"{where}: {text}" if where else text)


def load_checked(spec: PluginSpec) -> type[Any]:
    """Import the class of a plugin and let it look at the plugin's options.

    Raises:
        PluginLoadError: See `load_plugin_class`; or the constructor does not take the options.
        SpecError: An option does not fit.
    """
    plugin_class = _load(spec)
    # What circusd's endpoints and its check delay will be is no matter here.
    if refusal := _refusal(plugin_class.__init__, object(), "", "", 1.0, None, **spec.config):
        raise _error(
            spec.where,
            f"{spec.use_name}: its __init__ does not take its options ({refusal}); "
            "write __init__(self, *args, **config)",
        )
    if issubclass(plugin_class, CircusPlugin):
        try:
            plugin_class.check_config(spec.config)
        except SpecError as error:
            raise SpecError.of([error], spec.place) from None
    return plugin_class


def _load(spec: PluginSpec) -> type[Any]:
    module = module_of(spec)
    if module is None:
        return load_plugin_class(spec.use, spec.where)
    wait_until_imported(module)
    try:
        return load_plugin_class(spec.use, spec.where)
    finally:
        remember(module)


def short_name(plugin_class: type) -> str:
    """What to call a plugin that nobody has given a name."""
    return str(vars(plugin_class).get("name") or plugin_class.__name__)


def module_of(spec: PluginSpec) -> str | None:
    """The module that a plugin's class is imported from; None if the class itself was given."""
    try:
        return _split(spec.use)[0] if isinstance(spec.use, str) else None
    except ValueError:
        return ""


def _split(use: str) -> tuple[str, str]:
    """Module and class, whatever there is of them; raises ValueError for a doubtful short name."""
    use = use.strip()
    module, _, name = use.replace(":", ".").rpartition(".")
    if name != use or not name:
        return module, name
    from .short_names import dotted_name

    full = dotted_name(name)
    return ("", name) if full == name else _split(full)


def load_problems(spec: PluginSpec) -> list[str]:
    """What `load_checked` finds wrong with a plugin's class or its options, a line each.

    Each says which plugin it is, wherever that comes from.
    """
    try:
        load_checked(replace(spec, where=spec.place))
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    except PluginLoadError as error:
        return [str(error)]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the plugin's own
        return [f"{spec.place}: {describe(error)}"]
    return []


def watcher_problems(spec: PluginSpec, given: Iterable[tuple[str, str, str]]) -> list[str]:
    """What watchers' sections say wrong of a plugin's options for them, a line each.

    Args:
        spec: The plugin; if it cannot be loaded, nothing is found.
        given: Place, key and value of what stands in these sections.
    """
    try:
        plugin_class = _load(spec)
    except PluginLoadError:
        return []
    declared = declared_by(plugin_class)
    if declared is None or not declared.per_watcher:
        return []
    lines = []
    for place, key, value in given:
        problems = declared.read_for_watcher(None, str(plugin_class.name), {key: value})[1]
        lines += [f"{place}: {problem.message}" for problem in problems]
    return lines
