"""What port forwarding says where nobody listens."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from cri.server.sessions import PodSessions
from cri.server.streaming.runtime import StreamingError


async def test_a_host_without_ipv6_hides_nothing_of_what_ipv4_says() -> None:
    class Pod:
        async def tcp_socket(self, family: int) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            return socket.socket(family)

    sandbox = SimpleNamespace(id="p", name="ns/pod", ready=True, host_network=False, pod=Pod())
    store: Any = SimpleNamespace(sandboxes=SimpleNamespace(find=lambda id: sandbox))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(StreamingError, match=f"nothing answers on port {port} of pod ns/pod") as caught:
            await PodSessions(store).connect("p", port)
    assert "127.0.0.1: " in str(caught.value) and "::1: Address family not supported" in str(caught.value)
