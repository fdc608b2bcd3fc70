"""[streaming] of crid's configuration: TLS, idle sessions; and ports of pods on the host's network."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from wsproto import events

from cri.proto import api_pb2 as api
from cri.streaming_client import exec_session
from tests.support.crid import Crid, running_crid
from tests.support.images import push_image
from tests.support.processes import commanded, eventually
from tests.support.registry import Registry
from tests.support.websocket_client import WebSocketClient

V5 = ["v5.channel.k8s.io"]
IDLE_SECONDS = 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, with its key beside it."""
    directory = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=node"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *files], cwd=directory, capture_output=True, check=True, timeout=60)
    return directory / "cert.pem"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured(certificate: Path, registry: Registry) -> AsyncIterator[tuple[Crid, str]]:
    """A crid whose URLs are https, and a container in it."""
    settings = {"tls_cert": f'"{certificate}"', "tls_key": f'"{certificate.with_name("key.pem")}"'}
    settings["idle_timeout"] = str(IDLE_SECONDS)
    async with running_crid(
        settings="\n".join(f"streaming.{key} = {value}" for key, value in settings.items())
    ) as crid:
        crid.trust_plain_http(registry.host)
        image = push_image(registry, "tls:1")
        await crid.cri.PullImage(image={"image": image.ref})
        yield crid, await crid.run(await crid.run_pod(), image.ref, ["sleep", "1000"])


async def test_commands_by_tls(
    secured: tuple[Crid, str], certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crid, id = secured
    url = (await crid.cri.Exec(container_id=id, cmd=["sh", "-c", "echo secret; exit 3"], stdout=True)).url
    assert url.startswith("https://127.0.0.1:")
    with pytest.raises(ssl.SSLCertVerificationError):
        await exec_session(url, stdin=None, stdout=1, stderr=2)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (tmp_path / "out").open("w+b") as out:
        assert await exec_session(url, stdin=None, stdout=out.fileno(), stderr=2) == 3
        out.seek(0)
        assert out.read() == b"secret\n"


async def test_without_tls_there_is_no_answer(secured: tuple[Crid, str]) -> None:
    crid, id = secured
    url = (await crid.cri.Exec(container_id=id, cmd=["true"], stdout=True)).url
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    writer.write(f"GET /{url.split('/', 3)[3]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    with_nothing = b""
    try:
        with_nothing = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert b"HTTP" not in with_nothing


async def test_a_silent_session_ends_with_its_command(secured: tuple[Crid, str], certificate: Path) -> None:
    crid, id = secured
    trusting = ssl.create_default_context(cafile=str(certificate))
    url = (await crid.cri.Exec(container_id=id, cmd=["sleep", "7777"], stdout=True)).url
    client = await WebSocketClient.connect(url, V5, tls=trusting)
    await asyncio.wait_for(client.until_close(), 10 * IDLE_SECONDS)
    await eventually(lambda: not commanded("sleep", "7777"))
    await client.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest.mark.parametrize("network", [api.POD, api.NODE])
async def test_ports_of_every_address_family(
    crid: Crid, busybox: str, network: api.NamespaceMode, family: socket.AddressFamily, address: str
) -> None:
    """On the pod's own loopback, which for a pod on the host's network is the host's."""
    with socket.socket(family) as taken:
        taken.bind((address, 0))
        port = taken.getsockname()[1]
    options = {"security_context": {"namespace_options": {"network": network}}}
    pod = await crid.run_pod(linux=options)
    shown = f"[{address}]" if family == socket.AF_INET6 else address
    server = await crid.run(pod, busybox, ["httpd", "-f", "-p", f"{shown}:{port}", "-h", "/etc"])
    listening = f"until netstat -ltn | grep -q :{port}; do sleep 0.02; done"
    await crid.exec(server, "sh", "-c", listening)
    url = (await crid.cri.PortForward(pod_sandbox_id=pod[0], port=[port])).url
    client = await WebSocketClient.connect(url, ["v4.channel.k8s.io"])
    await client.send(events.BytesMessage(b"\0GET /passwd HTTP/1.0\r\n\r\n"))
    await asyncio.wait_for(client.until(0, b"root:x:0:0"), 10)
    await client.close()


async def test_the_ports_of_a_pod_are_not_the_hosts(crid: Crid) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pod = await crid.run_pod()
        port = server.getsockname()[1]
        client = await WebSocketClient.connect(
            (await crid.cri.PortForward(pod_sandbox_id=pod[0], port=[port])).url, ["v4.channel.k8s.io"]
        )
        assert b"nothing answers" in await asyncio.wait_for(client.until(1, b"nothing answers"), 10)
        await client.close()
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()
