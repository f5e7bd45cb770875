# Whatever file can be loaded can be migrated, and comes back: files made up by hypothesis.

from __future__ import annotations

import os

import pytest
from circus.config import get_config
from hypothesis import given, settings
from hypothesis import strategies as st

from circusplug._config.ini_file import load
from circusplug._errors import ConfigError
from circusplug._migrate.plan import apply, plan
from circusplug._migrate.undo import undo

EXAMPLES = int(os.environ.get("CIRCUSPLUG_EXAMPLES", "60"))

# Circus warns of a fruitless include by a logger method that is deprecated itself.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")

line = st.sampled_from(
    [
        *("", "", "  ", "# comment", "; x", "rem", "a = 1", "b: $(circus.env.X)", "  more"),
        *("[plugin:q]", "[plugin:p]", "[env]", "X = y", "[watcher:w]", "cmd = z", "[circusplug]"),
        *("host.max_errors = 3", "[DEFAULT]", "[circus]", "check_delay = 7", "[other]"),
    ]
)


@settings(max_examples=EXAMPLES)
@given(
    lines=st.lists(line, max_size=25), ending=st.sampled_from(["\n", "\r\n"]), last=st.booleans()
)
def test_whatever_loads_can_be_migrated_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ending: str, last: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any" / "circus.ini"
    path.parent.mkdir(exist_ok=True)
    start = [f"[plugin:{name}]{ending}use = a.B" for name in "pq"]
    content = ending.join([*start, *lines, ""] if last else [*start, *lines]).encode()
    path.write_bytes(content)
    try:
        before = load(path)
    except ConfigError:
        with pytest.raises(ConfigError):
            plan(path)
        return
    others = get_config(str(path))
    apply(plan(path))
    assert load(path.parent / "plugins.ini").plugins == before.plugins
    after = get_config(str(path))
    assert {**after, "plugins": []} == {**others, "plugins": []}
    undo(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["circus.ini"]
