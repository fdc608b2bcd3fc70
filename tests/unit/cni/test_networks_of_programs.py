"""What a runtime does with plugins that are programs: order, parameters, cache, and the ways in which they go wrong."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from cni.call import parse_args
from cni.errors import CniError, InvalidEnvironment, InvalidNetns, NetworkNotReady, PluginFailed, TryAgainLater
from runtime.linux.procs import Process
from tests.unit.cni.conftest import RESULT, Networks, Programs


async def test_add_goes_forward_and_delete_backward(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    programs.write("two", """[ $CNI_COMMAND = ADD ] && echo '{"ips": [{"address": "10.0.0.3/24"}]}'; exit 0""")
    cni = networks.cni({"type": "one"}, {"type": "two", "capabilities": {"portMappings": True}, "mtu": 1400})
    pod = networks.pod(
        args={"K8S_POD_NAME": "web", "IgnoreUnknown": "1"}, capability_args={"portMappings": [1], "mac": "x"}
    )
    result = await cni.add(pod)
    assert str(result.ips[0].address) == "10.0.0.3/24"
    assert programs.calls() == ["ADD one", "ADD two"]
    first, second = programs.requests("one")[0], programs.requests("two")[0]
    assert first == {"type": "one", "cniVersion": "1.1.0", "name": "net"}
    assert second == {
        "type": "two",
        "mtu": 1400,
        "cniVersion": "1.1.0",
        "name": "net",
        "prevResult": RESULT,
        "runtimeConfig": {"portMappings": [1]},
    }
    environment = programs.environment("two")
    assert environment["CNI_CONTAINERID"] == "c1" and environment["CNI_IFNAME"] == "eth0"
    assert environment["CNI_NETNS"] == str(networks.netns) and environment["CNI_PATH"] == str(programs.bin)
    assert parse_args(environment["CNI_ARGS"]) == {"K8S_POD_NAME": "web", "IgnoreUnknown": "1"}
    assert not any(name.startswith("NODEAGENT_") for name in environment)
    assert networks.cached() == {"net-c1-eth0"}

    await cni.delete(networks.pod())
    assert programs.calls() == ["DEL two", "DEL one"]
    expected = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.3/24"}]}
    assert programs.requests("two")[1]["prevResult"] == programs.requests("one")[1]["prevResult"] == expected
    assert programs.requests("two")[1]["runtimeConfig"] == {"portMappings": [1]}
    assert parse_args(programs.environment("one")["CNI_ARGS"])["K8S_POD_NAME"] == "web"
    assert networks.cached() == set() and networks.ledger.entries() == []


async def test_the_cache_is_in_the_reference_librarys_format(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    await networks.cni({"type": "one"}).add(networks.pod(args={"A": "b"}))
    doc = json.loads((networks.root / "cache/results/net-c1-eth0").read_text())
    assert (doc["kind"], doc["containerId"], doc["ifName"], doc["networkName"]) == ("cniCacheV1", "c1", "eth0", "net")
    assert doc["cniArgs"] == [["A", "b"]] and doc["result"] == RESULT and doc["netns"] == str(networks.netns)


async def test_delete_uses_the_configuration_of_add(networks: Networks, programs: Programs) -> None:
    programs.write("old")
    await networks.cni({"type": "old"}).add(networks.pod())
    programs.write("new")
    await networks.cni({"type": "new"}).delete(networks.pod())
    assert programs.calls() == ["ADD old", "DEL old"]


async def test_delete_does_not_name_a_namespace_that_is_gone(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    cni = networks.cni({"type": "one"})
    await cni.add(networks.pod())
    networks.netns.unlink()
    await cni.delete(networks.pod())
    assert "CNI_NETNS" not in programs.environment("one")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('echo \'{"code": 7, "msg": "no such bridge", "details": "br9"}\'; exit 1', r"no such bridge: br9 \(code 7\)"),
        ("echo 'panic: nil map' >&2; exit 2", r"failed \(exit status 2\); panic: nil map"),
        ("echo 'not json'; exit 3", r"failed \(exit status 3\); not json"),
        ("exit 4", r"failed \(exit status 4\); it said nothing"),
        ("kill -9 $$", r"failed \(signal 9\)"),
        ("echo garbage", "exited with 0, but its answer is not JSON; it printed: garbage"),
        ("exit 0", "exited with 0, but its answer is not JSON; it printed: nothing"),
        ("printf '\\377\\376'", "is not JSON"),
        ("echo '[1]'", "not a JSON object"),
        ("echo null", "not a JSON object"),
        ('echo \'{"code": 11, "msg": "later"}\'', r"exited with 0, but reported an error: later \(code 11\)"),
        ('echo \'{"ips": [{"address": "everywhere"}]}\'', "something else than a result"),
        ('echo \'{"cniVersion": "8.0.0", "ips": []}\'', "cniVersion is '8.0.0'"),
        ("yes", "wrote more than"),
        ("head -c 3000000 /dev/zero", "wrote more than"),
    ],
)
async def test_a_plugin_that_fails_is_undone(body: str, reason: str, networks: Networks, programs: Programs) -> None:
    programs.write("one")
    programs.write("bad", f"[ $CNI_COMMAND = ADD ] || exit 0\n{body}")
    cni = networks.cni({"type": "one"}, {"type": "bad"})
    with pytest.raises(PluginFailed, match=reason) as caught:
        await cni.add(networks.pod())
    assert "CNI plugin 'bad': ADD on network 'net' for container c1, interface eth0" in str(caught.value)
    assert programs.calls() == ["ADD one", "ADD bad", "DEL bad", "DEL one"]
    assert networks.cached() == set() and networks.ledger.entries() == []


async def test_a_plugin_that_hangs_is_killed_with_its_children(networks: Networks, programs: Programs) -> None:
    programs.write(
        "slow", f"[ $CNI_COMMAND = ADD ] || exit 0\nsleep 600 & echo $! >{networks.root}/child; echo oops >&2; wait"
    )
    cni = networks.cni({"type": "slow"}, timeout=0.5)
    started = time.monotonic()
    with pytest.raises(PluginFailed, match=r"did not answer within 0\.5 s and was killed; oops"):
        await cni.add(networks.pod())
    assert time.monotonic() - started < 5
    child = int((networks.root / "child").read_text())
    for _ in range(50):
        if not is_alive(child):
            break
        await asyncio.sleep(0.1)
    assert not is_alive(child)


def is_alive(pid: int) -> bool:
    try:
        return Process.of(pid).alive()
    except ProcessLookupError:
        return False


async def test_a_hanging_plugin_delays_nobody_else(networks: Networks, programs: Programs) -> None:
    programs.write("slow", "[ $CNI_CONTAINERID = c1 ] && sleep 3\n" + f"echo '{json.dumps(RESULT)}'")
    cni = networks.cni({"type": "slow"}, timeout=1)
    slow = asyncio.create_task(cni.add(networks.pod("c1")))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await asyncio.gather(*(cni.add(networks.pod(f"d{number}")) for number in range(8)))
    assert time.monotonic() - started < 0.9
    with pytest.raises(PluginFailed):
        await slow


async def test_a_failed_delete_keeps_everything_for_the_next(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    programs.write("two")
    cni = networks.cni({"type": "one"}, {"type": "two"})
    await cni.add(networks.pod())
    programs.write("two", "exit 1")
    programs.calls()
    with pytest.raises(PluginFailed, match="'two': DEL"):
        await cni.delete(networks.pod())
    assert programs.calls() == ["DEL two"], "what comes after might free an address that the failed one still uses"
    assert networks.cached() and [entry.kind for entry in networks.ledger.entries()] == ["cni"]
    programs.write("two")
    await cni.delete(networks.pod())
    assert networks.ledger.entries() == []


async def test_a_cancelled_add_is_undone_by_delete(networks: Networks, programs: Programs) -> None:
    programs.write("slow", f"[ $CNI_COMMAND = ADD ] && sleep 0.4 && echo '{json.dumps(RESULT)}'; exit 0")
    cni = networks.cni({"type": "slow"})
    task = asyncio.create_task(cni.add(networks.pod()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cni.delete(networks.pod())
    assert programs.calls() == ["ADD slow", "DEL slow"]
    assert networks.cached() == set() and networks.ledger.entries() == []


async def test_one_operation_on_a_container_at_a_time(networks: Networks, programs: Programs) -> None:
    programs.write("slow", f"sleep 0.2; echo end >>{networks.root}/calls; echo '{json.dumps(RESULT)}'")
    cni = networks.cni({"type": "slow"})
    await asyncio.gather(cni.add(networks.pod()), cni.delete(networks.pod()))
    assert programs.calls() == ["ADD slow", "end", "DEL slow", "end"]


async def test_check_gives_the_final_result_to_each(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    programs.write("two", """[ $CNI_COMMAND = ADD ] && echo '{"ips": [{"address": "10.0.0.9/24"}]}'; exit 0""")
    cni = networks.cni({"type": "one"}, {"type": "two"})
    await cni.add(networks.pod())
    await cni.check(networks.pod())
    assert programs.requests("one")[1]["prevResult"]["ips"] == [{"address": "10.0.0.9/24"}]
    programs.write("two", 'echo \'{"code": 100, "msg": "rule is gone"}\'; exit 1')
    with pytest.raises(CniError, match="rule is gone"):
        await cni.check(networks.pod())


async def test_disable_check_and_old_versions(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    cni = networks.cni({"type": "one"}, disableCheck=True)
    await cni.add(networks.pod())
    programs.calls()
    await cni.check(networks.pod())
    assert programs.calls() == []
    old = networks.cni({"type": "one"}, cniVersion="0.3.1")
    await old.add(networks.pod("c2"))
    with pytest.raises(CniError, match=r"CNI 0\.3\.1 has no CHECK"):
        await old.check(networks.pod("c2"))
    await old.delete(networks.pod("c2"))
    assert "prevResult" not in programs.requests("one")[-1], "DEL has it since 0.4.0"


async def test_status_asks_every_plugin(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    programs.write("two")
    cni = networks.cni({"type": "one"}, {"type": "two", "ipam": {"type": "three"}})
    with pytest.raises(
        NetworkNotReady, match=r"network 'net' is not ready: CNI plugin 'three' is not installed; .*/bin"
    ):
        await cni.status()
    programs.write("three")
    await cni.status()
    assert programs.calls() == ["STATUS one", "STATUS two"]
    programs.write("two", 'echo \'{"code": 50, "msg": "no addresses left"}\'; exit 1')
    with pytest.raises(NetworkNotReady, match=r"no addresses left \(code 50\)"):
        await cni.status()


async def test_status_before_1_1_looks_for_the_programs_only(networks: Networks, programs: Programs) -> None:
    programs.write("one", "exit 1")
    await networks.cni({"type": "one"}, cniVersion="1.0.0").status()
    assert programs.calls() == []


async def test_no_configuration_is_said_with_what_is_wrong_in_the_directory(networks: Networks) -> None:
    cni = networks.cni()
    with pytest.raises(NetworkNotReady, match=r"no network configuration in .*; install a network plugin's"):
        await cni.status()
    (networks.root / "net.d").mkdir()
    (networks.root / "net.d" / "10-x.conflist").write_text("{")
    with pytest.raises(NetworkNotReady, match=r"10-x\.conflist: line 1, column 2"):
        await cni.add(networks.pod())
    assert len(cni.problems) == 1
    await cni.delete(networks.pod())


async def test_a_file_takes_the_place_of_the_default(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    programs.write("two")
    cni = networks.cni({"type": "one"})
    await cni.add(networks.pod("c1"))
    (networks.root / "net.d").mkdir()
    doc = {"cniVersion": "1.0.0", "name": "filed", "plugins": [{"type": "two"}]}
    (networks.root / "net.d" / "10.conflist").write_text(json.dumps(doc))
    await cni.add(networks.pod("c2"))
    await cni.delete(networks.pod("c1"))
    assert programs.calls() == ["ADD one", "ADD two", "DEL one"]


async def test_gc_deletes_what_is_not_valid_and_tells_every_plugin(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    programs.write("two")
    cni = networks.cni({"type": "one"}, {"type": "two"})
    for name in ("c1", "c2"):
        await cni.add(networks.pod(name))
    programs.calls()
    programs.write("one", "[ $CNI_COMMAND = GC ] && exit 1; exit 0")
    with pytest.raises(CniError, match="GC of network net failed; CNI plugin 'one'"):
        await cni.gc([networks.pod("c2")])
    assert programs.calls() == ["DEL two", "DEL one", "GC one", "GC two"]
    request = programs.requests("two")[-1]
    assert (
        request["cni.dev/valid-attachments"]
        == [{"containerID": "c2", "ifname": "eth0"}]
        == request["cni.dev/attachments"]
    )
    assert networks.cached() == {"net-c2-eth0"}


async def test_disable_gc(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    cni = networks.cni({"type": "one"}, disableGC=True)
    await cni.add(networks.pod())
    programs.calls()
    await cni.gc([])
    assert programs.calls() == []


async def test_recovery_deletes_what_does_not_live(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    cni = networks.cni({"type": "one"})
    for name in ("c1", "c2"):
        await cni.add(networks.pod(name))
    programs.calls()
    again = networks.cni({"type": "one"})
    assert await again.recover({"c2"}) == []
    assert programs.calls() == ["DEL one", "GC one"]
    assert networks.cached() == {"net-c2-eth0"}
    assert [entry.key for entry in networks.ledger.entries()] == ["c2/eth0"]


async def test_attachments_that_cannot_be(networks: Networks, programs: Programs) -> None:
    programs.write("one")
    cni = networks.cni({"type": "one"})
    with pytest.raises(InvalidEnvironment, match="container id"):
        await cni.add(networks.pod("../x"))
    with pytest.raises(InvalidEnvironment, match="interface name"):
        await cni.add(networks.pod(ifname="a/b"))
    with pytest.raises(InvalidEnvironment, match="CNI_ARGS"):
        await cni.add(networks.pod(args={"K": "a;IP=1.2.3.4"}))
    networks.netns.unlink()
    with pytest.raises(InvalidNetns, match="No such file"):
        await cni.add(networks.pod())
    assert programs.calls() == []


async def test_patience_ends(networks: Networks, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin is killed at its deadline; a call that is stuck all the same does not hold its caller for ever."""
    programs.write("one")
    cni = networks.cni({"type": "one"}, timeout=0.2)
    release = asyncio.Event()

    async def never(*_: object) -> None:
        await release.wait()

    monkeypatch.setattr(cni, "_in_thread", never)
    with pytest.raises(TryAgainLater, match=r"did not answer within 0\.6 s"):
        await cni.add(networks.pod())
    release.set()
