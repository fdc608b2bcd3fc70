"""What leaves a network gets the host's address, what stays inside does not, and no pod costs a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cni.default import default_conflist
from tests.kernel.cni.conftest import SUBNET, SUBNET6, TABLE, Node
from tests.support.netns import Netns, Uplink, listen, output, reaches


@pytest.fixture
def uplink(netns: Callable[[], Netns]) -> Uplink:
    return Uplink(netns())


async def test_the_outside_sees_the_host(node: Node, uplink: Uplink) -> None:
    cni = node.cni(default_conflist("br0", [SUBNET, SUBNET6], nft_table=TABLE))
    pod, attachment = node.pod()
    await cni.add(attachment)
    with uplink.outside.do(lambda: listen(Uplink.OUTSIDE, 80)) as server:
        assert pod.do(lambda: reaches(Uplink.OUTSIDE, 80, server)) == Uplink.HOST
    with uplink.outside.do(lambda: listen(Uplink.OUTSIDE6, 80)) as server:
        assert pod.do(lambda: reaches(Uplink.OUTSIDE6, 80, server)) == Uplink.HOST6


async def test_without_it_the_outside_sees_the_pod(node: Node, uplink: Uplink) -> None:
    conflist = default_conflist("br0", SUBNET, nft_table=TABLE)
    conflist["plugins"][0]["ipMasq"] = False
    pod, attachment = node.pod()
    await node.cni(conflist).add(attachment)
    with uplink.outside.do(lambda: listen(Uplink.OUTSIDE, 80)) as server:
        assert pod.do(lambda: reaches(Uplink.OUTSIDE, 80, server)) == "10.201.0.2"
    assert output("nft", "list", "tables") == ""


async def test_rules_do_not_grow_with_pods(node: Node) -> None:
    cni = node.cni()
    await cni.add(node.pod()[1])
    before = output("nft", "list", "table", "inet", TABLE)
    assert '10.201.0.0/24 . 0.0.0.0/0 comment "br0"' in before
    for _ in range(3):
        await cni.add(node.pod()[1])
    assert output("nft", "list", "table", "inet", TABLE) == before


async def test_a_flushed_ruleset_comes_back_with_the_next_pod_host_ports_included(node: Node, uplink: Uplink) -> None:
    cni = node.cni()
    mapping = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    pod, attachment = node.pod(capability_args={"portMappings": mapping})
    await cni.add(attachment)
    output("nft", "flush", "ruleset")
    with pod.do(lambda: listen("0.0.0.0", 80)) as server:
        assert uplink.outside.do(lambda: reaches(Uplink.HOST, 8080, server)) == ""
        await cni.add(node.pod()[1])
        assert uplink.outside.do(lambda: reaches(Uplink.HOST, 8080, server)) == Uplink.OUTSIDE
    with uplink.outside.do(lambda: listen(Uplink.OUTSIDE, 80)) as server:
        assert pod.do(lambda: reaches(Uplink.OUTSIDE, 80, server)) == Uplink.HOST
