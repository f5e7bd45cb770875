# Orders to a host, however many come at once.

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

from members import MakeHost, member
from patience import PATIENCE

from circusplug._host.engine import _MESSAGES_AT_ONCE
from circusplug._host.orders import Order


def test_of_many_orders_that_wait_none_is_lost(host: MakeHost) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def keep_busy(_: Any) -> tuple[None, tuple[()]]:
        busy.set()
        go_on.wait(PATIENCE)
        return None, ()

    with host(member("a")) as arbiter:
        put = arbiter._started._mailbox.put
        orders = [Order(keep_busy, concurrent.futures.Future())]
        put(orders[0])
        assert busy.wait(PATIENCE)
        for number in range(3 * _MESSAGES_AT_ONCE):
            order = Order(lambda _, number=number: (number, ()), concurrent.futures.Future())
            orders.append(order)
            put(order)
        go_on.set()
        done = [order.done.result(PATIENCE) for order in orders]
    assert done == [None, *range(3 * _MESSAGES_AT_ONCE)]
