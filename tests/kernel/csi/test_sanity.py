"""The interface's own conformance suite, csi-sanity, against our driver's socket."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from runtime.linux.mounttable import mounts_beneath
from tests.support.csi_driver import driver_process
from tests.support.peers import require

SUITE_TIMEOUT = 120.0
#: Of 92 in csi-sanity 5.4: the others need capabilities (snapshots, attaching, ...) that a directory does not offer.
LEAST_PASSED = 45


def test_csi_sanity(short_path: Path) -> None:
    suite = require("csi-sanity")
    with driver_process(short_path) as driver:
        done = subprocess.run(
            [
                suite,
                f"--csi.endpoint=unix://{driver.socket}",
                f"--csi.mountdir={short_path}/mount",
                f"--csi.stagingdir={short_path}/staging",
                "--ginkgo.no-color",
            ],
            capture_output=True,
            text=True,
            timeout=SUITE_TIMEOUT,
            check=False,
        )
        summary = re.search(r"(\d+) Passed \| (\d+) Failed", done.stdout)
        assert summary, done.stdout[-3000:]
        assert int(summary[2]) == 0, done.stdout[-6000:]
        assert int(summary[1]) >= LEAST_PASSED
        assert not mounts_beneath(short_path)
        assert not list((driver.data / "volumes").iterdir())
        assert driver.stop() == 0
