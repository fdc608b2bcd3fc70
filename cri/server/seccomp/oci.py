"""A resolved seccomp filter as OCI `linux.seccomp`, for runtimes that compile it themselves (config-linux.md)."""

from __future__ import annotations

from typing import Any

from cri.server.seccomp.rules import ACTIONS, COMPARISONS, WITH_DATA, Condition, Filter

_DATA = 0xFFFF
_NAMES = {value: name for name, value in ACTIONS.items()}


def as_oci(resolved: Filter) -> dict[str, Any]:
    """The document; it says the same as the filter that is compiled here, in the words of the specification."""
    default = _action(resolved.default_action)
    document: dict[str, Any] = {
        "defaultAction": default.pop("action"),
        "architectures": [f"SCMP_ARCH_{name}" for name in resolved.architectures],
        "syscalls": [
            {"names": list(rule.names), **_action(rule.action), "args": [_argument(each) for each in rule.conditions]}
            for rule in resolved.rules
            if rule.names
        ],
    }
    if default:
        document["defaultErrnoRet"] = default["errnoRet"]
    return document


def _action(value: int) -> dict[str, Any]:
    name = _NAMES.get(value)
    if name is None or name in WITH_DATA:
        name = _NAMES[value & ~_DATA]
        return {"action": name, "errnoRet": value & _DATA}
    return {"action": name}


def _argument(condition: Condition) -> dict[str, Any]:
    return {
        "index": condition.argument,
        "op": f"SCMP_CMP_{COMPARISONS[condition.operator - 1]}",
        "value": condition.value,
        "valueTwo": condition.second,
    }
