"""What an agent adds: nodectl beside a status socket that tells what is written here, and a runtime that is a fake."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cri.proto import api_pb2 as api
from nodeagent.ctl import pods_verb
from nodeagent.ctl.output import Output
from nodeagent.ctl.session import Session
from tests.support.fake_cri import FakeCri

WAITING = {"waiting": {"reason": "ImagePullBackOff", "message": "pulled again in 20s"}}
POD = {
    "metadata": {"namespace": "default", "name": "late", "uid": "u1"},
    "spec": {"containers": [{"name": "main"}]},
    "status": {
        "phase": "Pending",
        "qosClass": "BestEffort",
        "containerStatuses": [{"name": "main", "ready": False, "restartCount": 0, "state": WAITING, "lastState": {}}],
    },
}
PROBLEM = {"file": "/m/bad.yaml", "line": 3, "path": "spec.containers", "reason": "must be a list", "fatal": True}
ANSWERS = {"/pods": {"items": [POD]}, "/problems": {"items": [PROBLEM]}}


@pytest.fixture
async def session(short_path: Path) -> AsyncIterator[Session]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(ANSWERS[request.split()[1].decode()]).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, short_path / "agent.sock")
    made = Session("/nowhere", short_path / "agent.sock", Output("table", io.StringIO()))
    made._client = FakeCri()  # type: ignore[assignment]
    yield made
    server.close()


async def pods(session: Session, format: str) -> str:
    stream = io.StringIO()
    session.output = Output(format, stream)
    assert await pods_verb.run(session, argparse.Namespace(pod=[], namespace="")) == 0
    return stream.getvalue()


async def test_a_pod_that_has_nothing_yet_is_shown_with_its_reason(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    head, line = (await pods(session, "table")).splitlines()
    assert head.split()[-1] == "WHY"
    assert line.split()[:4] == ["default", "late", "0/1", "ImagePullBackOff"]
    assert line.endswith("main: pulled again in 20s")
    assert capsys.readouterr().err == "error: manifest /m/bad.yaml:3: spec.containers: must be a list\n"


async def test_pods_of_both_are_one_list(session: Session) -> None:
    config = api.PodSandboxConfig(metadata={"name": "alone", "namespace": "test", "uid": "u2"})
    await session.cri.RunPodSandbox(config=config)
    document: Any = json.loads(await pods(session, "json"))
    assert [(item["name"], item["status"]) for item in document["items"]] == [
        ("late", "ImagePullBackOff"),
        ("alone", "Running"),
    ]
    assert document["problems"] == [PROBLEM]
