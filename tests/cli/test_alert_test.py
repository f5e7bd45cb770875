# `circusplug alert-test`: one alert to each receiver, and what has become of it.

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run_here, write_ini

ENDS = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


def section(name: str, use: str = "circusplug.plugins.Alert", **options: str) -> str:
    lines = [f"[plugin:{name}]", f"use = {use}", *(f"{key} = {options[key]}" for key in options)]
    return "\n".join(lines) + "\n"


def test_each_receiver_gets_one_and_it_is_said_how_that_went(tmp_path: Path) -> None:
    tell = f"sh -c 'cat > {tmp_path}/told'"
    sections = [
        section("a", command=tell, smtp_host="127.0.0.1", smtp_port="1", mail_to="ops@example.org"),
        section("b", command="sh -c 'exit 3'"),
        section("c", "circusplug.plugins.Logger"),
    ]
    write_ini(tmp_path, *ENDS, *sections)
    done = run_here(tmp_path, "alert-test", "circus.ini")
    assert done.stdout.splitlines() == [
        "[plugin:a] command 'sh': sent",
        "[plugin:a] mail server 127.0.0.1:1: not sent: [Errno 111] Connection refused",
        "[plugin:b] command 'sh': not sent: exit code 3",
    ]
    assert (done.returncode, done.stderr) == (1, "")
    message = json.loads((tmp_path / "told").read_text())
    assert message["text"].endswith("test: this is only a test; nothing has happened")


def test_a_name_chooses_one_section(tmp_path: Path) -> None:
    write_ini(tmp_path, *ENDS, section("a", command="false"), section("b", command="true"))
    done = run_here(tmp_path, "alert-test", "circus.ini", "b")
    assert (done.returncode, done.stdout) == (0, "[plugin:b] command 'true': sent\n")


def test_a_plugin_that_derives_from_alert_is_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from circusplug.plugins import Alert\nclass Mine(Alert): pass\n"
    )
    path = write_ini(tmp_path, *ENDS, section("a", "mine.Mine", command="true"))
    (tmp_path / "elsewhere").mkdir()
    done = run_here(tmp_path / "elsewhere", "alert-test", path)
    assert done.stdout == "[plugin:a] command 'true': sent\n"


NOBODY = "alerts to anybody; use circusplug.plugins.Alert, and give it a 'command', 'notify' or "


@pytest.mark.parametrize(
    ("sections", "name", "told"),
    [
        ([section("a")], "", f"circus.ini: no section sends {NOBODY}'mail_to'"),
        ([section("a")], "a", f"circus.ini: [plugin:a] sends {NOBODY}'mail_to'"),
        (
            [section("pager", command="true")],
            "pagr",
            "circus.ini: there is no [plugin:pagr] (did you mean 'pager'?)",
        ),
        (
            [section("a", command="no-such-program")],
            "",
            "circus.ini: [plugin:a]: 'command': there is no program 'no-such-program' here",
        ),
        (
            [section("a", command="true", tries="none")],
            "",
            "circus.ini: [plugin:a]: 'tries': 'none' is not a whole number",
        ),
        (
            [section("a", "no.Such")],
            "",
            "circus.ini: [plugin:a]: 'use' names no.Such, but there is no module 'no'",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    sections: list[str], name: str, told: str, tmp_path: Path
) -> None:
    write_ini(tmp_path, *ENDS, *sections)
    done = run_here(tmp_path, "alert-test", "circus.ini", *filter(None, [name]))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert told in done.stderr
