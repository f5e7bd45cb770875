# Orders to a host, however many come at once, and until when they are waited for.

from __future__ import annotations

import concurrent.futures
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from members import MakeHost, member
from patience import PATIENCE

from circusplug._host import orders
from circusplug._host.engine import _MESSAGES_AT_ONCE
from circusplug._host.orders import Order, PendingOrders


def test_of_many_orders_that_wait_none_is_lost(host: MakeHost) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def keep_busy(_: Any) -> tuple[None, tuple[()]]:
        busy.set()
        go_on.wait(PATIENCE)
        return None, ()

    with host(member("a")) as arbiter:
        put = arbiter._started._mailbox.put
        given = [Order(keep_busy, concurrent.futures.Future())]
        put(given[0])
        assert busy.wait(PATIENCE)
        for number in range(3 * _MESSAGES_AT_ONCE):
            order = Order(lambda _, number=number: (number, ()), concurrent.futures.Future())
            given.append(order)
            put(order)
        go_on.set()
        done = [order.done.result(PATIENCE) for order in given]
    assert done == [None, *range(3 * _MESSAGES_AT_ONCE)]


class Settles:
    """What is known of a plugin by those who wait for it."""

    def __init__(self, due: float | None) -> None:
        self.due = due
        self.asked_imported: list[bool] = []

    def settled(self, now: float, imported: bool) -> bool:
        self.asked_imported.append(imported)
        return self.due is not None and now >= self.due

    def settles_by(self, imported: bool) -> float | None:
        self.asked_imported.append(imported)
        return self.due


def test_an_order_is_done_when_each_of_its_plugins_has_settled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(orders, "time", SimpleNamespace(monotonic=lambda: now))
    pending = PendingOrders()
    at_once, two, other = (concurrent.futures.Future[Any]() for _ in range(3))
    early, late, never = Settles(1010.0), Settles(1020.0), Settles(None)
    plugins: list[Any] = [early, late]
    pending.add(at_once, "nothing to wait for", [])
    pending.add(two, "both", plugins, imported=True)
    pending.add(other, "other", [never])  # type: ignore[list-item]
    pending.settle()
    assert at_once.result(0) == "nothing to wait for"
    assert pending.next_look() == 1020.0
    now = 1020.0
    late.due = 1020.0
    early.due = None
    pending.settle()
    assert not two.done()
    assert pending.next_look() is None
    early.due, late.due = now, None  # that one has settled before
    assert pending.next_look() == now
    pending.settle()
    assert two.result(0) == "both"
    assert set(early.asked_imported + late.asked_imported) == {True}
    assert set(never.asked_imported) == {False}
    assert len(plugins) == 2  # whoever gave the order may still need them
    assert pending.give_up() == [other]
    assert pending.give_up() == []
    assert pending.next_look() is None
