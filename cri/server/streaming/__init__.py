"""The streaming half of the CRI: exec, attach and port-forward, from a URL to bytes in a container.

An RPC leaves a checked request here and returns a URL; a client comes to that URL and its connection becomes streams.

    server.py, tokens.py, requests.py   listening, one-time URLs, what was asked for; config.py [streaming]
    http.py, negotiation.py             the HTTP request, the upgrade, which protocol in which version
    spdy/, over_spdy.py                 streams that the client opens
    websocket.py, channels.py, over_websocket.py    streams by channel number
    remote_command.py, port_forward.py  what happens on the streams, whatever carries them
    status.py, resize.py                the ending and the terminal's size, as the wire has them
    wire.py, inbox.py, descriptors.py, endpoints.py   bytes with back-pressure in both directions
    runtime.py                          what is asked of the runtime

Memory is flat: one chunk per direction and a bounded inbox per stream, however slow either side is.
"""

from cri.server.streaming.server import StreamingServer

__all__ = ["StreamingServer"]
