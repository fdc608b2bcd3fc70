"""Makes a plugin a program: environment and standard input in, a result or an error on standard output.

SPEC.md, section 2. Exit status 0 or 1; without CNI_COMMAND it tells what it is. What it reads is limited in size.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from cni import call as commands
from cni import versions
from cni.call import Call, parse_args
from cni.errors import CniError, DecodingFailure, ErrorCode, IncompatibleVersion, InvalidEnvironment
from cni.host import Host
from cni.journal import Journal
from cni.names import check_container_id, check_ifname, check_network_name
from cni.plugin import Plugin, Site, dispatch
from cni.podnetns import open_pod_netlink
from cni.runner import PluginRunner

STDIN_LIMIT: Final = 4 << 20
#: What each command needs of the environment, and since which version of the specification it exists.
_NEEDED: Final = {
    commands.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    commands.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    commands.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    commands.STATUS: (),
    commands.GC: ("CNI_PATH",),
}
_SINCE: Final = {commands.CHECK: "0.4.0", commands.STATUS: "1.1.0", commands.GC: "1.1.0"}


def run_as_program(plugin: Plugin) -> NoReturn:
    """Serve the one call that the process was started for, and exit."""
    environment = dict(os.environ)
    if not environment.get("CNI_COMMAND"):
        print(
            f"CNI plugin {plugin.type}\nCNI protocol versions supported: {', '.join(versions.SUPPORTED)}",
            file=sys.stderr,
        )
        raise SystemExit(0)
    version = versions.CURRENT
    try:
        if environment["CNI_COMMAND"] == commands.VERSION:
            _print({"cniVersion": versions.CURRENT, "supportedVersions": versions.SUPPORTED})
            raise SystemExit(0)
        config = _read_config()
        version = str(config.get("cniVersion") or versions.UNSPOKEN)
        answer = serve(plugin, read_call(environment, config))
    except CniError as error:
        _print(error.to_json(version))
        raise SystemExit(1) from None
    except OSError as error:
        notes = "; ".join(getattr(error, "__notes__", ()))
        failed = CniError(f"{plugin.type}: {error.strerror or error}", notes, code=ErrorCode.IO_FAILURE)
        _print(failed.to_json(version))
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001 - whatever fails, the runtime is owed an error object
        traceback.print_exc()
        failed = CniError(f"{plugin.type}: {type(error).__name__}: {error}", "standard error says where")
        _print(failed.to_json(version))
        raise SystemExit(1) from None
    if answer is not None:
        _print(answer)
    raise SystemExit(0)


def serve(plugin: Plugin, call: Call) -> dict[str, Any] | None:
    """Carry out a call with everything made for it alone; the JSON of ADD's result."""
    host = Host()
    pod = open_pod_netlink(call.netns) if plugin.needs_pod and _works_in_pod(call) else None
    try:
        result = dispatch(plugin, call, Site(host, Journal(), PluginRunner(), pod))
        host.remove_cut_links()
    finally:
        host.close()
        if pod is not None:
            pod.close()
    return result.to_json(call.version or versions.UNSPOKEN) if result is not None else None


def _works_in_pod(call: Call) -> bool:
    """ADD and CHECK need the pod's namespace; DEL cleans up in it if it is still there."""
    if call.command == commands.DEL:
        return bool(call.netns) and os.path.exists(call.netns)
    return call.command in (commands.ADD, commands.CHECK)


def read_call(environment: Mapping[str, str], config: Mapping[str, Any]) -> Call:
    """The call that environment and configuration describe; raises CniError."""
    command = environment["CNI_COMMAND"]
    if command not in _NEEDED:
        raise InvalidEnvironment(f"unknown CNI_COMMAND: {command}", f"known: {', '.join(_NEEDED)}, VERSION")
    missing = [name for name in _NEEDED[command] if not environment.get(name)]
    if missing:
        raise InvalidEnvironment(f"required env variables [{','.join(missing)}] missing")
    check_network_name(config.get("name"))
    _check_version(command, config)
    call = Call(
        command=command,
        config=config,
        container_id=environment.get("CNI_CONTAINERID", ""),
        netns=environment.get("CNI_NETNS", ""),
        ifname=environment.get("CNI_IFNAME", ""),
        args=parse_args(environment.get("CNI_ARGS", "")),
        path=tuple(part for part in environment.get("CNI_PATH", "").split(":") if part),
    )
    if call.container_id:
        check_container_id(call.container_id)
    if call.ifname:
        check_ifname(call.ifname)
    return call


def _check_version(command: str, config: Mapping[str, Any]) -> None:
    spoken = str(config.get("cniVersion") or versions.UNSPOKEN)
    if spoken not in versions.SUPPORTED:
        raise IncompatibleVersion(
            "incompatible CNI versions", f"config is {spoken!r}, plugin supports {', '.join(versions.SUPPORTED)}"
        )
    since = _SINCE.get(command, versions.UNSPOKEN)
    if not versions.at_least(spoken, since):
        raise IncompatibleVersion(f"config version does not allow {command}", f"{spoken} is older than {since}")


def _read_config() -> dict[str, Any]:
    data = sys.stdin.buffer.read(STDIN_LIMIT + 1)
    if len(data) > STDIN_LIMIT:
        raise DecodingFailure(f"the network configuration on standard input is larger than {STDIN_LIMIT} bytes")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodingFailure(f"the network configuration on standard input is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise DecodingFailure("the network configuration on standard input is not a JSON object")
    return config


def _print(doc: Mapping[str, Any]) -> None:
    json.dump(doc, sys.stdout)
    sys.stdout.flush()
