"""Telling a security module about the next program: through a procfs, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runtime.linux.lsm import apparmor_enabled, label_next_program, selinux_enabled


def test_nothing_to_tell_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a file was opened"))
    label_next_program("", "")


def test_a_directory_that_is_no_procfs_is_refused(tmp_path: Path) -> None:
    """CVE-2019-16884: the label was written into a file of the image, and the container ran without."""
    attributes = tmp_path / "thread-self/attr/apparmor"
    attributes.mkdir(parents=True)
    (attributes / "exec").touch()
    with pytest.raises(OSError, match="is not a procfs"):
        label_next_program("strict", "", str(tmp_path))
    assert (attributes / "exec").read_bytes() == b""


@pytest.mark.parametrize(("apparmor", "selinux"), [("no-such-profile", ""), ("", "no:such:context:s0")])
def test_what_the_kernel_does_not_know_is_an_error(apparmor: str, selinux: str) -> None:
    """With and without such a module; in a child, which is the one that would be confined."""
    pid = os.fork()
    if not pid:
        try:
            label_next_program(apparmor, selinux)
        except OSError as error:
            known = {errno.EINVAL, errno.ENOENT, errno.EACCES, errno.EPERM}
            os._exit(0 if error.errno in known and "confining" in error.__notes__[-1] else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_hosts_modules_are_seen() -> None:
    listed = Path("/sys/kernel/security/lsm")
    if not listed.exists():
        pytest.skip("securityfs is not mounted here: the kernel does not list its modules")
    names = listed.read_text().split(",")
    assert apparmor_enabled() <= ("apparmor" in names)
    assert selinux_enabled() <= ("selinux" in names)
