"""What an operator gives wrong at start is named at once, with its flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.api.client import describe
from nodeagent.config import parse_arguments
from nodeagent.main import main


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--log-size", "10"], "--log-size must be at least 1024"),
        (["--log-files", "1"], "--log-files at least 2"),
        (["--cgroup-root", "../x"], "--cgroup-root: '../x' is no path"),
        (["--node-name", "Bad Name"], "--node-name: 'Bad Name': must be at most 253 lower case"),
        (["--state", "/" + "a" * 96], "--state: /aaa"),
        (["--manifests", __file__], f"--manifests: {__file__} is no directory"),
    ],
)
def test_wrong_settings_are_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments(flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_paths_are_absolute_and_sockets_fit() -> None:
    config = parse_arguments(["--root", "here", "--state", "/" + "a" * 95])
    assert config.root == Path.cwd() / "here"
    assert len(config.cri) == 105


def test_directories_with_mounts_are_named_as_the_kernel_names_them(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    flags = [f"--{name}={tmp_path}/link/{name}" for name in ("root", "state", "kubelet-root", "manifests")]
    config = parse_arguments(flags)
    assert config.root == tmp_path / "disk/root"
    assert config.state == tmp_path / "disk/state"
    assert config.cri == f"{tmp_path}/disk/state/cri.sock"
    assert config.kubelet_root == tmp_path / "disk/kubelet-root"
    assert config.manifests == tmp_path / "link/manifests"


def test_an_unknown_verb_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dwon"]) == 2
    assert capsys.readouterr().err.endswith("nodeagent: no verb 'dwon'\n")
    assert main(["--help"]) == 0


def test_health_in_words() -> None:
    health = {"healthy": True, "node": "n", "runtime": {"connected": True}, "manifests": "/m", "pods": 1}
    assert describe(health) == "node n; 1 pod of /m"
    broken = {"runtime": {"socket": "/s", "problem": "gone"}, "drivers": ["d"], "pendingTeardowns": ["u1"], "pods": 2}
    words = "no runtime on /s: gone; CSI drivers d; volumes of ended pods not undone yet: u1"
    assert describe(health | broken) == f"node n; 2 pods of /m; {words}"
