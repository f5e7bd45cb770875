# What the tests of circus.ini files share: what is wrong with a file, and which plugins it has.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circusplug._config.ini_file import load
from circusplug._config.specs import HostConfig
from circusplug._errors import ConfigError

Config = Callable[..., dict[str, Any]]


def problems(path: Path | str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def names(host: HostConfig) -> list[str]:
    return [spec.name for spec in host.plugins]
