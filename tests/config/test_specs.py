# Plugins and hosts as data: what is accepted, what each becomes, what a message says.

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circusplug import HostConfig, HostOptions, PluginSpec, SpecError
from circusplug._config.host_options import OPTIONS


def test_a_section_is_sorted_into_the_hosts_options_and_the_plugins() -> None:
    spec = PluginSpec.from_options(
        {
            "use": "package.Class",
            "isolate": "yes",
            "host.restart": "never",
            "graceful_timeout": "7",
            "active": "true",
            "name": "logger",
            "filename": "a.log",
            "restart": "mine",
        }
    )
    assert (spec.name, spec.use, spec.isolate) == ("logger", "package.Class", True)
    assert (spec.host.restart, spec.host.graceful_timeout) == ("never", 7.0)
    assert spec.config == {
        "graceful_timeout": "7",
        "active": "true",
        "name": "logger",
        "filename": "a.log",
        "restart": "mine",
    }


def test_options_that_circus_has_too_count_for_isolated_plugins_only_and_the_prefix_wins() -> None:
    section = {"use": "a.B", "graceful_timeout": "7", "stop_signal": "nonsense"}
    assert PluginSpec.from_options(section).host == HostOptions()
    with pytest.raises(SpecError, match="'stop_signal': 'nonsense' is not a signal"):
        PluginSpec.from_options({**section, "isolate": True})
    section = {"use": "a.B", "isolate": True, "graceful_timeout": "7", "host.graceful_timeout": "8"}
    assert PluginSpec.from_options(section).host.graceful_timeout == 8.0


class Plugin:
    """Stands for a plugin's class."""


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ({"use": "a.B"}, None, "a.B"),
        ({"use": "a.B", "name": "mine"}, None, "mine"),
        ({"use": "a.B", "name": "plugin:mine"}, None, "mine"),
        ({"use": "a.B", "name": "mine"}, "given", "given"),
        ({"use": "a.B", "name": ""}, None, "a.B"),
        ({"use": Plugin}, None, f"{__name__}.Plugin"),
    ],
)
def test_a_plugin_gets_a_name(options: dict[str, Any], name: str | None, expected: str) -> None:
    assert PluginSpec.from_options(options, name=name).name == expected


@pytest.mark.parametrize(
    ("options", "message", "key"),
    [
        ({}, "'use' is missing", "use"),
        ({"use": ""}, "'use' is missing", "use"),
        ({"use": "  "}, "'use' is missing", "use"),
        ({"use": 7}, "must be a dotted name or a class, not 7", "use"),
        ({"use": "a.B", "isolate": "perhaps"}, "'isolate': 'perhaps' is not yes or no", "isolate"),
        ({"use": "a.B", "active": "perhaps"}, "'active': 'perhaps' is not yes or no", "active"),
        ({"use": "a.B", "name": " "}, "a plugin needs a name", "name"),
    ],
)
def test_a_section_that_cannot_be_a_plugin_is_refused(
    options: dict[str, Any], message: str, key: str
) -> None:
    with pytest.raises(SpecError) as caught:
        PluginSpec.from_options(options, where="circus.ini: [plugin:b]")
    assert message in str(caught.value)
    assert str(caught.value).startswith("circus.ini: [plugin:b]: ")
    assert caught.value.key == key


@pytest.mark.parametrize(("value", "active"), [("no", False), (True, True), ("1", True)])
def test_a_plugin_may_be_inactive(value: Any, active: bool) -> None:
    assert PluginSpec.from_options({"use": "a.B", "active": value}).active is active
    assert PluginSpec("b", "a.B").active


def test_a_spec_is_frozen_compares_by_value_and_survives_pickling() -> None:
    options = {"use": "a.B", "isolate": True, "host.env.A": "1", "host.nice": "3", "colour": "red"}
    spec = PluginSpec.from_options(options, where="here")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.config["colour"] = "blue"  # type: ignore[index]
    assert isinstance(spec.host.env, MappingProxyType)
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec
    assert hash(copy) == hash(spec)
    assert (copy.place, spec.place, PluginSpec("b", "a.B").place) == ("here", "here", "plugin 'b'")
    assert spec == PluginSpec.from_options(options, where="elsewhere")
    assert spec != PluginSpec.from_options({**options, "colour": "blue"})


def test_a_class_is_told_as_a_dotted_name() -> None:
    assert PluginSpec("b", Plugin).use_name == f"{__name__}.Plugin"
    assert PluginSpec("b", "a.B").use_name == "a.B"


_KEYS = st.sampled_from(["use", "isolate", "name", "active", "colour", "host.", "host.x"]) | (
    st.sampled_from(sorted(OPTIONS)).map(lambda name: f"host.{name}")
)
_VALUES = (
    st.none()
    | st.text(max_size=5)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.lists(st.integers())
)


@given(options=st.dictionaries(_KEYS, _VALUES))
def test_any_section_is_a_spec_or_a_spec_error(options: dict[str, Any]) -> None:
    try:
        spec = PluginSpec.from_options({"use": "a.B", **options})
    except SpecError:
        return
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("key", ["endpoint", "pubsub_endpoint"])
@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("127.0.0.1:5555", "is no ZMQ endpoint; write tcp://HOST:PORT or ipc://PATH"),
        ("", "is no ZMQ endpoint"),
        ("tcp://", "is no ZMQ endpoint"),
        ("http://localhost:80", "is no ZMQ endpoint"),
        ("tcp://localhost", "needs a host and a port from 1 to 65535"),
        ("tcp://:5555", "needs a host and a port"),
        ("tcp://localhost:http", "needs a host and a port"),
        ("tcp://localhost:65536", "needs a host and a port"),
        ("tcp://localhost:0", "needs a host and a port"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(key: str, endpoint: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        HostConfig(**{key: endpoint})
    assert caught.value.key == key


@pytest.mark.parametrize(
    "endpoint",
    [
        *("tcp://127.0.0.1:5555", "tcp://[::1]:5555", "tcp://h:1", "tcp://h:65535"),
        *("ipc:///tmp/circus.sock", "inproc://x"),
    ],
)
def test_every_kind_of_endpoint_is_accepted(endpoint: str) -> None:
    assert HostConfig(endpoint=endpoint).endpoint == endpoint


def test_the_hosts_numbers_are_read_from_text() -> None:
    config = HostConfig(check_delay="0.5", stop_timeout="3")  # type: ignore[arg-type]
    assert (config.check_delay, config.stop_timeout) == (0.5, 3.0)
    for key in ("check_delay", "stop_timeout"):
        with pytest.raises(SpecError, match=f"'{key}': 'x' is not a number") as caught:
            HostConfig(**{key: "x"})  # type: ignore[arg-type]
        assert caught.value.key == key


def test_names_are_unique_in_a_host() -> None:
    specs = (PluginSpec("a", "a.B"), PluginSpec("a", "a.C", where="circus.ini: [plugin:a]"))
    with pytest.raises(SpecError, match=r"circus.ini: \[plugin:a\]: two plugins are named 'a'"):
        HostConfig(specs)


def test_where_a_configuration_comes_from_makes_no_difference(tmp_path: Path) -> None:
    assert HostConfig(source=str(tmp_path)) == HostConfig()


@pytest.mark.parametrize("key", ["uid", "gid", "working_dir", "copy_env", "rlimit_nofile"])
def test_what_circus_does_for_a_plugins_process_is_done_or_refused(key: str) -> None:
    value = {"uid": "0", "gid": "0", "working_dir": "/", "copy_env": "yes"}.get(key, "64")
    options = {"use": "a.B", key: value}
    with pytest.raises(SpecError, match=rf"'{key}' is for a process .* add 'isolate = true'"):
        PluginSpec.from_options(options)
    host = PluginSpec.from_options({**options, "isolate": "true"}).host
    done = host.rlimits.get("nofile") if key == "rlimit_nofile" else getattr(host, key)
    assert done == {"uid": 0, "gid": 0, "working_dir": "/", "copy_env": True}.get(key, 64)


@pytest.mark.parametrize("value", ["restart", "RESTART", " Restart "])
def test_a_thread_cannot_be_killed_for_a_stall_however_that_is_written(value: str) -> None:
    with pytest.raises(SpecError, match="needs a process of its own"):
        PluginSpec.from_options({"use": "a.B", "host.on_stall": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("switch_interval", 0),
        ("exit_when_done", "perhaps"),
        ("log_format", "xml"),
        ("stop_timeout", -1),
        ("check_delay", 10**400),
        ("circusd_timeout", "soon"),
        ("python_path", "/no/such"),
        ("control", "yes"),
        ("control_pubsub", "yes"),
        ("door", "perhaps"),
    ],
)
def test_a_value_of_the_host_that_does_not_fit_is_refused(key: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"'{key}': "):
        HostConfig(**{key: value})
