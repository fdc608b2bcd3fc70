"""What libnftables answers, and what becomes of that; the library here is one of the test's own."""

from __future__ import annotations

import pytest

from cni import nftables
from cni.nftables import ATTEMPTS, Nftables, NftablesError


class Library:
    """Answers with these words, one for each command, then with success."""

    def __init__(self, *words: str) -> None:
        self._words = list(words)
        self.asked = 0

    def nft_run_cmd_from_buffer(self, context: int, command: bytes) -> int:
        self.asked += 1
        self._said = self._words.pop(0) if self._words else ""
        return -1 if self._said else 0

    def nft_ctx_get_output_buffer(self, context: int) -> bytes:
        return b"" if self._said else b"done"

    def nft_ctx_get_error_buffer(self, context: int) -> bytes:
        return self._said.encode()


def speaking(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Nftables, Library]:
    nft, library = Nftables(), Library(*words)
    monkeypatch.setattr(nftables, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(nft, "_library", library)
    monkeypatch.setattr(nft, "_context", 1)
    return nft, library


INTERRUPTED = "Error: Could not process rule: Interrupted system call"


def test_a_look_that_somebody_elses_change_interrupts_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    nft, library = speaking(monkeypatch, INTERRUPTED, INTERRUPTED)
    assert nft.run("get element inet t s { 1 }") == "done"
    assert library.asked == 3


def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    nft, library = speaking(monkeypatch, *[INTERRUPTED] * 1000)
    with pytest.raises(NftablesError, match="Interrupted"):
        nft.run("get element inet t s { 1 }")
    assert library.asked == ATTEMPTS


def test_a_refusal_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    nft, library = speaking(monkeypatch, "Error: syntax error, unexpected string")
    with pytest.raises(NftablesError, match="nftables refused: Error: syntax error"):
        nft.run("no command")
    assert library.asked == 1
