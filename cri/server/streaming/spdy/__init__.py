"""SPDY/3.1: the multiplexing that Kubernetes clients still ask for first in exec, attach and port-forward.

No maintained Python library speaks it, so the framing is ours; HTTP/1.1 and WebSocket are not (h11, wsproto).

    header_block.py   names and values, compressed against the protocol's dictionary
    frames.py         frames -> bytes; decoder.py bytes -> frames, no input or output of their own
    session.py        one connection: frames to streams and back
    stream.py         one stream: its data in order, windows, half-close, reset

Source: "SPDY Protocol - Draft 3.1" (chromium.org). How the one client in use, moby/spdystream, departs from it is noted
where it matters.
"""
