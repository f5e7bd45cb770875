# What gives an isolated plugin's process its means, part by part; in a process that is forked for
# it where it would change this one.

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import pwd
import resource
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circusplug._config.host_options import HostOptions
from circusplug._isolated import messages, process_setup
from circusplug._isolated.process_setup import (
    _OutputFile,
    _PipeHandler,
    environment_for,
    import_main,
    let_go_of_host,
    log_to,
    open_output,
    redirect,
    set_up,
)

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")


def in_a_fork(action: Callable[[], Any]) -> Any:
    """What a function returns in a process of its own, or the error that it raises."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                said = action()
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(write, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)


def launch(host: HostOptions, **changed: Any) -> messages.Launch:
    told: dict[str, Any] = {"path": ["/lib"], "argv": ["host", "up"], "directory": None}
    told |= {"environment": {"A": "a", "B": "b"}, **changed}
    return messages.Launch(host, 1.0, log_level=0, main={}, plugin=b"", **told)


def test_a_process_has_what_its_host_told_it_and_its_own_options_win(tmp_path: Path) -> None:
    host = HostOptions(
        python_path=("/mine",), env={"B": "mine", "C": "c"}, working_dir=str(tmp_path)
    )

    def look() -> Any:
        set_up(launch(host, directory="/"))
        return sys.path, sys.argv, dict(os.environ), os.getcwd()

    assert in_a_fork(look) == [
        ["/mine", "/lib"],
        ["host", "up"],
        {"A": "a", "B": "mine", "C": "c"},
        str(tmp_path),
    ]


def test_a_process_goes_where_its_host_is_or_stays_if_nobody_knows(tmp_path: Path) -> None:
    def look(directory: str | None) -> Any:
        set_up(launch(HostOptions(), directory=directory))
        return os.getcwd()

    assert in_a_fork(lambda: look(str(tmp_path))) == str(tmp_path)
    assert in_a_fork(lambda: look(None)) == os.getcwd()


def test_no_limit_for_descriptors_is_as_many_as_the_system_allows() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    host = HostOptions(rlimits={"nofile": resource.RLIM_INFINITY, "core": 0})

    def look() -> Any:
        set_up(launch(host))
        return resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)

    assert in_a_fork(look) == [[hard, hard], [0, 0]]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"working_dir": "/nowhere"},
            "FileNotFoundError: host.working_dir = /nowhere: No such file or directory",
        ),
        (
            {"rlimits": {"nofile": 2**62}},
            f"ValueError: host.rlimit_nofile = {2**62}: not allowed to raise maximum limit",
        ),
    ],
)
def test_what_cannot_be_had_is_named_with_its_option(options: dict[str, Any], error: str) -> None:
    assert in_a_fork(lambda: set_up(launch(HostOptions(**options)))) == error


@as_root
def test_a_group_alone_can_be_changed_and_a_user_brings_his_own() -> None:
    nobody = pwd.getpwnam("nobody")

    def look(host: HostOptions) -> Any:
        set_up(launch(host))
        return os.getresuid(), os.getresgid(), dict(os.environ)

    uid, gid, environment = in_a_fork(lambda: look(HostOptions(gid=54321)))
    assert (uid, gid) == ([0, 0, 0], [54321] * 3)
    assert environment == {"A": "a", "B": "b"}
    options: dict[str, Any] = {"uid": nobody.pw_uid, "env": {"HOME": "/mine"}}
    uid, gid, environment = in_a_fork(lambda: look(HostOptions(**options)))
    assert (uid, gid) == ([nobody.pw_uid] * 3, [nobody.pw_gid] * 3)
    assert (environment["HOME"], environment["USER"]) == ("/mine", "nobody")


@as_root
def test_a_process_of_the_hosts_own_user_keeps_its_environment() -> None:
    def look() -> Any:
        set_up(launch(HostOptions(uid=0)))
        return dict(os.environ)

    assert in_a_fork(look) == {"A": "a", "B": "b", "HOME": pwd.getpwuid(0).pw_dir}
    assert environment_for(HostOptions(uid=0)) == dict(os.environ)


# What is printed.


def test_a_file_for_output_is_for_all_to_read_and_for_its_user_to_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(open_output(str(tmp_path / "output")))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "output").stat().st_mode) == 0o644


def test_without_a_host_only_what_it_would_have_shown_vanishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        streams = (("stdout", out.fileno()), ("stderr", err.fileno()))
        monkeypatch.setattr(process_setup, "_STREAMS", streams)
        let_go_of_host(HostOptions(stdout=str(tmp_path / "out")))
        for stream in (out, err):
            os.write(stream.fileno(), b"said")
    assert (tmp_path / "out").read_bytes() == b"said"
    assert (tmp_path / "err").read_bytes() == b""


def test_any_text_can_be_printed_and_a_line_is_written_at_once() -> None:
    def look() -> Any:
        pipes = [os.pipe() for _ in range(3)]
        redirect(HostOptions(), [write for _, write in pipes])
        os.set_blocking(pipes[1][0], False)
        print("é \udcff")
        said = os.read(pipes[1][0], 100).decode()
        print("complaint", file=sys.stderr)
        held = [is_open(write) for _, write in pipes[1:]]
        return said, os.read(pipes[2][0], 100).decode(), held

    assert in_a_fork(look) == ["é ?\n", "complaint\n", [False, False]]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_file_that_is_opened_anew_costs_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "output"
    fd = open_output(str(path))
    with _OutputFile(fd, str(path)) as file:
        free = os.dup(fd)
        os.close(free)
        path.rename(tmp_path / "rotated")
        file.write(b"said")
        assert not is_open(free)
    assert path.read_bytes() == b"said"
    os.close(fd)


@pytest.mark.parametrize("body", ["", "raise ValueError('on purpose')"])
def test_a_plugin_of_the_hosts_script_may_start_processes_of_its_own(
    body: str, tmp_path: Path
) -> None:
    script = tmp_path / "hosting.py"
    script.write_text(f"names = [__name__]\n{body}\n")

    def look() -> Any:
        try:
            import_main({"init_main_from_path": str(script)})
        except ValueError:
            return hasattr(multiprocessing.current_process(), "_inheriting")
        assert sys.modules["__mp_main__"].names == ["__mp_main__"]
        return hasattr(multiprocessing.current_process(), "_inheriting")

    assert in_a_fork(look) is False


def test_what_it_forks_can_print_whoever_printed_at_that_moment() -> None:
    """A thread's lock of a stream is never released in the forked process."""

    def look() -> Any:
        pipes = [os.pipe() for _ in range(3)]
        redirect(HostOptions(), [write for _, write in pipes])
        before = sys.stdout, sys.stderr
        pid = os.fork()
        if pid == 0:
            new = sys.stdout is not before[0] and sys.stderr is not before[1]
            print("new" if new else "locked")
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(pipes[1][0], 100).decode()

    assert in_a_fork(look) == "new\n"


def test_a_stream_of_the_plugins_own_is_left_alone_in_what_it_forks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        open(tmp_path / "own", "w") as own,
        open(own.fileno(), "w", closefd=False) as other,
        open(1, "w", closefd=False) as ours,
    ):
        streams: tuple[Any, Any]
        for streams in ((io.StringIO(), None), (own, other), (other, own)):
            monkeypatch.setattr(sys, "stdout", streams[0])
            monkeypatch.setattr(sys, "stderr", streams[1])
            process_setup._renew_streams()
            assert (sys.stdout, sys.stderr) == streams
        monkeypatch.setattr(process_setup, "_locked", locked := [])
        monkeypatch.setattr(sys, "stdout", ours)
        process_setup._renew_streams()
        assert sys.stdout is not ours
        assert locked == [ours]  # or its end would close the descriptor


def test_a_file_that_is_in_its_place_is_not_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = open_output(str(tmp_path / "output"))
    file = _OutputFile(fd, str(tmp_path / "output"))
    monkeypatch.setattr(process_setup, "_open_as", lambda *_: pytest.fail("it is"))
    assert file.write(b"said") == 4
    file.close()
    os.close(fd)  # which stays open


# What is logged.


def logged(read: int) -> list[Any]:
    with open(read, "rb") as pipe:
        return [messages.decode(line, messages.ENTRIES) for line in pipe.read().splitlines()]


def test_a_record_gets_across_however_much_the_pipe_takes_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    handler = _PipeHandler(write)
    record = logging.LogRecord("a.b", 30, "/f.py", 1, "hello %s", ("world",), None)
    record.created = 12.5
    record.stack_info = "its stack"
    handler.emit(record)
    os.close(write)
    assert logged(read) == [messages.LogEntry("a.b", 30, 12.5, "hello world", "its stack")]


def test_a_record_for_a_host_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    _PipeHandler(write).emit(logging.LogRecord("a.b", 30, "", 1, "hello", None, None))
    os.close(write)


def test_the_log_of_a_process_goes_to_its_host_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look() -> Any:
        read, write = os.pipe()
        log_to(write, 25)
        logging.getLogger("a.b").warning("hello")
        logging.getLogger("a.b").log(24, "too low")
        os.close(write)
        entries = [(entry.name, entry.text) for entry in logged(read)]
        return entries, [type(handler).__name__ for handler in logging.getLogger().handlers]

    assert in_a_fork(look) == [[["a.b", "hello"]], ["_PipeHandler"]]
