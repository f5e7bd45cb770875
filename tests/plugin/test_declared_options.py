# Plugins that declare options, as a host runs them: what they get, what their failure says, and
# what single watchers have of their own.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from fixture_types import Run
from patience import PATIENCE

from circusplug import (
    Arbiter,
    CallTimeout,
    CircusPlugin,
    ConfigError,
    PluginSpec,
    SpecError,
)
from circusplug._plugin.load import load_problems, watcher_problems
from circusplug.options import Seconds, declare, option
from circusplug.testing import FakeCircusd, RunningPlugin


@dataclass(frozen=True)
class LimitOptions:
    most: int = option(3, minimum=1, meaning="how many", per_watcher=True)
    within: Seconds = option(10, meaning="within how long", per_watcher=True)
    place: str = option("", meaning="where")

    def __post_init__(self) -> None:
        if self.most > self.within:
            raise SpecError(f"'most' ({self.most}) is more than 'within'", key="most")


class Limit(CircusPlugin):
    """Notes the options of each watcher that it hears of."""

    name = "limit"
    options = declare(LimitOptions)

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.twice = 2 * self.options.within
        self.seen: list[LimitOptions] = []

    def handle_recv(self, data: tuple[bytes, bytes]) -> None:
        self.seen.append(self.options_for(self.split_data(data)[0]))


@dataclass(frozen=True)
class PlainOptions:
    place: str = option("", meaning="where")


class Plain(CircusPlugin):
    name = "plain"
    options = declare(PlainOptions)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None: ...


class DeafLimit(Limit):
    topics = ("watcher.web.reap",)


def hear(running: RunningPlugin, watcher: str, action: str = "reap") -> LimitOptions:
    """Have the plugin hear of a watcher; returns what it notes."""
    plugin: Any = running.plugin
    before = running.counters.handled
    running.publish(watcher, action)
    running.wait_handled(before + 1)
    noted: LimitOptions = plugin.seen[-1]
    return noted


def asked(circusd: FakeCircusd) -> int:
    return [each.command for each in circusd.commands].count("options")


def test_the_constructor_has_them_typed(run_plugin: Run) -> None:
    plugin = run_plugin(Limit, within="1 min", most="7").plugin
    assert plugin.options == LimitOptions(most=7, within=60.0, place="")
    assert plugin.twice == 120.0
    assert plugin.config == {"within": "1 min", "most": "7"}


def test_a_plugin_made_by_hand_is_refused_in_the_same_words() -> None:
    with pytest.raises(SpecError, match=r"^'most': '0' is less than 1; there is no option 'x'"):
        Limit(most="0", x="")


def test_a_class_without_a_declaration_has_its_options_free(run_plugin: Run) -> None:
    class Free(CircusPlugin):
        def handle_recv(self, data: tuple[bytes, bytes]) -> None: ...

    plugin = run_plugin(Free, anything="goes").plugin
    assert plugin.config["anything"] == "goes"
    assert not hasattr(plugin, "options")


@pytest.mark.parametrize("isolate", [False, True])
def test_a_start_tells_every_problem_in_one_line(
    isolate: bool, fake_circusd: FakeCircusd, caplog: pytest.LogCaptureFixture
) -> None:
    spec = {"use": Limit, "name": "it", "most": "0", "x": "", "isolate": isolate}
    with Arbiter([spec], fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as arbiter:
        arbiter.wait(lambda plugins: plugins["it"].state == "failed")
        assert arbiter.plugins["it"].last_error == (
            "plugin 'it': 'most': '0' is less than 1; there is no option 'x'; there are most, "
            "within, place"
        )
        assert arbiter.plugins["it"].counters.restarts == 0
    assert "'most': '0' is less than 1; there is no option 'x'" in caplog.text


def test_each_problem_is_a_line_for_a_check_and_for_a_change() -> None:
    spec = PluginSpec("it", Limit, {"most": "0", "x": ""}, where="c.ini: [plugin:it]")
    assert load_problems(spec) == [
        "c.ini: [plugin:it]: 'most': '0' is less than 1",
        "c.ini: [plugin:it]: there is no option 'x'; there are most, within, place",
    ]


@pytest.mark.parametrize("isolate", [False, True])
def test_a_change_is_refused_with_every_problem(isolate: bool, fake_circusd: FakeCircusd) -> None:
    spec = {"use": Limit, "name": "it", "most": "0", "x": "", "isolate": isolate}
    with (
        Arbiter([Limit], fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as arbiter,
        pytest.raises(ConfigError) as caught,
    ):
        arbiter.add_plugin(spec)
    told = [
        "plugin 'it': 'most': '0' is less than 1",
        "plugin 'it': there is no option 'x'; there are most, within, place",
    ]
    # What comes from a process is one line.
    assert caught.value.problems == (("; ".join(told),) if isolate else tuple(told))


# Options of single watchers.


def test_a_watcher_s_own_options_go_before_the_plugin_s(
    fake_circusd: FakeCircusd, run_plugin: Run
) -> None:
    fake_circusd.add_watcher("My App", **{"limit.within": "1 min"})
    running = run_plugin(Limit, most=4)
    assert hear(running, "My App") == LimitOptions(most=4, within=60.0, place="")
    assert hear(running, "unknown") == running.plugin.options


def test_circusd_is_asked_once_until_the_watcher_changes(
    fake_circusd: FakeCircusd, run_plugin: Run
) -> None:
    fake_circusd.add_watcher("web", **{"limit.most": "1"})
    fake_circusd.add_watcher("other", **{"limit.most": "2"})
    running = run_plugin(Limit)
    for _ in range(3):
        assert (hear(running, "web").most, hear(running, "other").most) == (1, 2)
    assert asked(fake_circusd) == 2
    fake_circusd.reply("options", {"options": {"limit.most": "5"}})
    assert hear(running, "web", "updated").most == 5
    assert hear(running, "other").most == 2
    assert asked(fake_circusd) == 3


def test_an_answer_that_is_older_than_a_change_is_not_kept(
    fake_circusd: FakeCircusd, run_plugin: Run
) -> None:
    fake_circusd.add_watcher("web", **{"limit.most": "1"})
    running = run_plugin(Limit)
    plugin: Any = running.plugin
    hear(running, "other")  # from now on it looks at topics
    held = fake_circusd.hold("options", count=1)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(plugin.options_for, "web")
        held.wait(timeout=PATIENCE)
        fake_circusd.reply("options", {"options": {"limit.most": "5"}})
        assert hear(running, "web", "updated").most == 5
        held.release()
        assert late.result(PATIENCE).most == 1
    assert hear(running, "web").most == 5


@pytest.mark.circusd_leaves
def test_it_is_asked_again_when_it_came_back(fake_circusd: FakeCircusd, run_plugin: Run) -> None:
    fake_circusd.add_watcher("web", **{"limit.most": "1"})
    running = run_plugin(Limit)
    assert hear(running, "web").most == 1
    fake_circusd.restart()
    running.wait(lambda status: status.counters.reconnects == 1)
    fake_circusd.wait_subscribed()
    fake_circusd.reply("options", {"options": {"limit.most": "5"}})
    assert hear(running, "web").most == 5


def test_a_plugin_that_does_not_hear_of_changes_asks_each_time(
    fake_circusd: FakeCircusd, run_plugin: Run
) -> None:
    fake_circusd.add_watcher("web", **{"limit.most": "1"})
    running = run_plugin(DeafLimit)
    assert hear(running, "web").most == 1
    fake_circusd.reply("options", {"options": {"limit.most": "5"}})
    assert hear(running, "web").most == 5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"limit.most": "few"}, "'limit.most': 'few' is not a whole number"),
        ({"limit.mst": "1"}, "there is no option 'limit.mst' (did you mean 'limit.most'?)"),
        ({"limit.place": "x"}, "'limit.place' is the same for all watchers; it goes to the plugin"),
        ({"limit.within": "1"}, "'most' (3) is more than 'within'"),
    ],
)
def test_what_does_not_fit_is_logged_once_and_the_plugin_s_own_counts(
    given: dict[str, str],
    told: str,
    fake_circusd: FakeCircusd,
    run_plugin: Run,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_circusd.add_watcher("My App", **given)
    running = run_plugin(Limit)
    for action in ("reap", "updated", "reap"):
        assert hear(running, "My App", action) == running.plugin.options
    said = [each.getMessage() for each in caplog.records if "own value counts" in each.getMessage()]
    assert said == [f"watcher My App: {told}; the plugin's own value counts"]


def test_what_fits_counts_beside_what_does_not(fake_circusd: FakeCircusd, run_plugin: Run) -> None:
    fake_circusd.add_watcher("web", **{"limit.most": "few", "limit.within": "1 min"})
    assert hear(run_plugin(Limit), "web") == LimitOptions(most=3, within=60.0, place="")


def test_a_circusd_that_does_not_answer_is_told_and_asked_again(
    fake_circusd: FakeCircusd, run_plugin: Run, caplog: pytest.LogCaptureFixture
) -> None:
    class Hasty(Limit):
        def call(self, command: str, **props: Any) -> Any:
            if command == "options" and not self.seen:
                raise CallTimeout(command, props, 5.0)
            return super().call(command, **props)

    fake_circusd.add_watcher("web", **{"limit.most": "1"})
    running = run_plugin(Hasty)
    assert hear(running, "web").most == 3
    assert "the options of web are not known, so the plugin's own count" in caplog.text
    assert hear(running, "web").most == 1


def test_watchers_sections_can_be_checked_beforehand() -> None:
    given = [("c.ini:3: [watcher:w]", "limit.most", "0"), ("c.ini:4: [watcher:w]", "other.x", "1")]
    spec = PluginSpec("it", Limit)
    assert watcher_problems(spec, given) == [
        "c.ini:3: [watcher:w]: 'limit.most': '0' is less than 1"
    ]
    assert watcher_problems(PluginSpec("it", "no.Such"), given) == []
    # What it would read there: by the name that it inherits, and nothing if it reads nothing there.
    assert len(watcher_problems(PluginSpec("it", DeafLimit), given)) == 1
    assert watcher_problems(PluginSpec("it", Plain), [("c.ini:3", "plain.place", "x")]) == []
