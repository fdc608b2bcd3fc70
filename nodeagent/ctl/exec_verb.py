"""nodectl exec: a command in a running container. The exit status is the command's own.

With -i or -t the runtime's streaming URL is used, so terminals and input without end work. With neither, one ExecSync
call does, which costs a few milliseconds and needs no connection beside the CRI socket.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack

from cri.proto import api_pb2 as api
from cri.streaming_client import exec_session
from nodeagent.ctl import terminal
from nodeagent.ctl.complaint import USAGE, Complaint
from nodeagent.ctl.completers import completed, containers, pods
from nodeagent.ctl.session import CALL_SECONDS, Session
from nodeagent.ctl.targets import find_container
from nodeagent.ctl.world import look

STDIN, STDOUT, STDERR = 0, 1, 2


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "nodectl exec [-i] [-t] [-c NAME] POD|CONTAINER -- COMMAND [ARGUMENT ...]"
    completed(parser.add_argument("target", metavar="POD|CONTAINER", help="name, namespace/name or id"), pods)
    parser.add_argument("words", nargs="*", metavar="COMMAND", help='what to run; behind "--" if it has options')
    completed(parser.add_argument("-c", "--container", default="", help="which of the pod's containers"), containers)
    parser.add_argument("-i", "--stdin", action="store_true", help="pass stdin on")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")


async def run(session: Session, given: argparse.Namespace) -> int:
    command = given.words + given.command
    if not command:
        raise Complaint(f"nothing to run; say: nodectl exec {given.target} -- COMMAND", USAGE)
    if given.tty and not (given.stdin and os.isatty(STDIN)):
        raise Complaint("-t needs -i and a terminal; without one, leave -t away", USAGE)
    container, remark = find_container(await look(session), given.target, given.container)
    if container.state != api.CONTAINER_RUNNING:
        raise Complaint(f"container {container.metadata.name} does not run; see: nodectl logs {given.target}")
    if remark and not given.tty:
        session.note(remark)
    if given.stdin or given.tty:
        return await _stream(session, given, container.id, command)
    return await _once(session, container.id, command)


async def _once(session: Session, id: str, command: list[str]) -> int:
    answer = await session.cri.ExecSync(api.ExecSyncRequest(container_id=id, cmd=command), timeout=None)
    for stream, data in ((sys.stdout.buffer, answer.stdout), (sys.stderr.buffer, answer.stderr)):
        stream.write(data)
        stream.flush()
    return int(answer.exit_code)


async def _stream(session: Session, given: argparse.Namespace, id: str, command: list[str]) -> int:
    request = api.ExecRequest(
        container_id=id, cmd=command, tty=given.tty, stdin=given.stdin, stdout=True, stderr=not given.tty
    )
    url = (await session.cri.Exec(request, timeout=CALL_SECONDS)).url
    with ExitStack() as stack:
        if given.tty:
            stack.enter_context(terminal.raw(STDIN))
        sizes = terminal.sizes(STDIN) if given.tty else None
        stdin = STDIN if given.stdin else None
        return await exec_session(url, stdin=stdin, stdout=STDOUT, stderr=STDERR, sizes=sizes)
