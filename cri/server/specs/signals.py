"""Stop signals: the interface's Signal values, an image's StopSignal, and the kernel's numbers (signal(7))."""

from __future__ import annotations

import signal
from typing import cast

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest

DEFAULT = int(signal.SIGTERM)
# glibc keeps the first two real-time signals for itself; everybody's SIGRTMIN is 34.
_RTMIN, _RTMAX = 34, 64
_SYNONYMS = {"SIGCLD": "SIGCHLD", "SIGIOT": "SIGABRT", "SIGPOLL": "SIGIO"}


def number_of(name: str) -> int:
    """The kernel's number of 'SIGTERM', 'TERM', 'SIGRTMIN+3', 'RTMAX-1', '15'; raises InvalidRequest."""
    text = name.strip().upper()
    if text.isascii() and text.isdecimal() and 1 <= int(text[:3]) <= _RTMAX and len(text) <= 2:
        return int(text)
    full = text if text.startswith("SIG") else f"SIG{text}"
    full = _SYNONYMS.get(full, full)
    if full.startswith("SIGRT"):
        return _real_time(full, name)
    if full in signal.Signals.__members__:
        return int(signal.Signals[full])
    raise InvalidRequest(f"stop signal {name[:40]!r} is no signal of signal(7)")


def _real_time(full: str, name: str) -> int:
    base, sign, offset = full.replace("-", "+-").partition("+")
    start = {"SIGRTMIN": _RTMIN, "SIGRTMAX": _RTMAX}.get(base)
    try:
        number = (start or 0) + (int(offset) if sign else 0)
    except ValueError:
        number = 0
    if start is None or not _RTMIN <= number <= _RTMAX:
        raise InvalidRequest(f"stop signal {name[:40]!r} is no signal of signal(7)")
    return number


def _interface_number(name: str) -> int:
    text = name.removeprefix("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-")
    return number_of(text)


_BY_VALUE = {
    value: _interface_number(name) for name, value in api.Signal.items() if value != api.SIGNAL_RUNTIME_DEFAULT
}
#: Several names share a number (SIGIOT, SIGABRT): the first one is what a status reports.
_BY_NUMBER: dict[int, api.Signal] = {}
for _value in api.Signal.values():
    if _value in _BY_VALUE:
        _BY_NUMBER.setdefault(_BY_VALUE[_value], cast("api.Signal", _value))


def stop_signal(asked: api.Signal, image: str) -> int:
    """The signal that StopContainer sends: the request's, else the image's StopSignal, else SIGTERM."""
    if asked == api.SIGNAL_RUNTIME_DEFAULT:
        return number_of(image) if image else DEFAULT
    if asked not in _BY_VALUE:
        raise InvalidRequest(f"stop_signal {asked} is no value of the interface's Signal")
    return _BY_VALUE[asked]


def interface_signal(number: int) -> api.Signal:
    """A kernel signal number as the interface's Signal value; it has none for the two that glibc keeps for itself."""
    return _BY_NUMBER.get(number, api.SIGNAL_RUNTIME_DEFAULT)
