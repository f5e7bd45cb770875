# A plugin's declared options: from its config to one typed, frozen object, or every problem at
# once. How a type is read is `option_types`'s business; an author uses `circusplug.options`.

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._errors import SpecError
from .values import did_you_mean

if TYPE_CHECKING:
    from .option import Option

#: What circusd, or a host, reads in a plugin's section, besides the plugin.
_NOT_THE_PLUGINS = frozenset(
    """
    __name__ active args autostart check_flapping close_child_stderr close_child_stdin
    close_child_stdout cmd copy_env copy_path env executable gid graceful_timeout hooks isolate
    max_age max_age_variance max_retry name numprocesses on_demand priority respawn rlimits
    send_hup shell shell_args singleton stderr_stream stdin_socket stdout_stream stop_children
    stop_signal uid use use_sockets virtualenv virtualenv_py_ver warmup_delay working_dir
    """.split()  # noqa: SIM905 - a list would be five times as long
)
_PREFIXES = ("rlimit_", "hooks.", "stdout_stream.", "stderr_stream.", "host.")


class Declared:
    """What a plugin class has as `options`: which options there are.

    An instance of the plugin has the values there instead.

    Args:
        cls: The frozen dataclass of the values.
        options: Its fields.

    Attributes:
        per_watcher: Those that a watcher may have a value of its own of.
    """

    def __init__(self, cls: type, options: Mapping[str, Option]) -> None:
        self.cls = cls
        self.options = options
        self.per_watcher = {name: one for name, one in options.items() if one.per_watcher}

    def __set_name__(self, owner: type, name: str) -> None:
        if name != "options":
            raise TypeError(
                f"{owner.__qualname__}.{name}: write options = declare({self.cls.__qualname__})"
            )

    def read(self, config: Mapping[str, Any]) -> Any:
        """A plugin's config as one typed object.

        Raises:
            SpecError: Something is missing, unknown or does not fit; holds every problem.
        """
        values: dict[str, Any] = {}
        problems: list[SpecError] = []
        for option in self.options.values():
            try:
                values[option.name] = option.read(config.get(option.name))
            except SpecError as error:
                problems.append(error)
        made = None if problems else _make(lambda: self.cls(**values), problems)
        problems += self._unknown(key for key in config if not _is_not_the_plugins(key))
        if made is None or problems:
            raise SpecError.of(problems)
        return made

    def read_for_watcher(
        self, own: Any, prefix: str, config: Mapping[str, Any]
    ) -> tuple[Any, list[SpecError]]:
        """A plugin's options for one watcher.

        Args:
            own: The plugin's own; None: they are not known, the watcher's are only checked.
            prefix: What stands before the dot in the watcher's section.
            config: All options of the watcher.

        Returns:
            `own` with those of the watcher's in it that fit; what is wrong with the others.
        """
        given = {key: value for key, value in config.items() if key.startswith(f"{prefix}.")}
        problems = self._unknown((key[len(prefix) + 1 :] for key in given), f"{prefix}.")
        values: dict[str, Any] = {}
        for name, option in self.per_watcher.items():
            key = f"{prefix}.{name}"
            try:
                if key in given:
                    values[name] = option.read(given[key], key)
            except SpecError as error:
                problems.append(error)
        if own is None or not values:
            return own, problems
        made = _make(lambda: dataclasses.replace(own, **values), problems)
        return (own if made is None else made), problems

    def _unknown(self, names: Iterable[str], prefix: str = "") -> list[SpecError]:
        """A problem for each name that there is not; with a prefix it is in a watcher's section."""
        known = self.per_watcher if prefix else self.options
        problems = []
        listed = "; there are " + ", ".join(prefix + name for name in known)
        for name in names:
            if name in known:
                continue
            if name in self.options:
                text = f"'{prefix}{name}' is the same for all watchers; it goes to the plugin"
            else:
                guess = did_you_mean(name, known, prefix)
                text = f"there is no option '{prefix}{name}'{guess or listed}"
                listed = listed if guess else ""  # once is enough
            problems.append(SpecError(text, key=prefix + name))
        return problems


def _make(make: Callable[[], Any], problems: list[SpecError]) -> Any:
    """Make the object; None if its `__post_init__` finds something wrong."""
    try:
        return make()
    except SpecError as error:
        problems.extend(error.problems)
        return None


def _is_not_the_plugins(key: str) -> bool:
    return key in _NOT_THE_PLUGINS or key.startswith(_PREFIXES)


def declared_by(plugin_class: type) -> Declared | None:
    """The options that a plugin class declares; None if it declares none."""
    found = getattr(plugin_class, "options", None)
    return found if isinstance(found, Declared) else None
