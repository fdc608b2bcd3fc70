"""Tables, documents, amounts and states."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from nodeagent.ctl import amounts
from nodeagent.ctl.main import FORMATS, VERBS, build_parser, main
from nodeagent.ctl.output import Column, Output
from nodeagent.ctl.pod_state import state_of
from nodeagent.ctl.world import Pod, put_together

NOW = 1_900_000_000 * amounts.SECOND
COLUMNS = [Column("NAME", "name"), Column("SIZE", "size", right=True), Column("MORE", "more", wide=True)]
DOCUMENTS: list[dict[str, Any]] = [
    {"name": "a" * 200, "size": 5, "more": "two\nlines"},
    {"name": "b", "size": None, "more": ""},
]


def shown(format: str) -> str:
    stream = io.StringIO()
    Output(format, stream).items("List", COLUMNS, DOCUMENTS)
    return stream.getvalue()


def test_a_pipe_gets_plain_lines_and_all_of_them() -> None:
    head, first, second = shown("table").splitlines()
    assert head.split() == ["NAME", "SIZE"]
    assert first == "a" * 200 + "     5"
    assert second.split() == ["b", "-"]
    assert "two lines" in shown("wide")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("format", ["table", "wide"])
def test_a_terminal_folds_text_and_no_numbers_unless_all_is_asked_for(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    columns = [Column("NAME", "name"), Column("PIDS", "size", right=True), Column("MB", "more", right=True)]
    Output(format, stream).items("List", columns, [{"name": "a" * 30, "size": 12345, "more": 678}])
    lines = re.sub(r"\x1b\[\d*m", "", stream.getvalue()).splitlines()
    assert any("12345  678" in line for line in lines)
    assert any("a" * 30 in line for line in lines) == (format == "wide")
    assert format == "wide" or max(map(len, lines)) <= 20


def test_json_is_the_documents_as_they_are() -> None:
    assert json.loads(shown("json")) == {"kind": "List", "items": DOCUMENTS}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (9, "9s"),
        (75, "1m15s"),
        (60, "1m"),
        (660, "11m"),
        (3600, "1h"),
        (100_000, "1d3h"),
        (40_000_000, "1y97d"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    assert amounts.age(NOW - seconds * amounts.SECOND, NOW) == text


def test_no_time_has_no_age() -> None:
    assert (amounts.age(0, NOW), amounts.timestamp(0)) == ("-", None)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1000 << 10, "0.977 MiB"), (412 << 20, "412 MiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert amounts.size(count) == text


def test_moments() -> None:
    assert amounts.moment_before("1h30m", NOW) == NOW - 5400 * amounts.SECOND
    assert amounts.moment_before("1970-01-01T00:00:01Z", NOW) == amounts.SECOND
    assert amounts.nanoseconds(amounts.timestamp(NOW + 123_456_789) or "") == NOW + 123_456_789
    for wrong in ("soon", "5", "m", "1h later"):
        with pytest.raises(ValueError, match="neither a duration"):
            amounts.moment_before(wrong, NOW)


def pod(phase: str, *main: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **more: Any) -> Pod:
    metadata = {"name": "web", "namespace": "default", "uid": "u"}
    status = {"phase": phase, "containerStatuses": list(main), "initContainerStatuses": list(init), **more}
    (made,) = put_together([], [], [{"metadata": metadata, "spec": {}, "status": status}])
    return made


def status(name: str, restarts: int = 0, last: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    return {
        "name": name,
        "ready": "running" in state,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


RUNNING: dict[str, Any] = {"running": {}}
CRASH: dict[str, Any] = {
    "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}
}
ENDED: dict[str, Any] = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


@pytest.mark.parametrize(
    ("given", "word", "ready"),
    [
        (pod("Running", status("a", **RUNNING), status("b", **RUNNING)), "Running", "2/2"),
        (pod("Running", status("a", **RUNNING), status("b", 4, ENDED, **CRASH)), "CrashLoopBackOff", "1/2"),
        (pod("Succeeded", status("a", terminated={"reason": "Completed", "exitCode": 0})), "Completed", "0/1"),
        (pod("Failed", status("a", **ENDED)), "OOMKilled", "0/1"),
        (pod("Failed", status("a", **ENDED), reason="Evicted"), "Evicted", "0/1"),
        (pod("Failed", status("a"), init=(status("i", **ENDED),), reason="InitFailed"), "Init:OOMKilled", "0/1"),
        (pod("Failed", status("a", waiting={"reason": "PodInitializing"}), reason="Evicted"), "Evicted", "0/1"),
        (
            pod("Pending", status("a", waiting={"reason": "PodInitializing"}), init=(status("i", **CRASH),)),
            "Init:CrashLoopBackOff",
            "0/1",
        ),
        (pod("Pending", status("a"), init=(status("i", waiting={"reason": "PodInitializing"}),)), "Init:0/1", "0/1"),
    ],
)
def test_a_pod_in_one_word(given: Pod, word: str, ready: str) -> None:
    state = state_of(given)
    assert (state.status, f"{state.ready}/{state.total}") == (word, ready)


def test_why_a_pod_waits() -> None:
    state = state_of(pod("Running", status("b", 4, ENDED, **CRASH), message="the volume is late"))
    assert state.restarts == 4
    assert state.message == (
        "the volume is late; b: back-off 40s restarting failed container; b: OOMKilled, exit code 137"
    )


def test_every_verb_has_its_arguments() -> None:
    for verb in VERBS:
        assert build_parser([verb]).format_help()
    given = build_parser(["ps"]).parse_args(["--cri", "/a", "ps", "-o", "json"])
    assert (given.cri, given.output, given.output in FORMATS) == ("/a", "json", True)


def test_usage_errors_are_status_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([]) == 2
    for words in (["frobnicate"], ["logs"], ["ps", "-o", "yaml"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    monkeypatch.setattr(sys, "argv", ["nodectl", "logs", "web", "--since", "soon"])
    assert main() == 2
    assert "neither a duration" in capsys.readouterr().err


def test_a_ledger_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database" * 100)
    places = [f"--{name}={tmp_path}" for name in ("root", "state", "kubelet-root")]
    assert main(["fsck", "--cri", str(tmp_path / "none.sock"), *places]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"nodectl: {tmp_path}/ledger.db: SELECT owner, kind, key, holder, detail, boot_id, created FROM ledger "
        "ORDER BY created, kind, key: file is not a database"
    ]
