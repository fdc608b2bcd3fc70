"""Networks from files: what is read, what is refused with which words, and that a bad file hides no good one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cni.conf import load_network, parse_network
from cni.confdir import ConfDir
from cni.default import default_conflist
from cni.errors import CniError, InvalidConfig

GOOD: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "good",
    "plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}],
}


def write(path: Path, doc: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(doc if isinstance(doc, str) else json.dumps(doc))
    return path


def test_a_conflist(tmp_path: Path) -> None:
    doc = GOOD | {"disableCheck": True, "disableGC": "TRUE", "cniVersions": ["0.4.0", "1.1.0"], "extra": {"kept": 1}}
    network = load_network(write(tmp_path / "a.conflist", doc))
    assert (network.name, network.version) == ("good", "1.1.0")
    assert network.disable_check and network.disable_gc
    assert network.programs == ("bridge", "host-local")
    assert network.to_json()["extra"] == {"kept": 1}
    assert parse_network(network.to_json()).plugins == network.plugins


def test_a_single_plugin_is_a_list_of_one(tmp_path: Path) -> None:
    network = load_network(
        write(tmp_path / "a.conf", {"cniVersion": "0.3.1", "name": "one", "type": "ptp", "mtu": 9000})
    )
    assert [(plugin.type, plugin.doc["mtu"]) for plugin in network.plugins] == [("ptp", 9000)]
    assert network.version == "0.3.1"


def test_capabilities_that_are_declared(tmp_path: Path) -> None:
    plugins = [{"type": "portmap", "capabilities": {"portMappings": True, "mac": False}}]
    assert parse_network(GOOD | {"plugins": plugins}).plugins[0].capabilities == {"portMappings"}


def test_drop_ins_are_appended_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conflist", GOOD)
    write(tmp_path / "good" / "20.conf", {"type": "tuning"})
    write(tmp_path / "good" / "10.conf", {"type": "portmap"})
    write(tmp_path / "good" / "note.txt", "not read")
    write(tmp_path / "other" / "10.conf", {"type": "vrf"})
    assert [plugin.type for plugin in load_network(path).plugins] == ["bridge", "portmap", "tuning"]
    write(path, GOOD | {"loadOnlyInlinedPlugins": True})
    assert [plugin.type for plugin in load_network(path).plugins] == ["bridge"]
    write(path, {"cniVersion": "1.1.0", "name": "good"})
    assert [plugin.type for plugin in load_network(path).plugins] == ["portmap", "tuning"]


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ("", r"a\.conflist: line 1, column 1"),
        ('{"name": "x",\n "plugins": [}', r"line 2, column 14"),
        ("[]", "must be a JSON object"),
        ({"plugins": [{"type": "bridge"}]}, "missing network name"),
        (GOOD | {"name": "../x"}, r"network name '\.\./x'"),
        (GOOD | {"plugins": []}, "has no plugins"),
        (GOOD | {"plugins": {}}, '"plugins" must be a list'),
        (GOOD | {"plugins": ["bridge"]}, "must be a JSON object"),
        (GOOD | {"plugins": [{}]}, 'plugin without "type"'),
        (GOOD | {"plugins": [{"type": "../../bin/sh"}]}, "it is a file name, without a directory"),
        (GOOD | {"plugins": [{"type": "bridge", "ipam": {"type": "a/b"}}]}, "plugin type 'a/b'"),
        (GOOD | {"plugins": [{"type": "bridge", "ipam": []}]}, '"ipam" must be a JSON object'),
        (GOOD | {"plugins": [{"type": "p"}] * 65}, "at most 64"),
        (GOOD | {"disableCheck": "perhaps"}, '"disableCheck" must be true or false'),
        (GOOD | {"cniVersion": "5.0.0"}, "no common version"),
        ({"name": "x", "loadOnlyInlinedPlugins": True}, '"loadOnlyInlinedPlugins" is true, but'),
        ("[" * 100_000, "not JSON"),
        ('{"name": "\xff"}', None),
    ],
)
def test_bad_files_are_refused_with_the_place(doc: Any, reason: str | None, tmp_path: Path) -> None:
    with pytest.raises(CniError, match=reason):
        load_network(write(tmp_path / "a.conflist", doc))


def test_the_first_valid_file_by_name_is_the_network(tmp_path: Path) -> None:
    write(tmp_path / "30-last.conflist", GOOD | {"name": "last"})
    write(tmp_path / "10-broken.conflist", "{")
    write(tmp_path / "20-first.conf", {"name": "first", "type": "bridge", "cniVersion": "0.4.0"})
    write(tmp_path / "00-readme.md", "{")
    (tmp_path / "05-dangling.conflist").symlink_to(tmp_path / "nowhere")
    (tmp_path / "06-directory.conflist").mkdir()
    os.mkfifo(tmp_path / "07-fifo.conflist")
    directory = ConfDir(tmp_path)
    assert directory.refresh()
    assert [network.name for network in directory.networks] == ["first", "last"]
    told = [str(problem) for problem in directory.problems]
    assert [Path(problem.path).name for problem in directory.problems] == [
        "05-dangling.conflist",
        "07-fifo.conflist",
        "10-broken.conflist",
    ]
    assert told[2].startswith(f"{tmp_path}/10-broken.conflist: line 1, column 2")


def test_changes_are_seen_and_nothing_else(tmp_path: Path) -> None:
    directory = ConfDir(tmp_path / "net.d")
    directory.refresh()
    assert directory.networks == () and not directory.refresh()
    path = write(tmp_path / "net.d" / "a.conflist", GOOD)
    assert directory.refresh() and not directory.refresh()
    path.write_text(json.dumps(GOOD | {"name": "changed"}))
    assert directory.refresh() and directory.networks[0].name == "changed"
    write(tmp_path / "net.d" / "changed" / "x.conf", {"type": "tuning"})
    assert directory.refresh() and len(directory.networks[0].plugins) == 2
    assert not directory.refresh()
    path.unlink()
    assert directory.refresh() and directory.networks == ()


def test_the_default_network() -> None:
    network = parse_network(default_conflist("na7", ["10.7.0.0/16", "fd00:7::/64"]))
    assert (network.name, network.version) == ("na7", "1.1.0")
    bridge, portmap = (plugin.doc for plugin in network.plugins)
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.7.0.0/16"}], [{"subnet": "fd00:7::/64"}]]
    assert bridge["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    assert portmap["capabilities"] == {"portMappings": True}
    for subnet in ("10.7.0.1/16", "ten", ""):
        with pytest.raises(InvalidConfig, match="default network: subnet"):
            default_conflist("na7", subnet)
    with pytest.raises(CniError, match="interface name"):
        default_conflist("a-bridge-with-a-long-name")
