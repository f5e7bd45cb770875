# Declaring options: what a dataclass has to be like, and what is read by it.

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from circus.config import watcher_defaults
from circus.watcher import Watcher

from circusplug import CircusPlugin, SpecError
from circusplug._config.declared import declared_by
from circusplug._secrets import masked
from circusplug.options import Names, Seconds, Secret, declare, option

#: What Circus hands a watcher besides what its section says.
_INNER = {"loop", "options", "prereload_fn"}


@dataclass(frozen=True)
class ProbeOptions:
    period: Seconds = option("1.5 min", above=0, meaning="how often to look")
    url: str = option(meaning="what to fetch")
    form: Literal["text", "json"] = option("text", meaning="how")
    limit: int | None = option(None, minimum=1, meaning="how many")
    tags: Names = option("a, b", meaning="what it is about")
    dial_in: Secret = option("", meaning="how to get in")

    def __post_init__(self) -> None:
        if self.limit == 13:
            raise SpecError("'limit' (13) does not go with 'url'", key="limit")


class Probe(CircusPlugin):
    options = declare(ProbeOptions)

    def handle_recv(self, data: tuple[bytes, bytes]) -> None: ...


def read(**config: Any) -> ProbeOptions:
    declared = declared_by(Probe)
    assert declared is not None
    found: ProbeOptions = declared.read(config)
    return found


def problems(**config: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(**config)
    return [str(problem) for problem in caught.value.problems]


def test_what_is_not_given_has_its_default_typed() -> None:
    assert read(url="x") == ProbeOptions(period=90.0, url="x", tags=("a", "b"), dial_in="")
    assert read(url="x", limit="", tags=None).limit is None


def test_the_object_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(url="x").url = "y"  # type: ignore[misc]


def test_every_problem_is_found_at_once() -> None:
    assert problems(period="0", form="xml", limt="3", colour="red", size="x") == [
        "'period': '0' must be more than 0",
        "'url' is missing; give what to fetch",
        "'form': 'xml' is none of text, json",
        "there is no option 'limt' (did you mean 'limit'?)",
        "there is no option 'colour'; there are period, url, form, limit, tags, dial_in",
        "there is no option 'size'",
    ]


def test_several_problems_are_one_error_of_one_line() -> None:
    with pytest.raises(SpecError) as caught:
        read(period="0", url=" ")
    placed = SpecError.of([caught.value], "x.ini: [plugin:a]")
    assert str(placed) == (
        "x.ini: [plugin:a]: 'period': '0' must be more than 0; 'url' is missing; give what to fetch"
    )
    assert [problem.where for problem in placed.problems] == ["x.ini: [plugin:a]"] * 2
    assert [problem.key for problem in placed.problems] == ["period", "url"]
    assert placed.key == "period"


def test_what_concerns_several_options_is_told_beside_unknown_ones() -> None:
    assert problems(url="x", limit="13", colour="") == [
        "'limit' (13) does not go with 'url'",
        "there is no option 'colour'; there are period, url, form, limit, tags, dial_in",
    ]


def test_what_circusd_or_a_host_reads_in_the_section_is_nobody_s_mistake() -> None:
    keys = ["use", "isolate", "name", "active", "host.restart", "priority", "rlimit_core"]
    keys += ["stdout_stream.class", "stderr_stream.class", "hooks.before_start", "__name__"]
    keys += ["check_flapping"]  # which Circus once had
    known = {*watcher_defaults(), *inspect.signature(Watcher).parameters} - _INNER
    assert read(url="x", **dict.fromkeys([*keys, *known], "1")).url == "x"


def test_only_what_stands_behind_its_name_and_a_dot_is_a_plugin_s_in_a_watcher_s_section() -> None:
    declared = declared_by(Probe)
    assert declared is not None
    given = {"probes.period": "x", "probe_period": "x", "probe": "x", "period": "x"}
    assert declared.read_for_watcher(None, "probe", given) == (None, [])


def test_a_secret_is_shown_nowhere() -> None:
    options = read(url="x", dial_in="hush")
    assert options.dial_in == "hush"
    assert "hush" not in repr(options)
    assert masked({"dial_in": "hush", "probe.dial_in": "hush"}) == {
        "dial_in": "****",
        "probe.dial_in": "****",
    }
    assert problems(url="x", dial_in=["hush"]) == [
        "'dial_in': this is not text, env:NAME or file:PATH"
    ]


def test_a_login_in_a_url_is_not_shown_either() -> None:
    given = {
        "url": "redis://me:hush@host:6379/0",
        "other": "http://host:80/a@b",
        "end": "tcp://a:1",
        "nobody": "redis://:hush@host/0",
        "odd": "amqp://me:hu@sh@host",
    }
    assert masked(given) == {
        **given,
        "url": "redis://****@host:6379/0",
        "nobody": "redis://****@host/0",
        "odd": "amqp://****@host",
    }


def test_a_problem_that_says_where_it_is_keeps_its_place() -> None:
    there, nowhere = SpecError("no", where="there", key="a"), SpecError("nor this")
    joined = SpecError.of([there, nowhere], "here")
    assert [str(problem) for problem in joined.problems] == ["there: no", "here: nor this"]
    assert SpecError.of([there], "here") is there


# A declaration that is wrong.


def frozen(annotation: Any, made: Any, name: str = "it") -> type:
    return dataclass(frozen=True)(
        type("O", (), {"__annotations__": {name: annotation}, name: made})
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: int, "is no dataclass; write @dataclass"),
        (
            lambda: dataclass(type("O", (), {})),
            r"O can be changed; write @dataclass\(frozen=True\)",
        ),
        (lambda: frozen(int, 3), r"O\.it has no meaning; write option\("),
        (lambda: frozen(int, option(3, meaning=" ")), r"O\.it has no meaning"),
        (lambda: frozen(dict, option(meaning="x")), r"O\.it: an option cannot be dict"),
        (lambda: frozen(int, option("few", meaning="x")), "O.it: 'few' is not a whole number"),
        (lambda: frozen(int, option(3, minimum=4, meaning="x")), "O.it: 3 is less than 4"),
        (lambda: frozen(int, option(None, meaning="x")), r"O\.it: None is not a whole number"),
        (
            lambda: frozen(int, option(1, example="many", meaning="x")),
            "O.it: 'it': 'many' is not a whole number",
        ),
        (lambda: frozen(str, option("", maximum=4, meaning="x")), "text: this can have no minimum"),
        *(
            (lambda name=name: frozen(str, option("", meaning="x"), name), f"section has '{name}'")
            for name in ("name", "use", "isolate")
        ),
        (lambda: ProbeOptions(url="x"), "is no dataclass"),
        (lambda: frozen("Nowhere", option("", meaning="x")), "'Nowhere' is not defined; import it"),
    ],
)
def test_a_declaration_that_cannot_be_is_a_type_error(make: Callable[[], type], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        declare(make())


def test_it_has_to_be_called_options() -> None:
    # Python before 3.12 raises a RuntimeError because of it.
    with pytest.raises((TypeError, RuntimeError)) as caught:
        type("P", (CircusPlugin,), {"settings": declare(ProbeOptions)})
    error = caught.value if isinstance(caught.value, TypeError) else caught.value.__cause__
    assert str(error) == "P.settings: write options = declare(ProbeOptions)"


def test_a_subclass_may_declare_more() -> None:
    @dataclass(frozen=True)
    class MoreOptions(ProbeOptions):
        depth: int = option(1, meaning="how deep")

    class Deeper(Probe):
        options = declare(MoreOptions)

    Deeper.check_config({"url": "x", "depth": "2"})
    with pytest.raises(SpecError, match="there is no option 'depth'"):
        Probe.check_config({"url": "x", "depth": "2"})


def test_what_a_class_declares_itself_is_told_before_what_its_base_has() -> None:
    @dataclass(frozen=True)
    class BaseOptions:
        first: str = option("", meaning="what comes first there")

    @dataclass(frozen=True)
    class OwnOptions(BaseOptions):
        own: str = option("", meaning="what is its own")

    class Plugin(CircusPlugin):
        options = declare(OwnOptions)

    with pytest.raises(SpecError, match=r"there are own, first$"):
        Plugin.check_config({"other": "1"})


def test_a_field_that_is_computed_is_no_option() -> None:
    @dataclass(frozen=True)
    class Options:
        most: int = option(3, maximum=9, unit="times", meaning="how many")
        twice: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self.most)

    class Plugin(CircusPlugin):
        options = declare(Options)

    declared = declared_by(Plugin)
    assert declared is not None
    assert declared.read({"most": "4"}).twice == 8
    with pytest.raises(SpecError, match="there is no option 'twice'"):
        Plugin.check_config({"twice": "1"})
    with pytest.raises(SpecError, match="'most': '10' is more than 9"):
        Plugin.check_config({"most": "10"})
    assert declared.options["most"].kind.fits == "times, at most 9"


def test_an_example_of_a_secret_may_be_a_place_that_is_not_there() -> None:
    @dataclass(frozen=True)
    class Options:
        password: Secret = option("", example="file:/nowhere/secret", meaning="for the login")

    declare(Options)
