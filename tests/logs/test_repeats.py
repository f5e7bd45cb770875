# The same exception again and again: in full once, then as a count.

from __future__ import annotations

import logging

import pytest

from circusplug._logging.repeats import FULL_AGAIN, REMEMBERED, is_milestone
from circusplug._logs import Repeats

LOGGER = logging.getLogger("circusplug.plugin.failing")


class Log:
    """A plugin's exceptions, by a clock of the test's."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now = 0.0
        self.repeats = Repeats(lambda: self.now)
        self._caplog = caplog

    def fail(self, error: BaseException, what: str = "handle_recv") -> list[tuple[str, bool]]:
        """Log an exception; returns what was said, and whether with the traceback."""
        self._caplog.clear()
        self.repeats.log_exception(LOGGER, what, error)
        return [(each.getMessage(), each.exc_info is not None) for each in self._caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    logging.getLogger().addHandler(caplog.handler)
    return Log(caplog)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def raised_elsewhere(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_the_distances_grow_tenfold() -> None:
    assert [count for count in range(1, 2000) if is_milestone(count)] == [1, 10, 100, 1000]


def test_a_flood_of_one_exception_is_a_traceback_and_a_few_counts(log: Log) -> None:
    said = [each for number in range(20_000) for each in log.fail(raised(ValueError(str(number))))]
    assert said == [
        ("handle_recv failed: ValueError: 0", True),
        ("handle_recv failed 10 times so far, as above: ValueError: 9", False),
        ("handle_recv failed 100 times so far, as above: ValueError: 99", False),
        ("handle_recv failed 1000 times so far, as above: ValueError: 999", False),
        ("handle_recv failed 10000 times so far, as above: ValueError: 9999", False),
    ]


def test_a_warning_again_and_again_is_told_with_counts_whatever_its_text(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(150):
        log.repeats.log_warning(LOGGER, "lost", "lost %s", number)
    log.repeats.log_warning(LOGGER, "other", "another")
    assert caplog.messages == [
        "lost 0",
        "lost 9 (10 times so far)",
        "lost 99 (100 times so far)",
        "another",
    ]
    log.now = FULL_AGAIN
    log.repeats.log_warning(LOGGER, "lost", "lost %s", 150)
    assert caplog.messages[-1] == "lost 150 (151 times so far)"
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_another_type_place_or_handler_is_another_exception(log: Log) -> None:
    assert log.fail(raised(ValueError()))
    assert not log.fail(raised(ValueError()))
    assert log.fail(raised(TypeError()))
    assert log.fail(raised_elsewhere(ValueError()))
    assert log.fail(raised(ValueError()), "handle_stop")
    assert not log.fail(raised(ValueError()))


def test_the_place_is_the_plugins_not_the_librarys(log: Log) -> None:
    def parse(text: str) -> BaseException:
        import json

        try:
            json.loads(text)
        except ValueError as error:
            return error
        raise AssertionError

    def parse_too(text: str) -> BaseException:
        import json

        try:
            json.loads(text)
        except ValueError as error:
            return error
        raise AssertionError

    assert log.fail(parse("{"))
    assert log.fail(parse_too("{"))
    assert not log.fail(parse("{"))


def test_one_that_goes_on_is_told_in_full_again_after_an_hour(log: Log) -> None:
    log.fail(raised(ValueError()))
    log.now = FULL_AGAIN - 0.1
    assert not log.fail(raised(ValueError()))
    log.now = FULL_AGAIN
    assert log.fail(raised(ValueError())) == [
        ("handle_recv failed (3 times so far): ValueError", True)
    ]
    log.now += FULL_AGAIN - 0.1
    assert not log.fail(raised(ValueError()))


def test_a_count_puts_off_the_next_one_in_full(log: Log) -> None:
    for _ in range(9):
        log.fail(raised(ValueError()))
    log.now = FULL_AGAIN - 0.1
    assert not log.fail(raised(ValueError()))[0][1]
    log.now += 1.0
    assert not log.fail(raised(ValueError()))


def test_so_many_different_ones_are_remembered_and_the_oldest_is_forgotten(log: Log) -> None:
    for number in range(REMEMBERED + 1):
        if number == REMEMBERED:
            assert not log.fail(raised(ValueError()), "0")
        log.fail(raised(ValueError()), str(number))
    assert len(log.repeats._seen) == REMEMBERED
    assert not log.fail(raised(ValueError()), "0")
    assert log.fail(raised(ValueError()), "1")


def test_an_exception_that_cannot_be_shown_or_was_never_raised_is_logged(log: Log) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert log.fail(Mute()) == [
        ("handle_recv failed: Mute (its text cannot be shown: SystemExit)", True)
    ]


def test_a_warning_that_comes_again_and_again_is_told_at_growing_distances(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 2000):
        log.repeats.log_warning(LOGGER, "cast list", "cast failed: %s", number)
    log.repeats.log_warning(LOGGER, "cast stop", "cast failed: %s", "another")
    assert caplog.messages == [
        "cast failed: 1",
        "cast failed: 10 (10 times so far)",
        "cast failed: 100 (100 times so far)",
        "cast failed: 1000 (1000 times so far)",
        "cast failed: another",
    ]
