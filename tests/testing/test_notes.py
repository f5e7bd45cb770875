# What is noted of a plugin for people, and that nothing of it stays.

from __future__ import annotations

import logging
from typing import Any

from circusplug import _logs
from circusplug.testing import Command, Deed
from circusplug.testing._notes import Notes


def made() -> tuple[Notes, list[Deed], list[float]]:
    deeds: list[Deed] = []
    now = [0.0]
    return Notes(lambda: now[0], deeds.append), deeds, now


def test_only_what_this_plugin_logs_is_heard_and_its_logger_is_as_before() -> None:
    notes, deeds, _ = made()
    logger = logging.getLogger("circusplug.plugin.noted")
    logger.setLevel(logging.ERROR)
    before = [*_logs.logger.handlers]
    with notes.listening("noted"):
        assert not logger.propagate
        logger.info("one")
        logger.warning("two", extra={"alert": {}})
        logging.getLogger("circusplug.plugin.other").error("not this")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logger.exception("told of by take_error")
    assert (logger.propagate, logger.level, logger.handlers) == (True, logging.ERROR, [])
    assert _logs.logger.handlers == before
    logger.setLevel(logging.NOTSET)
    notes.flush()
    noted = [(deed.kind, deed.text, deed.facts["level"]) for deed in deeds]
    assert noted == [("alert", "two", "warning"), ("log", "one", "info")]


def test_questions_are_no_deeds_in_any_case_of_letters() -> None:
    notes, deeds, _ = made()
    for command in ("list", "LIST", "Status", "INCR"):
        notes.take_command(Command(command, {"name": "web"}, cast=True))
    notes.flush()
    assert [deed.text for deed in deeds] == ["INCR name='web' (cast)"]


def test_what_is_done_at_one_moment_is_in_the_same_order_each_time() -> None:
    notes, deeds, now = made()
    for now[0] in (2.0, 1.0):
        notes.add("log", "a line")
        notes.take_reading("a reading")
        notes.take_error(ZeroDivisionError("an error"))
        notes.take_command(Command("incr"))
        notes.take_event(b"watcher.\xff.spawn", b"\xff")
    notes.flush()
    notes.flush()
    kinds = ["event", "command", "error", "clock", "log"]
    assert [(deed.at, deed.kind) for deed in deeds] == [
        (moment, kind) for moment in (1.0, 2.0) for kind in kinds
    ]
    assert deeds[0].text == "watcher.\ufffd.spawn \ufffd"


def test_an_error_is_told_from_where_the_plugin_s_code_begins() -> None:
    notes, deeds, _ = made()
    ours: dict[str, Any] = {"__name__": "circusplug._loop.anything"}
    exec(compile("def call(function): function()", "<ours>", "exec"), ours)

    def fail() -> None:
        raise ZeroDivisionError("in the plugin")

    try:
        ours["call"](lambda: ours["call"](fail))
    except ZeroDivisionError as error:
        traceback: Any = error.__traceback__
        notes.take_error(error.with_traceback(traceback.tb_next))  # without the test itself
    notes.flush()
    (deed,) = deeds
    assert deed.text == "ZeroDivisionError: in the plugin"
    assert deed.facts["where"].startswith(f"{__file__}:")
    assert deed.facts["where"].endswith("in fail")
    lines = deed.facts["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert __file__ in lines[1]
    assert "in <lambda>" in lines[1]
