# The language of scripts about a fleet: one sentence a line, from text to `Lives`.
#
# Owner: none, it holds nothing.

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circusplug._config import values
from circusplug._errors import SpecError

from ._life import Span
from ._lives import Happening, Lives, Plan
from ._model import DEFAULT_OPTIONS

_COMMENT = re.compile(r"(^|\s)#.*")
_QUOTED = re.compile(r"\"([^\"]+)\"\s+(.*)")
_MOMENT = re.compile(r"(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-5][0-9])")
_SPAN = r"(?: from (?P<begin>.+?))?(?: to (?P<end>.+))?"
_WHEN = r"(?P<when>every|at) (?P<time>.+)"

#: Options that are a watcher's, but not among those that circusd lists.
_UNLISTED: Mapping[str, Any] = {"autostart": True}

#: How much of a line is repeated.
_LONGEST = 100

Groups = Mapping[str, Any]


@dataclass(frozen=True)
class _Verb:
    """A verb of the language.

    Attributes:
        forms: What may follow it.
        fits: The same for people.
        read: Takes what was found, and writes it into a watcher's plan; or returns what happens.
    """

    forms: tuple[str, ...]
    fits: str
    read: Callable[[Plan, str, Groups], Happening | None]


def load_script(script: str | Path, known: Iterable[str] = ()) -> Lives:
    """Read a script: text, or the file of a path; see `parse_script`."""
    if isinstance(script, str):
        if len(script.split()) == 1:
            raise SpecError(f"{_short(script)!r} is no sentence; give a file as a pathlib.Path")
        return parse_script(script, known=known)
    try:
        return parse_script(script.read_text(encoding="utf-8"), str(script), known)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read: {error}", where=str(script)) from None


def parse_script(text: str, source: str = "script", known: Iterable[str] = ()) -> Lives:
    """Read a script of watchers' lives.

    Args:
        text: One sentence a line; ``#`` begins a comment.
        source: What to call it in an error, such as its file.
        known: The names of the watchers that are there without it.

    Raises:
        SpecError: A line makes no sense; it says which, what, and what would fit.
    """
    lives, spoken_of = Lives(), {name.lower() for name in known}
    first: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        sentence = _COMMENT.sub("", line).strip()
        if not sentence:
            continue
        try:
            name, verb, rest = _split(sentence)
            key = name.lower()
            if key == "circusd":
                happening = _read(_OF_CIRCUSD, Plan(name), verb, rest)
            else:
                first.setdefault(key, number)
                spoken_of |= {key} if verb == "has" else set()
                happening = _read(_VERBS, lives.plans.setdefault(key, Plan(name)), verb, rest)
            if happening is not None:
                lives.happenings.append((key, happening))
        except ValueError as error:
            raise SpecError(str(error), where=f"{source}, line {number}") from None
    for name, number in first.items():
        if name not in spoken_of:
            hint = values.did_you_mean(name, spoken_of)
            raise SpecError(
                f"there is no watcher {name!r}{hint}; a line '{name} has 1 process' makes one",
                where=f"{source}, line {number}",
            )
    return lives


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _split(sentence: str) -> tuple[str, str, str]:
    """Part a sentence into the subject, the verb and the rest."""
    quoted = _QUOTED.fullmatch(sentence)
    words = [quoted[1], *quoted[2].split()] if quoted else sentence.split()
    for place, word in enumerate(words[1:], 1):
        if word.lower() in _VERBS:
            return " ".join(words[:place]), word.lower(), " ".join(words[place + 1 :])
        if quoted:
            break
    hints = (values.did_you_mean(word.lower(), _VERBS) for word in words[1:])
    hint = next(filter(None, hints), "")
    raise ValueError(
        f"{_short(sentence)!r} has no verb{hint}; write WATCHER and one of {', '.join(_VERBS)}"
    )


def _read(verbs: Mapping[str, _Verb], plan: Plan, verb: str, rest: str) -> Happening | None:
    if verb not in verbs:
        raise ValueError(f"'circusd {verb}' makes no sense; circusd starts, stops or restarts")
    known = verbs[verb]
    for form in known.forms:
        found = re.fullmatch(form, rest, re.IGNORECASE)
        if found:
            return known.read(plan, verb, found.groupdict())
    said = f"{verb} {_short(rest)}".rstrip()
    raise ValueError(f"'{said}' makes no sense; write {verb} {known.fits}")


def _has(plan: Plan, _verb: str, found: Groups) -> None:
    if found.get("count") is not None:
        plan.options["numprocesses"] = int(found["count"])
        return
    key, text = found["key"], found["value"]
    listed = {**DEFAULT_OPTIONS, **_UNLISTED}
    if key not in listed and "." not in key:
        raise ValueError(f"a watcher has no option {key!r}{values.did_you_mean(key, listed)}")
    default = listed.get(key, "")
    try:
        plan.options[key] = _as(default, text)
    except ValueError as error:
        raise ValueError(f"option {key}: {error}") from None


def _as(default: Any, text: str) -> Any:
    """Read a value of the same type as *default*."""
    if isinstance(default, bool):
        return values.to_bool(text)
    if isinstance(default, int):
        return values.integer(0)(text)
    return values.seconds(text) if isinstance(default, float) else text


def _ends(plan: Plan, verb: str, found: Groups) -> Happening | None:
    exit_code = _exit_code(found["code"] or ("1" if verb == "crashes" else "0"))
    if found["when"].lower() == "after":
        plan.life.ends.append((values.positive_seconds(found["time"]), exit_code))
        return None
    return _happening("ends", found, exit_code)


def _leaks(plan: Plan, _verb: str, found: Groups) -> None:
    rate = values.size(found["size"]) / values.positive_seconds(f"1 {found['unit']}")
    plan.life.leaks.append(_span(rate, found))


def _uses(plan: Plan, _verb: str, found: Groups) -> None:
    if found.get("size") is not None:
        plan.life.memory.append(_span(values.size(found["size"]), found))
    else:
        plan.life.cpu.append(_span(values.number(found["share"]), found))


def _takes(plan: Plan, _verb: str, found: Groups) -> None:
    plan.life.stop_seconds = values.seconds(found["time"])


def _fails(plan: Plan, _verb: str, found: Groups) -> None:
    plan.life.failing.append(_span(1, found))


def _commanded(_plan: Plan, verb: str, found: Groups) -> Happening:
    return _happening(verb, found)


def _happening(what: str, found: Groups, exit_code: int = 0) -> Happening:
    if found["when"].lower() == "at":
        return Happening(what, _moment(found["time"]), exit_code=exit_code)
    period = values.positive_seconds(found["time"])
    return Happening(what, period, period, exit_code)


def _span(value: float, found: Groups) -> Span:
    begin = _moment(found["begin"]) if found["begin"] else 0.0
    end = _moment(found["end"]) if found["end"] else float("inf")
    if end <= begin:
        raise ValueError(f"{found['end']} is not after {found['begin'] or 'the beginning'}")
    return Span(value, begin, end)


def _moment(text: str) -> float:
    """A moment, in seconds since the beginning: 0:45, 2:00:00 or 90 s."""
    found = _MOMENT.fullmatch(text)
    if found:
        return float(int(found[1] or 0) * 3600 + int(found[2]) * 60 + int(found[3]))
    try:
        return values.seconds(text)
    except ValueError:
        raise ValueError(f"{text!r} is no moment; write 0:45, 2:00:00 or 90 s") from None


def _exit_code(text: str) -> int:
    """An exit code as circusd tells it: of a signal by name its number, less than 0."""
    if text.isdecimal():
        return values.integer(0, 255)(text)
    try:
        return -values.signal_number(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither an exit code nor a signal") from None


_COMMANDED = _Verb((_WHEN,), "at MOMENT, or every TIME", _commanded)
_ENDING = _Verb(
    (r"(?:with (?P<code>\S+) )?(?P<when>every|at|after) (?P<time>.+)",),
    "[with CODE or SIGNAL], then every TIME, at MOMENT, or after AGE",
    _ends,
)
_OF_CIRCUSD = dict.fromkeys(("starts", "stops", "restarts"), _COMMANDED)
_VERBS = {
    "has": _Verb(
        (r"(?P<count>[0-9]{1,5}) process(?:es)?", r"(?P<key>\S+) (?P<value>.+)"),
        "NUMBER processes, or OPTION VALUE",
        _has,
    ),
    "crashes": _ENDING,
    "exits": _ENDING,
    "leaks": _Verb(
        (rf"(?P<size>[^/]+?) ?/ ?(?P<unit>[a-z]+){_SPAN}",),
        "SIZE/TIME, 5 MB/min for instance [from MOMENT] [to MOMENT]",
        _leaks,
    ),
    "uses": _Verb(
        (rf"(?P<share>[0-9.]+) ?% ?cpu{_SPAN}", rf"(?P<size>[0-9]+ ?[a-z]+){_SPAN}"),
        "NUMBER % CPU, or SIZE [from MOMENT] [to MOMENT]",
        _uses,
    ),
    "takes": _Verb((r"(?P<time>.+) to stop",), "TIME to stop", _takes),
    "fails": _Verb((rf"to start{_SPAN}",), "to start [from MOMENT] [to MOMENT]", _fails),
    "reloads": _COMMANDED,
    **_OF_CIRCUSD,
}
