"""nodectl as an operator runs it: a process of its own, against a real crid with real containers.

No agent is there: what it adds is tested with one that is written down (tests/unit/ctl).
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.crid import ROOT, Crid, Sandbox, running_crid
from tests.support.images import busybox_rootfs, push_image
from tests.support.registry import Registry

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 30


class Nodectl:
    """Runs nodectl on one crid."""

    def __init__(self, crid: Crid) -> None:
        self.crid = crid
        self.image = ""

    def argv(self, *words: str) -> list[str]:
        sockets = ["--cri", f"unix://{self.crid.socket}", "--agent", str(self.crid.state / "agent.sock")]
        return [sys.executable, "-m", "nodeagent.ctl.main", *sockets, *words]

    async def __call__(self, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run, self.argv(*words), capture_output=True, text=True, cwd=ROOT, input=input, timeout=SECONDS
        )

    async def json(self, *words: str) -> Any:
        done = await self(*words, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.argv(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodectl(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodectl]:
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        async with running_crid() as crid:
            crid.trust_plain_http(registry.host)
            command = Nodectl(crid)
            command.image = push_image(registry, "busybox:1", [busybox_rootfs()]).ref
            done = await command("pull", command.image)
            assert done.returncode == 0, done.stderr
            assert re.fullmatch(rf"{re.escape(command.image)}: sha256:\w{{64}}, .* in .* s\n", done.stdout)
            yield command


@pytest_asyncio.fixture(loop_scope="module")
async def pod(nodectl: Nodectl) -> AsyncIterator[tuple[Sandbox, str]]:
    """A pod with one container that prints a line and stays; (sandbox, container id)."""
    sandbox = await nodectl.crid.run_pod()
    script = "trap 'exit 3' TERM; echo hello; echo oops >&2; while :; do sleep 0.1; done"
    container = await nodectl.crid.run(sandbox, nodectl.image, ["sh", "-c", script])
    yield sandbox, container
    await nodectl.crid.clean()


Pod = tuple[Sandbox, str]


def name_of(pod: Pod) -> str:
    return str(pod[0][1].metadata.name)


async def test_pods_and_ps_show_what_runs(nodectl: Nodectl, pod: Pod) -> None:
    (item,) = (await nodectl.json("pods"))["items"]
    assert (item["namespace"], item["name"]) == ("test", name_of(pod))
    assert (item["status"], item["ready"], item["sandboxId"]) == ("Running", "1/1", pod[0][0])
    table = await nodectl("pods")
    assert re.search(rf"test +{name_of(pod)} +1/1 +Running +0 +\d+s +{re.escape(item['ip'])}\n", table.stdout)
    assert "no node agent answers" in table.stderr
    (container,) = (await nodectl.json("ps"))["items"]
    assert (container["id"], container["state"], container["image"]) == (pod[1], "running", nodectl.image)
    wide = await nodectl("ps", "-o", "wide")
    assert nodectl.image in wide.stdout and "MESSAGE" in wide.stdout


async def test_ps_all_tells_exit_codes(nodectl: Nodectl, pod: Pod) -> None:
    id = await nodectl.crid.run(pod[0], nodectl.image, ["sh", "-c", "exit 7"], name="seven")
    await nodectl.crid.ended(id)
    assert "seven" not in (await nodectl("ps")).stdout
    assert re.search(r"seven +Exited \(7\)", (await nodectl("ps", "-a")).stdout)


async def test_names_that_mean_nothing_or_too_much(nodectl: Nodectl, pod: Pod) -> None:
    done = await nodectl("logs", name_of(pod)[:-1])
    assert done.returncode == 1
    assert done.stderr == f"nodectl: no pod or container {name_of(pod)[:-1]!r}: did you mean test/{name_of(pod)}\n"
    done = await nodectl("exec", name_of(pod), "-c", "nobody", "--", "true")
    assert (done.returncode, "has no container 'nobody', only main" in done.stderr) == (1, True)


async def test_logs_are_printed_and_followed_to_the_end(nodectl: Nodectl, pod: Pod) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.4; done"
    id = await nodectl.crid.run(pod[0], nodectl.image, ["sh", "-c", script], name="talk")
    followed = nodectl.start("logs", "-f", f"test/{name_of(pod)}", "-c", "talk")
    out, err = await asyncio.to_thread(followed.communicate, None, SECONDS)
    assert (followed.returncode, out, err) == (0, "line 1\nline 2\nline 3\n", "")
    assert (await nodectl("logs", id[:12], "--tail", "1")).stdout == "line 3\n"
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z line 3", (await nodectl("logs", id, "-t", "--tail=1")).stdout)
    assert (await nodectl("logs", id, "--since", "2100-01-01T00:00:00Z")).stdout == ""
    assert (await nodectl("logs", pod[1])).stdout == "hello\noops\n"


async def test_logs_follow_over_a_rotation(nodectl: Nodectl, pod: Pod) -> None:
    script = "i=0; while [ $i -lt 20 ]; do echo $i; i=$((i+1)); sleep 0.1; done"
    id = await nodectl.crid.run(pod[0], nodectl.image, ["sh", "-c", script], name="turn")
    followed = nodectl.start("logs", "-f", id)
    log = Path((await nodectl.crid.status(id)).log_path)
    await asyncio.sleep(1)
    log.rename(f"{log}.old")
    await nodectl.crid.cri.ReopenContainerLog(container_id=id)
    out, _ = await asyncio.to_thread(followed.communicate, None, SECONDS)
    everything = [str(number) for number in range(20)]
    assert out.split() == everything
    assert (await nodectl("logs", id)).stdout.split() == everything
    assert (await nodectl("logs", id, "--tail", "18")).stdout.split() == everything[2:]


async def test_logs_of_the_attempt_before(nodectl: Nodectl, pod: Pod) -> None:
    first = await nodectl.crid.run(
        pod[0], nodectl.image, ["echo", "first"], metadata={"name": "again"}, log_path="again0.log"
    )
    await nodectl.crid.ended(first)
    second = {"name": "again", "attempt": 1}
    id = await nodectl.crid.run(pod[0], nodectl.image, ["echo", "second"], metadata=second, log_path="again1.log")
    await nodectl.crid.ended(id)
    assert (await nodectl("logs", name_of(pod), "-c", "again")).stdout == "second\n"
    assert (await nodectl("logs", "-p", name_of(pod), "-c", "again")).stdout == "first\n"
    assert "no earlier attempt" in (await nodectl("logs", "-p", name_of(pod), "-c", "main")).stderr


async def test_exec_passes_output_and_exit_code_on(nodectl: Nodectl, pod: Pod) -> None:
    done = await nodectl("exec", name_of(pod), "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")
    done = await nodectl("exec", "-i", name_of(pod), "--", "sh", "-c", "cat; exit 5", input="typed\n")
    assert (done.returncode, done.stdout) == (5, "typed\n")
    done = await nodectl("exec", "-i", name_of(pod), "cat", input="")
    assert (done.returncode, done.stdout) == (0, "")
    done = await nodectl("exec", name_of(pod), "nothing-of-that-name")
    assert done.returncode != 0 and "nothing-of-that-name" in done.stderr
    assert (await nodectl("exec", name_of(pod))).returncode == 2
    assert (await nodectl("exec", "-it", name_of(pod), "sh")).returncode == 2


async def test_exec_with_stdin_from_dev_null_ends(nodectl: Nodectl, pod: Pod) -> None:
    argv = nodectl.argv("exec", "-i", name_of(pod), "--", "cat")
    done = await asyncio.to_thread(subprocess.run, argv, stdin=subprocess.DEVNULL, cwd=ROOT, timeout=SECONDS)
    assert done.returncode == 0


async def test_exec_with_a_terminal(nodectl: Nodectl, pod: Pod) -> None:
    """Keys go in, the size of the window follows, Ctrl-C goes to the command, and its exit code comes back."""
    argv = nodectl.argv("exec", "-it", name_of(pod), "--", "sh")
    child, terminal = await asyncio.to_thread(_on_a_terminal, argv, 33, 101)
    try:
        await asyncio.to_thread(_expect, terminal, "# ")
        os.write(terminal, b"stty size\r")
        await asyncio.to_thread(_expect, terminal, "33 101")
        _resize(terminal, 44, 99)
        child.send_signal(signal.SIGWINCH)
        await asyncio.sleep(0.3)
        os.write(terminal, b"stty size\r")
        await asyncio.to_thread(_expect, terminal, "44 99")
        os.write(terminal, b"sleep 100\r")
        await asyncio.sleep(0.3)
        os.write(terminal, b"\x03")
        os.write(terminal, b"exit 9\r")
        assert await asyncio.to_thread(child.wait, SECONDS) == 9
    finally:
        os.close(terminal)
        if child.poll() is None:
            child.kill()
            child.wait()


def _on_a_terminal(argv: list[str], rows: int, columns: int) -> tuple[subprocess.Popen[bytes], int]:
    ours, theirs = pty.openpty()
    _resize(ours, rows, columns)
    child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True)
    os.close(theirs)
    return child, ours


def _resize(terminal: int, rows: int, columns: int) -> None:
    import termios

    termios.tcsetwinsize(terminal, (rows, columns))


def _expect(terminal: int, text: str) -> None:
    seen, deadline = "", time.monotonic() + SECONDS
    while text not in seen:
        assert select.select([terminal], [], [], deadline - time.monotonic())[0], f"{text!r} does not come: {seen!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")


async def test_inspect_pod_container_and_image(nodectl: Nodectl, pod: Pod) -> None:
    found = await nodectl.json("inspect", name_of(pod))
    assert (found["kind"], found["sandboxes"][0]["status"]["id"]) == ("Pod", pod[0][0])
    found = await nodectl.json("inspect", pod[1][:10])
    assert (found["kind"], found["status"]["id"]) == ("Container", pod[1])
    found = await nodectl.json("inspect", name_of(pod), "-c", "main")
    assert found["status"]["id"] == pod[1]
    found = await nodectl.json("inspect", nodectl.image)
    assert found["kind"] == "Image" and nodectl.image in found["image"]["repoTags"]
    assert (await nodectl("inspect", "nobody")).returncode == 1


async def test_images_are_listed_pulled_and_removed(nodectl: Nodectl, pod: Pod) -> None:
    (image,) = (await nodectl.json("images"))["items"]
    assert image["tags"] == [nodectl.image]
    repository, _, tag = nodectl.image.rpartition(":")
    assert re.search(rf"{re.escape(repository)} +{tag} +{image['id'][7:20]}", (await nodectl("images")).stdout)
    assert (await nodectl.json("pull", nodectl.image))["id"] == image["id"]
    assert "no image 'localhost/none:1'" in (await nodectl("rmi", "localhost/none:1")).stderr
    missing = await nodectl("pull", nodectl.image.replace("busybox", "absent"))
    assert missing.returncode == 1 and "absent" in missing.stderr and missing.stderr.count("\n") == 1


async def test_stats_count_pods_and_containers(nodectl: Nodectl, pod: Pod) -> None:
    whole, inside = (await nodectl.json("stats", name_of(pod)))["items"]
    assert (whole["container"], inside["container"]) == (None, "main")
    assert inside["memoryBytes"] > 0 and inside["milliCores"] is not None
    assert len((await nodectl.json("stats", "-p"))["items"]) == 1
    watched = nodectl.start("top", "-d", "0.2")
    await asyncio.sleep(3)
    watched.send_signal(signal.SIGINT)
    out, _ = await asyncio.to_thread(watched.communicate, None, SECONDS)
    assert watched.returncode == 130 and out.count("CONTAINER") > 1


async def test_events_of_the_runtime(nodectl: Nodectl, pod: Pod) -> None:
    watched = nodectl.start("events", "--runtime", "-o", "json")
    await asyncio.sleep(2)
    id = await nodectl.crid.run(pod[0], nodectl.image, ["true"], name="brief")
    await nodectl.crid.ended(id)
    await asyncio.sleep(0.5)
    watched.send_signal(signal.SIGINT)
    out, _ = await asyncio.to_thread(watched.communicate, None, SECONDS)
    reasons = [event["reason"] for event in map(json.loads, out.splitlines()) if event["id"] == id]
    assert reasons == ["Created", "Started", "Stopped"]
    assert "no node agent answers" in (await nodectl("events")).stderr


async def test_stop_and_rm(nodectl: Nodectl, pod: Pod) -> None:
    assert "main runs; stop it first, or use rm -f" in (await nodectl("rm", pod[1])).stderr
    assert (await nodectl("stop", pod[1])).stdout == f"stopped container {pod[1][:13]} (main)\n"
    assert (await nodectl.crid.status(pod[1])).exit_code == 3
    assert (await nodectl("rm", pod[1])).returncode == 0
    assert (await nodectl.json("ps", "-a"))["items"] == []
    await nodectl.crid.run(pod[0], nodectl.image, ["sleep", "100"], name="other")
    assert (await nodectl("rm", name_of(pod))).returncode == 1
    assert (await nodectl("rm", "-f", name_of(pod))).stdout == f"removed pod test/{name_of(pod)}\n"
    assert (await nodectl.json("pods"))["items"] == []


async def test_fsck_finds_a_used_node_clean(nodectl: Nodectl, pod: Pod) -> None:
    done = await nodectl("fsck", "--kubelet-root", str(nodectl.crid.base / "kubelet"))
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "clean"), done.stdout + done.stderr
    assert (await nodectl.json("fsck", "--kubelet-root", str(nodectl.crid.base / "kubelet")))["items"] == []


async def test_a_registry_that_is_not_there_is_not_taken_for_the_runtime(nodectl: Nodectl) -> None:
    done = await nodectl("pull", "127.0.0.1:1/x:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr and "no CRI runtime" not in done.stderr
    away = nodectl.argv("images")
    away[away.index("--cri") + 1] = "unix:///nowhere/cri.sock"
    gone = await asyncio.to_thread(subprocess.run, away, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS)
    assert "no CRI runtime answers on unix:///nowhere/cri.sock" in gone.stderr


async def test_doctor_and_version_see_this_crid(nodectl: Nodectl) -> None:
    found = {each["subject"]: each for each in (await nodectl.json("doctor"))["items"]}
    assert found["runtime"]["verdict"] == "ok" and "crid" in found["runtime"]["found"]
    assert found["overlay"]["verdict"] == found["NetworkReady"]["verdict"] == "ok"
    versions = {each["what"]: each for each in (await nodectl.json("version"))["items"]}
    assert versions["runtime"]["version"].startswith("crid ")
    assert "does not answer" in versions["agent"]["state"]


async def test_a_runtime_that_is_busy_is_waited_for(nodectl: Nodectl) -> None:
    """A connection that takes some time to be taken is no sign that nobody is there."""
    process = nodectl.crid.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    asking = nodectl.start("images", "-q")
    await asyncio.sleep(2)
    process.send_signal(signal.SIGCONT)
    out, err = await asyncio.to_thread(asking.communicate, None, SECONDS)
    assert (asking.returncode, out[:7]) == (0, "sha256:"), err


async def test_a_runtime_that_is_away(nodectl: Nodectl) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "nodeagent.ctl.main", "--cri", "/tmp/na-nobody.sock", "ps"],
        capture_output=True, text=True, cwd=ROOT, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "nodectl: no CRI runtime answers on /tmp/na-nobody.sock: start it with `nodeagent up` "
        "or `systemctl start crid`\n"
    )


async def test_completion_of_verbs_and_pods(nodectl: Nodectl, pod: Pod) -> None:
    assert "argcomplete" in (await nodectl("completion", "bash")).stdout.lower()
    assert "logs" in await _completed(nodectl, "nodectl lo")
    line = f"nodectl --cri {nodectl.crid.socket} logs {name_of(pod)[:5]}"
    assert name_of(pod) in await _completed(nodectl, line)


async def _completed(nodectl: Nodectl, line: str) -> str:
    """What argcomplete answers to a shell, which reads it from descriptor 8."""
    environment = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARC_DEBUG": ""}
    script = f"{sys.executable} -m nodeagent.ctl.main 8>&1 9>/dev/null >/dev/null 2>&1"
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=SECONDS
    )
    return done.stdout
