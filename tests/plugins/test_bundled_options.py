# Options of the bundled plugins: which are refused, and in which words.

from __future__ import annotations

from typing import Any

import pytest
from bundled import Journal
from fixture_types import Run

from circusplug import Arbiter, CircusPlugin, SpecError
from circusplug.plugins import Alert, LoadScaler, Logger
from circusplug.testing import FakeCircusd


class TestOptions:
    @pytest.mark.parametrize(
        ("plugin", "options", "message"),
        [
            (Logger, {"format": "xml"}, "'format': 'xml' is none of text, json, logfmt"),
            (
                Logger,
                {"filename": "/nowhere/events.log"},
                "'filename': [Errno 2] No such file or directory: '/nowhere/events.log'",
            ),
            (Alert, {"attempts": "few"}, "'attempts': 'few' is not a whole number"),
            (Alert, {"attempts": 2.5}, "'attempts': 2.5 is not a whole number"),
            (Alert, {"attempts": "0"}, "'attempts': '0' is less than 1"),
            (
                Alert,
                {"window": "1 century"},
                "'window': '1 century' is not a number of seconds; write 90, 1.5 min or 2h",
            ),
            (
                Alert,
                {"window": "nan"},
                "'window': 'nan' is not a number of seconds of 0 or more",
            ),
            (Alert, {"deadline": 0}, "'deadline': 0 must be more than 0"),
            (
                Alert,
                {"what": "crash, crahs"},
                "'what': 'crahs' is none of crash, flapping, gave_up, start_failed, hook_failed, "
                "plugin_failed (did you mean 'crash'?)",
            ),
            (
                Alert,
                {"command": "mail 'ops"},
                "'command': \"mail 'ops\" cannot be split into arguments: No closing quotation",
            ),
            (
                Alert,
                {"command": "no-such-program -x"},
                "'command': there is no program 'no-such-program' here",
            ),
            (
                Alert,
                {"watchers": 3},
                "'watchers': 3 is not names, separated by commas",
            ),
            (
                Alert,
                {"attempts": "0", "quite": "9", "window": "-1"},
                "'attempts': '0' is less than 1; 'window': '-1' is not a number of seconds of 0 or "
                "more; there is no option 'quite' (did you mean 'quiet'?)",
            ),
            (Alert, {"smtp_port": "70000"}, "'smtp_port': '70000' is more than 65535"),
            (LoadScaler, {}, "'watcher' is missing; give the name of the watcher to scale"),
            (
                LoadScaler,
                {"watcher": "web", "min_processes": "4", "max_processes": "3"},
                "'min_processes' (4) is more than 'max_processes' (3)",
            ),
            (
                LoadScaler,
                {"watcher": "web", "up_above": "8%0"},
                "'up_above': '8%0' is not a number of percent",
            ),
            (
                LoadScaler,
                {"watcher": "web", "up_above": " 10 %"},
                "'down_below' (20) must be less than 'up_above' (10)",
            ),
            (
                LoadScaler,
                {"watcher": "web", "up_above": "20"},
                "'down_below' (20) must be less than 'up_above' (20)",
            ),
        ],
    )
    def test_a_value_that_does_not_fit_is_told_in_one_line_without_a_traceback(
        self,
        plugin: type[CircusPlugin],
        options: dict[str, Any],
        message: str,
        fake_circusd: FakeCircusd,
        journal: Journal,
    ) -> None:
        spec = {"use": plugin, "name": "it", "host.restart": "never", **options}
        with Arbiter([spec], fake_circusd.endpoint, fake_circusd.pubsub_endpoint) as arbiter:
            arbiter.wait(lambda plugins: plugins["it"].state == "failed")
            assert (arbiter.plugins["it"].last_error or "").endswith(message)
        record = journal.wait(message)
        assert record.exc_info is None
        assert "\n" not in record.getMessage()

    def test_the_error_names_the_option_for_programs_too(self, run_plugin: Run) -> None:
        with pytest.raises(SpecError) as caught:
            run_plugin(Alert, quiet="long")
        assert caught.value.key == "quiet"

    @pytest.mark.parametrize("plugin", [Logger, Alert, LoadScaler])
    def test_an_option_that_there_is_not_is_refused(self, plugin: type[CircusPlugin]) -> None:
        circus = {"use_sockets": "true", "rlimit_core": "1", "stdout_stream.class": "x"}
        config = {"watcher": "web"} if plugin is LoadScaler else {}
        plugin.check_config({**config, **circus})
        with pytest.raises(SpecError) as caught:
            plugin.check_config({**config, **circus, "colour": "red", "x y": ""})
        first, second = map(str, caught.value.problems)
        assert first.startswith("there is no option 'colour'; there are ")
        assert second == "there is no option 'x y'"

    def test_one_that_looks_misspelt_is_refused_with_a_guess(self) -> None:
        with pytest.raises(SpecError) as caught:
            Alert.check_config({"windw": "3"})
        assert str(caught.value) == "there is no option 'windw' (did you mean 'window'?)"

    def test_options_may_be_text_or_typed(self, run_plugin: Run) -> None:
        text = run_plugin(LoadScaler, name="a", watcher="web", max_processes="9", period="7").plugin
        typed = run_plugin(LoadScaler, name="b", watcher="web", max_processes=9, period=7.0).plugin
        assert text.options == typed.options
        assert (text.options.max_processes, text.options.period) == (9, 7.0)
