"""RuntimeClass handlers: the runtimes that pods can ask for by name, whether they are there, and what they can do.

The built-in runtime needs nothing. Of an external one the program is looked for whenever it is named; what it can do
it is asked itself (`RUNTIME features`, runtime-spec features.md), when crid starts and again when it has changed on
disk. That is a foreign program: it has a deadline, nobody waits for it longer than a moment, and one that does not
know the question can do nothing special. One that gives no answer is asked again a minute later.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cri.proto import api_pb2 as api
from cri.server.config import BUILT_IN, Config, RuntimeConfig
from cri.server.errors import InvalidRequest, WrongState
from runtime.linux.commands import CommandFailed, mortal, run_command

FEATURES_SECONDS = 5.0
FEATURES_LIMIT = 1 << 20
#: Seconds that an answer waits for features that are being asked for; afterwards they are not known yet.
MOMENT = 0.25
RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of an external runtime: its program's path, and its features; or the problem."""

    path: str = ""
    recursive_read_only: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question for a program's features: which program, when, and the answer, None when there was none."""

    mark: tuple[str, int, int]
    at: float
    answer: asyncio.Task[dict[str, Any] | None]

    def failed_long_ago(self) -> bool:
        return self.answer.done() and self.answer.result() is None and time.monotonic() - self.at > RETRY_SECONDS


class Handlers:
    """The configured handlers by name."""

    def __init__(self, config: Config) -> None:
        self._configs = {runtime.name: runtime for runtime in config.runtimes}
        self._default = config.default_runtime
        self._asked: dict[str, _Asked] = {}

    @property
    def default(self) -> str:
        """The name of the handler of pods that ask for none."""
        return self._default

    def find(self, name: str) -> RuntimeConfig:
        """A handler by the name in a request; raises InvalidRequest for an unknown one."""
        found = self._configs.get(name or self._default)
        if found is None:
            names = ", ".join(self._configs)
            raise InvalidRequest(
                f"no runtime handler {name[:80]!r} is configured; there are {names}: correct the RuntimeClass, or add "
                "[runtimes.NAME] to the configuration of crid"
            )
        return found

    def options(self, name: str) -> RuntimeConfig:
        """A handler's options, for containers of a pod that has it; one that is configured no more has none."""
        return self._configs.get(name or self._default) or RuntimeConfig(name)

    async def runtime_of(self, name: str) -> dict[str, Any] | None:
        """The external runtime behind a handler, as SandboxSpec has it; None for the built-in.

        Raises InvalidRequest for an unknown handler, WrongState for a program that is missing.
        """
        handler = self.find(name)
        if not handler.path:
            return None
        found = _look(handler)
        if found.problem:
            raise WrongState(f"runtime handler {handler.name}: {found.problem}")
        return {"name": handler.name, "path": found.path, "args": list(handler.args)}

    async def all(self) -> dict[str, Found]:
        """Every handler, the built-in with all that this project's runtime can do."""
        found = {name: _look(handler) for name, handler in self._configs.items()}
        asked = {name: self._ask(name, each.path) for name, each in found.items() if each.path}
        if asked:
            await asyncio.wait(asked.values(), timeout=MOMENT)
        for name, task in asked.items():
            if task.done() and "rro" in _strings((task.result() or {}).get("mountOptions")):
                found[name] = replace(found[name], recursive_read_only=True)
        return found

    def _ask(self, name: str, path: str) -> asyncio.Task[dict[str, Any] | None]:
        """The task that asks a program for its features; a new one when it has changed, or gave no answer."""
        status = os.stat(path)
        mark = path, status.st_mtime_ns, status.st_size
        known = self._asked.get(name)
        if known is None or known.mark != mark or known.failed_long_ago():
            answer = asyncio.create_task(asyncio.to_thread(_features, [path, *self._configs[name].args]))
            known = self._asked[name] = _Asked(mark, time.monotonic(), answer)
        return known.answer


def _look(handler: RuntimeConfig) -> Found:
    if not handler.path:
        return Found(recursive_read_only=True)
    place = shutil.which(handler.path)
    if place is None:
        return Found(
            problem=f"{handler.path} is no program of this host; install it, or correct path in "
            f"[runtimes.{handler.name}] of crid's configuration"
        )
    return Found(os.path.abspath(place))


def _features(command: list[str]) -> dict[str, Any] | None:
    """The answer to `features`, {} from a runtime that does not know it (crun before 1.10), None when there is none.

    One that hangs dies with crid at the latest.
    """
    try:
        done = run_command(mortal([*command, "features"]), timeout=FEATURES_SECONDS, limit=FEATURES_LIMIT)
    except (CommandFailed, OSError):
        return None
    try:
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def chosen(annotations: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """The annotations that an external runtime may see: those whose key matches one of the patterns."""
    return {
        key: value
        for key, value in annotations.items()
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    }


def handler_messages(found: dict[str, Found], default: str) -> list[api.RuntimeHandler]:
    """Status.runtime_handlers: each by its name, and the default one also by "" (api.proto, RuntimeHandler)."""
    usable = {name: each for name, each in found.items() if not each.problem}
    named = [("", usable[default])] if default in usable else []
    return [_message(name, each) for name, each in [*named, *usable.items()]]


def _message(name: str, found: Found) -> api.RuntimeHandler:
    features = api.RuntimeHandlerFeatures(recursive_read_only_mounts=found.recursive_read_only, user_namespaces=False)
    return api.RuntimeHandler(name=name, features=features)


def handlers_condition(found: dict[str, Found]) -> api.RuntimeCondition | None:
    """A condition about the external handlers; None when none is configured."""
    if set(found) == {BUILT_IN}:
        return None
    problems = [f"{name}: {each.problem}" for name, each in found.items() if each.problem]
    return api.RuntimeCondition(
        type="RuntimeHandlersReady",
        status=not problems,
        reason="RuntimeHandlerMissing" if problems else "",
        message="; ".join(problems),
    )
