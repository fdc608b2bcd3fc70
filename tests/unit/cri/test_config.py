"""crid's configuration: command line over file over defaults, and no setting silently not made."""

from __future__ import annotations

from pathlib import Path

import pytest

from cri.server.config import Config, parse_arguments
from cri.server.settings import ConfigError


def written(directory: Path, text: str) -> list[str]:
    file = directory / "crid.toml"
    file.write_text(text)
    return ["--config", str(file)]


def test_defaults() -> None:
    assert parse_arguments([]) == Config()
    assert parse_arguments(["--state", "/run/two"]).listen == Path("/run/two/cri.sock")


def test_the_command_line_wins(tmp_path: Path) -> None:
    text = 'root = "/a"\nstate = "/b"\n[network]\nbridge = "x0"\nsubnet = "10.1.0.0/24"\n[cgroup]\nparent = "/p"\n'
    config = parse_arguments([*written(tmp_path, text), "--root", "/c"])
    assert (config.root, config.state, config.listen) == (Path("/c"), Path("/b"), Path("/b/cri.sock"))
    assert (config.network.bridge, config.network.subnet, config.cgroup_parent) == ("x0", "10.1.0.0/24", "/p")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rot = '/a'", "unknown key 'rot'"),
        ("[network]\nbrige = 'x'", "unknown key 'brige'"),
        ("root = 5", "must be of type str"),
        ("[network]\nsubnet = '10.0.0.0/99'", "subnet"),
        ("[network]\nbridge = 'a-name-that-is-too-long'", "no interface name"),
        ("[images]\nregistries = '/x'", "must be of type list"),
        ("[images]\npinned = ['Not A Name']", "pinned"),
        ("root =", "crid.toml"),
        ("[checkpoint]\nlimit = true", "whole number"),
        ("[nri]\nsocket = 'nri.sock'", "absolute path"),
        ("[nri]\nplugin_request_timeout = 601", "seconds above 0, at most 600"),
        ("[nri.default_validator]\nenable = 1", "must be of type bool"),
        ("[nri.default_validator]\nenabled = true", r"\[nri\] \[default_validator\]: unknown key 'enabled'"),
        ("default_runtime = 'kata'", "default_runtime 'kata' is none of crid"),
        ("[runtimes.Big]\npath = '/x'", "'Big' is no handler name"),
        ("[runtimes.x]\nargs = [5]", "must be a list of strings"),
        ("[runtimes.crid]\npath = '/x'", "unknown key 'path'"),
        ("[streaming]\ntls = true", "unknown key 'tls'"),
        ("[streaming]\naddress = 'localhost'", "address"),
        ("[streaming]\nport = 70000", "number from 0 to 65535"),
        ("[streaming]\nport = true", "number from 0 to 65535"),
        ("[streaming]\ntls_cert = '/c.pem'", "belong together"),
        ("[streaming]\ntls_cert = 'c.pem'\ntls_key = '/k.pem'", "absolute path"),
        ("[streaming]\nidle_timeout = 0", "must be seconds above 0"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_arguments(written(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        parse_arguments(["--config", str(tmp_path / "none.toml")])


def test_runtimes(tmp_path: Path) -> None:
    text = (
        'default_runtime = "crun"\n[runtimes.crun]\n[runtimes.kata]\npath = "/opt/kata/bin/kata-runtime"\n'
        'args = ["--debug"]\npod_annotations = ["io.katacontainers.*"]\nprivileged_without_host_devices = true\n'
    )
    config = parse_arguments(written(tmp_path, text))
    assert config.default_runtime == "crun"
    assert [(each.name, each.path) for each in config.runtimes] == [
        ("crid", ""),
        ("crun", "crun"),
        ("kata", "/opt/kata/bin/kata-runtime"),
    ]
    assert config.runtimes[2].privileged_without_host_devices and config.runtimes[2].args == ("--debug",)


def test_streaming(tmp_path: Path) -> None:
    text = "[streaming]\naddress = '::1'\nport = 10010\nidle_timeout = 60\ntls_cert = '/c'\ntls_key = '/k'\n"
    streaming = parse_arguments(written(tmp_path, text)).streaming
    assert (streaming.address, streaming.port, streaming.idle_timeout) == ("::1", 10010, 60.0)
    assert (streaming.tls_cert, streaming.tls_key) == (Path("/c"), Path("/k"))
    with pytest.raises(FileNotFoundError) as missing:
        streaming.tls()
    assert "[streaming] tls_cert /c" in missing.value.__notes__[0]
