"""The host-local plugin: what it reserves, what it refuses, and that a refusal keeps nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from cni.call import ADD, CHECK, DEL, GC, STATUS, Call
from cni.errors import CniError, ErrorCode, NotAvailable
from cni.host import Host
from cni.journal import Journal
from cni.plugin import Site, dispatch
from cni.plugins.host_local import plugin
from cni.result import Result
from cni.runner import PluginRunner
from cni.skeleton import run_as_program
from runtime.linux.ledger import Ledger


class Network:
    """A network of host-local and nothing else."""

    def __init__(self, root: Path, **ipam: Any) -> None:
        self.root = root
        self.host = Host()
        self.journal = Journal()
        self.config: dict[str, Any] = {
            "cniVersion": "1.0.0",
            "name": "net",
            "ipam": {"type": "host-local", "dataDir": str(root), **ipam},
        }

    def run(self, command: str, container_id: str = "c1", **extra: Any) -> Result | None:
        args = extra.pop("env", {})
        call = Call(
            command=command, config={**self.config, **extra}, container_id=container_id, ifname="eth0", args=args
        )
        return dispatch(plugin, call, Site(self.host, self.journal, PluginRunner()))

    def add(self, container_id: str = "c1", **extra: Any) -> list[str]:
        result = self.run(ADD, container_id, **extra)
        assert result is not None
        return [str(ip.address) for ip in result.ips]

    def leases(self) -> set[str]:
        names = {path.name for path in (self.root / "net").iterdir()}
        return {name for name in names if name != "lock" and not name.startswith("last")}


@pytest.fixture
def dual(tmp_path: Path) -> Network:
    return Network(tmp_path, ranges=[[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64", "gateway": "fd00::f"}]])


def test_an_address_of_each_set_round_the_range(dual: Network) -> None:
    assert dual.add("c1") == ["10.0.0.2/29", "fd00::1/64"]
    assert dual.add("c2") == ["10.0.0.3/29", "fd00::2/64"]
    dual.run(DEL, "c1")
    assert dual.leases() == {"10.0.0.3", "fd00::2"}
    assert dual.add("c3") == ["10.0.0.4/29", "fd00::3/64"], "a returned address rests"


def test_as_a_program_it_answers_what_it_does_not_understand(
    dual: Network, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SPEC.md, section 5: an error object on standard output, whatever has failed."""
    environment = {"COMMAND": "ADD", "CONTAINERID": "c1", "IFNAME": "eth0", "NETNS": "/proc/self/ns/net"}
    for name, value in environment.items():
        monkeypatch.setenv(f"CNI_{name}", value)
    config = json.dumps({**dual.config, "runtimeConfig": ["no object"]}).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(config)))
    with pytest.raises(SystemExit) as ended:
        run_as_program(plugin)
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert (ended.value.code, answer["cniVersion"], answer["code"]) == (1, "1.0.0", ErrorCode.INTERNAL)
    assert "AttributeError" in answer["msg"] and "Traceback" in printed.err


def test_the_result_has_gateways_routes_and_dns(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.53\n")
    network = Network(
        tmp_path, subnet="10.0.0.0/24", routes=[{"dst": "0.0.0.0/0"}], resolvConf=str(tmp_path / "resolv.conf")
    )
    result = network.run(ADD)
    assert result is not None
    doc = result.to_json("1.0.0")
    assert doc["ips"] == [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}]
    assert doc["routes"] == [{"dst": "0.0.0.0/0"}] and doc["dns"] == {"nameservers": ["10.0.0.53"]}


def test_requested_addresses(dual: Network) -> None:
    assert dual.add("c1", env={"IP": "10.0.0.5"}) == ["10.0.0.5/29", "fd00::1/64"]
    assert dual.add("c2", runtimeConfig={"ips": ["fd00::99/64", "10.0.0.4/29"]}) == ["10.0.0.4/29", "fd00::99/64"]
    for asked, reason in (
        ("10.0.0.5", "10.0.0.5 is in use"),
        ("10.0.0.1", "is the gateway"),
        ("192.168.0.1", "requested 192.168.0.1, which no range set has"),
    ):
        with pytest.raises(CniError, match=reason):
            dual.add("c3", env={"IP": asked})
    assert dual.leases() == {"10.0.0.5", "fd00::1", "10.0.0.4", "fd00::99"}


def test_a_second_add_is_refused_and_keeps_the_first(dual: Network) -> None:
    dual.add("c1")
    with pytest.raises(CniError, match=r"c1/eth0 has address 10\.0\.0\.2 already; ADD was called twice"):
        dual.add("c1")
    assert dual.leases() == {"10.0.0.2", "fd00::1"}


def test_an_exhausted_set_takes_nothing_of_the_others(dual: Network) -> None:
    for number in range(5):
        dual.add(f"c{number}")
    with pytest.raises(CniError, match=r"no address left in 10\.0\.0\.1-10\.0\.0\.6; .* holds who has them"):
        dual.add("c9")
    with pytest.raises(NotAvailable, match="are in use"):
        dual.run(STATUS)
    assert len(dual.leases()) == 10
    dual.run(DEL, "c3")
    dual.run(STATUS)
    assert dual.add("c9")[0] == "10.0.0.5/29"


def test_delete_is_idempotent_and_check_wants_a_lease(dual: Network) -> None:
    with pytest.raises(CniError, match="no address is reserved for c1/eth0"):
        dual.run(CHECK)
    dual.add()
    dual.run(CHECK)
    for _ in range(2):
        dual.run(DEL)
    assert dual.leases() == set()


def test_gc_keeps_the_valid(dual: Network) -> None:
    for number in range(3):
        dual.add(f"c{number}")
    dual.run(GC, "", **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    assert dual.leases() == {"10.0.0.3", "fd00::2"}


def test_addresses_stand_in_the_ledger_before_they_are_taken(dual: Network, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", "crid")
    dual.journal = Journal(ledger, holder="c1", attachment="c1/eth0")
    dual.add()
    assert {entry.key for entry in ledger.entries(kind="ip", holder="c1")} == {"net/10.0.0.2", "net/fd00::1"}
    ledger.close()
