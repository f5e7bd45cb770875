# Reloads of one host come one after the other, whoever asks for them.

from __future__ import annotations

import threading

from patience import PATIENCE

from circusplug._host.reloads import Reloads


class Host:
    """A host whose reload waits until another one has begun, or could have."""

    client = None
    has_circusd = False

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.under_way = self.most = self.done = 0

    def reload(self) -> list[str]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENCE)
        self.under_way -= 1
        self.done += 1
        return []


def test_a_reload_waits_for_the_one_before() -> None:
    host = Host()
    reloads = Reloads(host)
    threads = [threading.Thread(target=reloads.run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert host.begun.acquire(timeout=PATIENCE)
        assert reloads._reloading.locked()
        host.go_on.release()
    for thread in threads:
        thread.join(PATIENCE)
    assert (host.most, host.done) == (1, 3)
