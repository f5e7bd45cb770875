# From the names in events to those that commands take.

from __future__ import annotations

import pytest

from circusplug._wire.watcher_names import WatcherNames, to_res_name


class Asked:
    """A circusd whose names the test changes, and that counts how often it was asked."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.times = 0

    def __call__(self) -> list[str]:
        self.times += 1
        return self.names


@pytest.mark.parametrize(
    ("name", "res_name"),
    [
        ("web", "web"),
        ("My App.v1", "my_app.v1"),
        ("A  B", "a__b"),
        ("plugin:Logger", "plugin:logger"),
    ],
)
def test_a_res_name_is_lower_case_with_spaces_turned_into_underscores(
    name: str, res_name: str
) -> None:
    assert to_res_name(name) == res_name
    assert WatcherNames(Asked("other", name)).resolve(res_name) == name


def test_an_answer_that_a_change_has_overtaken_is_not_remembered() -> None:
    class Overtaken(Asked):
        def __call__(self) -> list[str]:
            names = [*super().__call__()]
            if self.times == 1:
                self.names.append("My App")
                table.observe(b"watcher.my_app.add")
            return names

    table = WatcherNames(Overtaken("web"))
    assert table.resolve("my_app") == "my_app"
    assert table.resolve("my_app") == "My App"


def test_an_unknown_name_is_returned_as_it_is() -> None:
    assert WatcherNames(Asked("web")).resolve("Absent_One") == "Absent_One"


def test_a_real_name_is_found_too() -> None:
    assert WatcherNames(Asked("My App")).resolve("my app") == "My App"


def test_circusd_is_asked_once() -> None:
    asked = Asked("My App")
    names = WatcherNames(asked)
    for name in ("my_app", "absent", "my_app"):
        names.resolve(name)
    assert asked.times == 1


@pytest.mark.parametrize(
    ("topic", "times"),
    [
        (b"watcher.new_one.add", 2),
        (b"watcher.my_app.remove", 2),
        (b"", 2),  # events may have been missed
        (b"watcher.my_app.spawn", 1),
        (b"watcher.add.start", 1),
        (b"watcher.x.readd", 1),
    ],
)
def test_it_is_asked_again_after_watchers_came_or_went(topic: bytes, times: int) -> None:
    asked = Asked("My App")
    names = WatcherNames(asked)
    names.resolve("my_app")
    asked.names.append("New One")
    names.observe(topic)
    assert names.resolve("new_one") == ("New One" if times == 2 else "new_one")
    assert asked.times == times


def test_when_asking_fails_nothing_is_remembered() -> None:
    def fail() -> list[str]:
        raise ZeroDivisionError

    names = WatcherNames(fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            names.resolve("web")
