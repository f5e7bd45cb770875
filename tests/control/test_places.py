# Where a host's control socket is, who may be there, and what is done about those left behind.

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE

from circusplug import HostError
from circusplug._config.control import control_endpoint
from circusplug._control import places


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, runtime_directory: str) -> Iterator[Path]:
    """A runtime directory of this test's own, whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(dir=runtime_directory) as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield Path(path)


def listener(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_the_socket_is_named_after_the_file_whatever_way_it_is_written(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my plugins.ini"
    file.touch()
    (tmp_path / "link.ini").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    endpoint = places.endpoint_of(str(file))
    assert endpoint == places.endpoint_of("my plugins.ini") == places.endpoint_of("link.ini")
    assert endpoint.startswith(f"ipc://{runtime}/circusplug/my_plugins-")
    assert endpoint.endswith(".sock")
    assert places.endpoint_of(str(tmp_path / "other" / "my plugins.ini")) != endpoint


def test_events_are_published_beside_a_socket_and_not_beside_a_port() -> None:
    assert places.events_endpoint_of("ipc:///a/b.sock") == "ipc:///a/b.events.sock"
    assert places.events_endpoint_of("ipc:///a/b") == "ipc:///a/b.events.sock"
    assert places.events_endpoint_of("tcp://127.0.0.1:5000") == ""


def test_a_long_name_still_makes_a_path_that_a_socket_may_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for length in range(1, 120):
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "x" * length)
        monkeypatch.setattr(places.os, "stat", lambda _: os.lstat("/proc/self"))
        endpoint = places.endpoint_of("/a/" + "é" * 100 + ".ini")
        events = places.events_endpoint_of(endpoint).removeprefix("ipc://")
        assert len(os.fsencode(events)) <= 107
        control_endpoint(endpoint)
        monkeypatch.undo()


@pytest.mark.parametrize("runtime", ["", "relative/path", "/does/not/exist", "/root/.."])
def test_without_a_runtime_directory_of_ones_own_there_is_one_in_tmp(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    if runtime == "/root/..":
        monkeypatch.setattr(places.os, "geteuid", lambda: 12345)  # it is another user's
    assert places.directories() == [f"/tmp/circusplug-{os.geteuid()}"]


def test_a_runtime_directory_that_depends_on_where_one_stands_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    assert places.directories() == [f"/tmp/circusplug-{os.geteuid()}"]


def test_a_directory_is_made_for_this_user_alone(runtime: Path) -> None:
    places.make_private(str(runtime / "new"))
    assert stat.S_IMODE(os.stat(runtime / "new").st_mode) == 0o700
    places.make_private(str(runtime / "new"))


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o710, 0o777, 0o1777])
def test_a_directory_that_others_may_enter_is_refused(runtime: Path, mode: int) -> None:
    (runtime / "new").mkdir()
    (runtime / "new").chmod(mode)
    with pytest.raises(HostError, match=r"others may enter it; remove it, chmod it to 0700"):
        places.make_private(str(runtime / "new"))


def test_a_directory_of_another_user_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runtime / "new").mkdir(mode=0o700)
    other = os.geteuid() + 1
    monkeypatch.setattr(places.os, "geteuid", lambda: other)
    with pytest.raises(HostError, match="belongs to another user"):
        places.make_private(str(runtime / "new"))


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_directory_is_refused_even_a_link_to_one(runtime: Path, what: str) -> None:
    if what == "file":
        (runtime / "new").touch()
    else:
        (runtime / "new").symlink_to(runtime)
    with pytest.raises(HostError, match="is no directory; remove it"):
        places.make_private(str(runtime / "new"))


def test_a_directory_that_cannot_be_made_is_told_of(runtime: Path) -> None:
    (runtime / "file").touch()
    with pytest.raises(HostError, match=r"cannot make .*: Not a directory"):
        places.make_private(str(runtime / "file" / "new"))


def test_a_socket_is_alive_while_somebody_listens(runtime: Path) -> None:
    path = runtime / "s"
    assert not places.is_alive(str(path))
    with listener(path):
        assert places.is_alive(str(path))
    assert path.exists()
    assert not places.is_alive(str(path))


def test_a_socket_whose_queue_is_full_is_alive(runtime: Path) -> None:
    path = str(runtime / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            assert places.is_alive(path)


def test_running_finds_the_control_sockets_that_answer_and_nothing_else(runtime: Path) -> None:
    directory = runtime / "circusplug"
    with (
        listener(directory / "a.sock"),
        listener(directory / "a.events.sock"),
        listener(directory / "a.circusd.sock"),
    ):
        listener(directory / "stale.sock").close()
        (directory / "notes.txt").touch()
        assert f"ipc://{directory}/a.sock" in places.running()
        assert [found for found in places.running() if str(runtime) in found] == [
            f"ipc://{directory}/a.sock"
        ]


def test_where_no_host_has_ever_run_none_is_found(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_WITHOUT_RUNTIME", str(runtime / "none"))
    assert places.running() == []


def test_circusds_place_is_beside_the_hosts_in_a_directory_that_is_private(runtime: Path) -> None:
    endpoint = places.circusd_endpoint_of("/a/b.ini")
    assert endpoint == places.endpoint_of("/a/b.ini").removesuffix(".sock") + ".circusd.sock"
    assert stat.S_IMODE(os.stat(runtime / "circusplug").st_mode) == 0o700


def test_a_path_where_a_host_listens_is_not_claimed(runtime: Path) -> None:
    with (
        listener(runtime / "s"),
        pytest.raises(HostError, match=f"a host listens on ipc://{runtime}/s, for the same file"),
        places.claimed(str(runtime / "s")),
    ):
        pass


def test_a_dead_hosts_socket_may_be_replaced_and_another_file_may_not(runtime: Path) -> None:
    listener(runtime / "s").close()
    with places.claimed(str(runtime / "s")):
        pass
    (runtime / "file").write_text("precious")
    with (
        pytest.raises(HostError, match="is there and is no socket; remove it"),
        places.claimed(str(runtime / "file")),
    ):
        pass
    assert (runtime / "file").read_text() == "precious"


def test_a_directory_that_is_not_there_is_made_only_if_it_is_the_usual_one(runtime: Path) -> None:
    with places.claimed(str(runtime / "circusplug" / "s")):
        assert stat.S_IMODE(os.stat(runtime / "circusplug").st_mode) == 0o700
    with (
        pytest.raises(HostError, match=r"cannot use .*: No such file or directory"),
        places.claimed(str(runtime / "absent" / "s")),
    ):
        pass


def test_of_hosts_that_start_at_the_same_time_one_has_the_path(runtime: Path) -> None:
    begin, end = threading.Barrier(8), threading.Barrier(8)
    outcomes: list[str] = []

    def claim() -> None:
        begin.wait(PATIENCE)
        sock = None
        try:
            with places.claimed(str(runtime / "s")):
                if os.path.exists(runtime / "s"):
                    os.unlink(runtime / "s")  # as libzmq does
                sock = listener(runtime / "s")
            outcomes.append("has it")
        except HostError as error:
            outcomes.append("for the same file" * ("for the same file" in str(error)))
        end.wait(PATIENCE)
        if sock is not None:
            sock.close()

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(outcomes) == ["for the same file"] * 7 + ["has it"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "off",
        "auto",
        "ipc:///run/x.sock",
        "ipc:///" + "x" * 106,
        "tcp://127.0.0.1:80",
        "tcp://localhost:1",
        "tcp://[::1]:1",
    ],
)
def test_an_endpoint_on_this_machine_is_taken(endpoint: str) -> None:
    assert control_endpoint(f" {endpoint} ") == endpoint


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("tcp://0.0.0.0:5555", "through ssh"),
        ("tcp://*:5555", "through ssh"),
        ("tcp://example.org:5555", "through ssh"),
        ("tcp://127.0.0.1.example.org:5555", "through ssh"),
        ("tcp://127.0.0.1", "is none of"),
        ("ipc://relative", "is none of"),
        ("ipc://@abstract", "is none of"),
        ("inproc://x", "is none of"),
        ("yes", "is none of"),
        ("", "is none of"),
        ("ipc:///" + "x" * 107, "is too long for a socket; 107 bytes at most"),
        ("ipc:///" + "é" * 60, "is too long for a socket; 107 bytes at most"),
        ("tcp://127.0.0.1:123456", "is none of"),
        ("tcp://127.0.0.1:80/x", "is none of"),
    ],
)
def test_an_endpoint_that_others_could_reach_is_refused(endpoint: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        control_endpoint(endpoint)


def test_while_one_host_binds_no_other_looks(runtime: Path) -> None:
    path = runtime / "circusplug" / "x.sock"
    with places.claimed(str(path)):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(directory)
