"""The shim's side of a container's streams: its log, its outputs and its input, with or without a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from runtime.linux.fds import Fd, pipe
from runtime.logs import LogFile, LogStream
from runtime.shim.copying import Input, Output
from runtime.shim.loop import Loop
from runtime.streams import set_size


class Console:
    """Owns everything that a container's output goes through until all of it has reached the log."""

    __slots__ = (
        "_ended", "_input", "_loop", "_master", "_outputs", "_stdin_once", "_terminal", "_wants_input", "log",
    )  # fmt: skip

    def __init__(self, loop: Loop, doc: Mapping[str, Any], ended: Callable[[], None], log: Fd | None = None) -> None:
        """Take the log, or open it (raises OSError). `ended` is called when the last output has come to its end.

        `doc` has the keys log (a path), tty, stdin and stdin_once, which mean what they mean in ContainerSpec.
        """
        self.log = LogFile(doc["log"], log)
        self._loop = loop
        self._terminal: bool = doc["tty"]
        self._wants_input: bool = doc["stdin"]
        self._stdin_once: bool = doc["stdin_once"]
        self._ended = ended
        self._master: Fd | None = None
        self._outputs: dict[str, Output] = {}
        self._input: Input | None = None

    def open_pipes(self) -> list[Fd | None]:
        """The child's stdin, stdout, stderr, for the caller to close; None where it shall have the null device."""
        if self._terminal:
            return [None, None, None]
        stdin = None
        if self._wants_input:
            stdin, ours = pipe(write_blocks=False)
            self._input = Input(self._loop, ours, close_after_first=self._stdin_once)
        return [stdin, self._open_output("stdout"), self._open_output("stderr")]

    def _open_output(self, name: str) -> Fd:
        ours, theirs = pipe(read_blocks=False)
        self._outputs[name] = Output(self._loop, ours, LogStream(self.log, name), self._output_ended)
        return theirs

    def adopt_terminal(self, master: Fd) -> None:
        """The child has made its terminal: copy what it shows, take what it is given."""
        os.set_blocking(master.fileno(), False)
        self._master = master
        shown = Fd(os.dup(master.fileno()))
        self._outputs["stdout"] = Output(self._loop, shown, LogStream(self.log, "stdout"), self._output_ended)
        if self._wants_input:
            given = Fd(os.dup(master.fileno()))
            self._input = Input(self._loop, given, close_after_first=self._stdin_once)

    def _output_ended(self) -> None:
        if not self.open:
            self._ended()

    @property
    def open(self) -> bool:
        """Whether something may still come."""
        return any(output.open for output in self._outputs.values())

    def attach(self) -> dict[str, Fd]:
        """Pipes to the streams, by name; the caller sends and closes them."""
        pipes = {name: output.attach() for name, output in self._outputs.items()}
        return {"stdin": self._input.attach(), **pipes} if self._input else pipes

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; nothing without one."""
        if self._master is not None and not self._master.closed:
            set_size(self._master.fileno(), rows, columns)

    def close_stdin(self) -> None:
        """End of file for the container."""
        if self._input is not None:
            self._input.close()

    def drain(self) -> None:
        """Copy what is there now."""
        for output in self._outputs.values():
            output.drain()

    def close(self) -> None:
        """Give up whatever is still open, then the log."""
        self._ended = lambda: None
        for output in self._outputs.values():
            output.close()
        self.close_stdin()
        if self._input is not None:
            self._input.abandon()
        if self._master is not None:
            self._master.close()
        self.log.close()
