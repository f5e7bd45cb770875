# How many open files a host allows itself, within what it is allowed.

from __future__ import annotations

import resource

import pytest

from circusplug._host.resources import raise_descriptor_limit

ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "plugins", "raised"),
    [
        ((256, 4096), 10, (416, 4096)),
        ((256, ENDLESS), 10, (416, ENDLESS)),
        ((256, 300), 10, (300, 300)),
        ((256, 256), 1000, (256, 256)),
        ((1024, 4096), 10, None),
        ((ENDLESS, ENDLESS), 1000, None),
    ],
)
def test_the_limit_is_raised_as_far_as_it_is_needed_and_may_be(
    limits: tuple[int, int],
    plugins: int,
    raised: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: done.append(both))
    raise_descriptor_limit(plugins)
    assert done == ([] if raised is None else [raised])
