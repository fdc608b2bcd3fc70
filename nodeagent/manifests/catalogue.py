"""What is wanted, from the files of the manifest directory: the last good version of each, one owner for each pod.

    put(name, bytes)  a file as it is now        -> parsed; if broken, the version before it goes on
    drop(name)        a file is gone             -> its pods are not wanted any more
    wanted()          pods by key, claims and volumes, and the problems of all files

No input or output here, so that every order of events can be tested. A pod that two files define belongs to the one
that had it first; the other file is reported, and takes over when the first lets go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nodeagent.manifests.documents import documents
from nodeagent.manifests.text import Document, ManifestError
from nodeagent.pods.pod import Key, Pod
from nodeagent.pods.problems import Findings, Path, dotted
from nodeagent.pods.validate import check_pod

STORAGE_KINDS = ("PersistentVolume", "PersistentVolumeClaim")
_TEMPLATE = "write its spec.template as a Pod, for no controller makes one of it here"
#: What to do about documents of other kinds, which people have.
INSTEAD = {
    **dict.fromkeys(("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob"), _TEMPLATE),
    **dict.fromkeys(("ConfigMap", "Secret"), "put its values into the pod's env, or files of the node into a hostPath"),
    "Service": "use ports[].hostPort, or the pod's own address",
}


@dataclass(frozen=True, slots=True)
class FileProblem:
    """`line` is 0 and `path` empty where they are not known. A `fatal` one keeps the file from being used."""

    file: str
    reason: str
    path: str = ""
    line: int = 0
    fatal: bool = True

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.reason}" if self.path else f"{place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files say together; a pod of a broken file is there in its last good version."""

    pods: dict[Key, Pod] = field(default_factory=dict)
    storage: list[dict[str, Any]] = field(default_factory=list)
    problems: list[FileProblem] = field(default_factory=list)


@dataclass(slots=True)
class _File:
    pods: list[Pod] = field(default_factory=list)
    storage: list[dict[str, Any]] = field(default_factory=list)
    problems: list[FileProblem] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        return any(problem.fatal for problem in self.problems)


class Catalogue:
    """`node` is the node's name; `source` leads a file's name in the identity of its pods, such as a directory."""

    def __init__(self, node: str, source: str) -> None:
        self._node = node
        self._source = source
        self._files: dict[str, _File] = {}
        self._owners: dict[Key, str] = {}

    def names(self) -> set[str]:
        return set(self._files)

    def put(self, name: str, data: bytes) -> bool:
        """Take a file in; whether it was good. A broken one is reported and changes nothing else."""
        try:
            fresh = self._read(name, documents(data))
        except ManifestError as error:
            fresh = _File(problems=[FileProblem(name, error.reason, line=error.line)])
        if fresh.broken:
            self.report(name, *fresh.problems)
            return False
        self._files[name] = fresh
        return True

    def report(self, name: str, *problems: FileProblem) -> None:
        """A file that cannot be used as it is: what it said before goes on."""
        before = self._files.get(name) or _File()
        self._files[name] = _File(before.pods, before.storage, list(problems))

    def drop(self, name: str) -> None:
        self._files.pop(name, None)

    def wanted(self) -> Wanted:
        wanted = Wanted()
        contested: dict[Key, list[tuple[str, Pod]]] = {}
        for name, file in sorted(self._files.items()):
            wanted.problems.extend(file.problems)
            wanted.storage.extend(file.storage)
            for pod in file.pods:
                contested.setdefault(pod.key, []).append((name, pod))
        for key, claims in contested.items():
            name, pod = next((claim for claim in claims if claim[0] == self._owners.get(key)), claims[0])
            wanted.pods[key] = pod
            for loser, _ in claims:
                if loser != name:
                    wanted.problems.append(FileProblem(loser, f"pod {key} is already defined by {name}"))
            self._owners[key] = name
        self._refuse_shared_uids(wanted)
        self._owners = {key: name for key, name in self._owners.items() if key in wanted.pods}
        return wanted

    def _refuse_shared_uids(self, wanted: Wanted) -> None:
        """Directories and cgroups are named by uid, so of two pods that give themselves the same one only one runs."""
        seen: dict[str, Key] = {}
        for key, pod in sorted(wanted.pods.items()):
            first = seen.setdefault(pod.uid, key)
            if first != key:
                del wanted.pods[key]
                reason = f"pod {key} has the uid of pod {first}"
                wanted.problems.append(FileProblem(self._owners[key], reason, "metadata.uid"))

    def _read(self, name: str, found: list[Document]) -> _File:
        file = _File()
        for document in found:
            findings = Findings()
            kind = document.value.get("kind")
            if kind == "Pod":
                findings = check_pod(document.value)
                if not findings.errors:
                    file.pods.append(Pod.of(document.value, f"{self._source}/{name}", self._node))
            elif kind in STORAGE_KINDS:
                file.storage.append(document.value)
            else:
                findings.unsupported(("kind",), kind or "", ("Pod", *STORAGE_KINDS, "List"), INSTEAD.get(str(kind), ""))
            file.problems.extend(_problems(name, document, findings))
        file.problems.extend(_duplicates(name, file.pods))
        return file


def _problems(name: str, document: Document, findings: Findings) -> list[FileProblem]:
    def of(path: Path, reason: str, fatal: bool) -> FileProblem:
        return FileProblem(name, reason, dotted(path), document.line(path), fatal)

    errors = [of(each.path, each.reason, True) for each in findings.errors]
    return errors + [of(each.path, each.reason, False) for each in findings.warnings]


def _duplicates(name: str, pods: list[Pod]) -> list[FileProblem]:
    keys = [pod.key for pod in pods]
    return [FileProblem(name, f"defines pod {key} twice") for key in sorted(set(keys)) if keys.count(key) > 1]
