"""csi-hostpath: the driver process. It registers itself, serves until SIGTERM, and leaves mounts to the pods that use
them: only NodeUnpublishVolume and NodeUnstageVolume take them away.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import sys
from pathlib import Path

import grpc

from csi.hostpath.controller import Controller
from csi.hostpath.identity import Identity
from csi.hostpath.node import Node
from csi.hostpath.refusal import Locks, answering, log
from csi.hostpath.registration import Registration
from csi.hostpath.sockets import SocketError, served
from csi.hostpath.store import Store
from csi.proto import csi_pb2, pluginregistration_pb2
from csi.proto.services import handler
from runtime.linux.journal import log_to_stderr
from runtime.linux.notify import notify

NAME = "hostpath.csi.nodeagent"
KUBELET_ROOT = Path("/var/lib/kubelet")
STOP_GRACE = 5.0
REGISTRATION_GRACE = 1.0
#: CSI spec, GetPluginInfoResponse.name.
DRIVER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="csi-hostpath", description="CSI driver whose volumes are directories")
    parser.add_argument("--name", default=NAME, help="driver name, which volumes refer to (default: %(default)s)")
    parser.add_argument("--endpoint", help=f"CSI socket (default: unix://{KUBELET_ROOT}/plugins/<name>/csi.sock)")
    parser.add_argument(
        "--registration-dir",
        type=Path,
        default=KUBELET_ROOT / "plugins_registry",
        help="where the agent looks for plugins (default: %(default)s)",
    )
    parser.add_argument("--data-dir", type=Path, default=Path("/var/lib/csi-hostpath"), help="default: %(default)s")
    parser.add_argument("--node-id", default=platform.node(), help="this node's name (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not DRIVER_NAME.fullmatch(arguments.name):
        parser.error(f"--name {arguments.name!r}: at most 63 letters, digits, dots and dashes")
    endpoint = arguments.endpoint or f"unix://{KUBELET_ROOT}/plugins/{arguments.name}/csi.sock"
    arguments.endpoint = Path(endpoint.removeprefix("unix://").removeprefix("unix:"))
    if not arguments.endpoint.is_absolute():
        parser.error(f"--endpoint {endpoint}: has to be unix:///PATH")
    return arguments


def driver_handlers(name: str, store: Store, node_id: str) -> list[grpc.GenericRpcHandler]:
    """All three services of the driver, ready to be served."""
    locks = Locks()
    topology = csi_pb2.Topology(segments={f"topology.{name}/node": node_id})
    services: dict[str, Identity | Controller | Node] = {
        "Identity": Identity(name),
        "Controller": Controller(store, locks, topology),
        "Node": Node(store, locks, node_id, topology),
    }
    return [
        handler(
            csi_pb2.DESCRIPTOR.services_by_name[service],
            {rpc: answering(rpc, answer) for rpc, answer in implementation.answers().items()},
        )
        for service, implementation in services.items()
    ]


def registration_handler(name: str, endpoint: Path) -> grpc.GenericRpcHandler:
    answers = Registration(name, endpoint).answers()
    return handler(
        pluginregistration_pb2.DESCRIPTOR.services_by_name["Registration"],
        {rpc: answering(rpc, answer) for rpc, answer in answers.items()},
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    log_to_stderr()
    os.umask(0o077)  # nobody else may connect to a socket in the moment before its chmod
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before any thread: all of them leave the signals to sigwait
    try:
        _serve(arguments, signals)
    except (SocketError, OSError) as error:
        print(f"csi-hostpath: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(arguments: argparse.Namespace, signals: set[signal.Signals]) -> None:
    name, endpoint = arguments.name, arguments.endpoint
    store = Store(arguments.data_dir)
    with served(endpoint, driver_handlers(name, store, arguments.node_id), grace=STOP_GRACE):
        # Registered last and withdrawn first: whoever sees this socket may call the other one at once.
        registered_at = arguments.registration_dir / f"{name}-reg.sock"
        with served(registered_at, [registration_handler(name, endpoint)], grace=REGISTRATION_GRACE):
            log.info("%s serves at %s, volumes in %s", name, endpoint, store.root)
            notify("READY=1")
            log.info("stopping on %s", signal.Signals(signal.sigwait(signals)).name)


if __name__ == "__main__":
    sys.exit(main())
