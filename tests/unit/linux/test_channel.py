"""Messages with fds between our own processes, also broken ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.linux.channel import FDS_MAX, INLINE_MAX, Channel, accept, listen
from runtime.linux.fds import close_all
from runtime.linux.messages import MESSAGE_MAX, ProtocolError


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("size", [0, 1, INLINE_MAX - 100, INLINE_MAX, 1 << 20])
def test_documents_of_any_size(pair: tuple[Channel, Channel], size: int) -> None:
    pair[0].send({"text": "x" * size})
    message = pair[1].recv()
    assert message is not None and message.doc["text"] == "x" * size and message.fds == []


@pytest.mark.parametrize("size", [1, INLINE_MAX, 1 << 20])
def test_a_blob_is_not_parsed(pair: tuple[Channel, Channel], size: int) -> None:
    blob = b"\n{not json" + b"x" * size
    pair[0].send({"text": "line\nbreak"}, blob=blob)
    message = pair[1].recv()
    assert message is not None and message.doc["text"] == "line\nbreak" and message.blob == blob


def test_messages_can_be_passed_on_unread(pair: tuple[Channel, Channel]) -> None:
    near, far = Channel.pair()
    pair[0].send({"a": 1}, [0], blob=b"blob")
    received = pair[1].recv_payload()
    assert received is not None
    near.send_payload(*received)
    message = far.recv()
    assert message is not None and (message.doc["a"], message.blob, len(message.fds)) == (1, b"blob", 1)
    for fd in (*received[1], *message.fds):
        os.close(fd)
    near.close()
    far.close()


def test_too_large(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(ProtocolError, match="limit"):
        pair[0].send({"text": "x" * MESSAGE_MAX})


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_fds_travel_and_are_close_on_exec(pair: tuple[Channel, Channel], size: int) -> None:
    read, write = os.pipe()
    pair[0].send({"text": "x" * size}, [read, write])
    message = pair[1].recv()
    assert message is not None and len(message.fds) == 2
    os.write(message.fds[1], b"through")
    assert os.read(read, 10) == b"through"
    assert not any(os.get_inheritable(fd) for fd in message.fds)
    for fd in (read, write, *message.fds):
        os.close(fd)


def test_fds_that_nobody_wants_are_all_closed() -> None:
    fds = os.pipe()
    close_all([-1, *fds])
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_end_of_file_and_nothing_there(pair: tuple[Channel, Channel]) -> None:
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[1].recv()
    pair[0].close()
    assert pair[1].recv() is None


def test_waiting_with_a_deadline(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(TimeoutError):
        pair[1].recv_within(0.01)


@pytest.mark.parametrize(
    "payload",
    [b"not json", b"[]", b"{}", b'{"v":"1"}', b"[" * 60000, b"@5", b"@-1", b"@", b'{"v":1} ', b"\xff"],
)
def test_nonsense(payload: bytes) -> None:
    raw, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel.adopt(theirs.detach())
    raw.send(payload)
    with pytest.raises(ProtocolError):
        channel.recv()
    raw.close()
    channel.close()


def test_a_document_that_could_change_while_it_is_read() -> None:
    raw, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel.adopt(theirs.detach())
    fd = os.memfd_create("unsealed")
    os.write(fd, b'{"v":1}')
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(raw, [b"@7"], [fd])
    with pytest.raises(ProtocolError, match="sealed"):
        channel.recv()
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)
    raw.close()
    channel.close()


def test_too_many_fds_are_refused_and_none_stays_open() -> None:
    raw, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel.adopt(theirs.detach())
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(raw, [b'{"v":1}'], [0] * (FDS_MAX + 10))
    with pytest.raises(ProtocolError):
        channel.recv()
    assert len(os.listdir("/proc/self/fd")) == before
    raw.close()
    channel.close()


def test_a_listening_socket_is_for_its_owner_and_of_any_depth(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["a-rather-long-directory-name"] * 8)
    directory.mkdir(parents=True)
    path = str(directory / "shim.sock")
    assert len(path) > 200
    listener = listen(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    client = Channel.connect(path)
    server = accept(listener)
    client.send({"hello": 1})
    message = server.recv()
    assert message is not None and message.doc["hello"] == 1
    client.close()
    server.close()
    os.close(listener)
    with pytest.raises(ConnectionRefusedError):
        Channel.connect(path)
