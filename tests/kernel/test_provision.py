"""vagrant/provision.sh install, in a mount namespace of its own: what it asks pip and systemd for, first and again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Everything outside of the checkout that `install` writes to is a file system of this namespace.
PLACES = """
set -eu
mount -t tmpfs provision-test "$1/over"
mkdir "$1/over/upper" "$1/over/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/over/upper,workdir=$1/over/work" provision-test /etc
for place in /opt /run /usr/local/bin; do mount -t tmpfs provision-test "$place"; done
mkdir -p /run/systemd/system /etc/systemd/system /opt/nodeagent/bin
cp "$1/stub/pip" "$1/stub/python" /opt/nodeagent/bin
"$1/checkout/vagrant/provision.sh" install
echo changed >"$1/checkout/module.py"
mkdir -p "$1/checkout/build/lib"
"$1/checkout/vagrant/provision.sh" install
readlink /usr/local/bin/crid
cd /etc/systemd/system && ls crid.service nodeagent.service
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One whose tools only write down what they are asked for."""
    for name in ("checkout/vagrant", "stub", "over"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "vagrant/provision.sh", tmp_path / "checkout/vagrant")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "checkout")
    for tool in ("pip", "systemctl", "modprobe", "apt-get"):
        (tmp_path / "stub" / tool).write_text(f'#!/bin/sh\necho "{tool} $*" >>{tmp_path}/log\n')
    (tmp_path / "stub/python").write_text(f"#!/bin/sh\necho {ROOT}/nodeagent/systemd\n")
    for stub in (tmp_path / "stub").iterdir():
        stub.chmod(0o755)
    return tmp_path / "checkout"


def test_install_again_is_an_upgrade(checkout: Path) -> None:
    tmp_path = checkout.parent
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", PLACES, "sh", str(tmp_path)],
        env={**os.environ, "PATH": f"{tmp_path}/stub:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["/opt/nodeagent/bin/crid", "crid.service", "nodeagent.service"]
    asked = [line for line in (tmp_path / "log").read_text().splitlines() if line.split()[0] in ("pip", "systemctl")]
    assert asked == 2 * [
        f"pip install -qq --disable-pip-version-check {checkout}",
        "systemctl daemon-reload",
        "systemctl enable crid.service nodeagent.service",
        "systemctl restart crid.service nodeagent.service",
    ]
    assert not (checkout / "build").exists()
