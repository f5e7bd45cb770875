# What circusd gets of a circus.ini: `without_plugins` leaves out what is the host's.

from __future__ import annotations

import textwrap

import pytest
from fixture_types import Write

from circusplug._config.ini_for_circusd import without_plugins
from circusplug._errors import ConfigError


def test_without_plugins_the_rest_is_left_as_it_was(write: Write) -> None:
    write("# more\n[watcher:b]\ncmd = b\n[plugin:q]\nuse = c.D\n[circusplug]\nx = 1", "extra.ini")
    path = write(
        """
        # main
        [circus]
        include = extra.ini
          none.ini
        # still here
        endpoint: tcp://1.2.3.4:5
        include_dir = none
        [plugin:p]
        # gone
        use = a.B
          more
        [watcher:a]
        cmd = a ; "comment"
        env = x = y
        """
    )
    assert without_plugins(path) == textwrap.dedent(
        """\
        # main
        [circus]
        # still here
        endpoint: tcp://1.2.3.4:5
        [watcher:a]
        cmd = a ; "comment"
        env = x = y
        # more
        [watcher:b]
        cmd = b
        """
    )


def test_without_plugins_line_endings_stay(write: Write) -> None:
    write("[a]\rb = 1", "extra.ini")
    path = write("[circus]\r\ninclude = extra.ini\r\n[plugin:p]\r\nuse = a.B\r\n[x]\r\ny = z")
    assert without_plugins(path) == "[circus]\r\n[x]\r\ny = z\n[a]\rb = 1\n"


def test_without_plugins_takes_no_include_that_only_an_include_asks_for(write: Write) -> None:
    write("[circus]\ninclude = third.ini\nloglevel = error", "extra.ini")
    assert without_plugins(write("[circus]\ninclude = extra.ini")) == (
        "[circus]\n[circus]\nloglevel = error\n"
    )


def test_without_plugins_plugins_may_be_wrong_but_lines_must_not(write: Write) -> None:
    assert without_plugins(write("[plugin:p]\nhost.x = y")) == ""
    with pytest.raises(ConfigError, match=r"circus\.ini:2: \[x\]: 'nothing' is no option"):
        without_plugins(write("[x]\nnothing"))
