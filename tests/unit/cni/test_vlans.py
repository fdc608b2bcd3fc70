"""The bridge plugin's VLAN options: what they come to, and what is refused with the option's name."""

from __future__ import annotations

from typing import Any

import pytest

from cni.errors import InvalidConfig
from cni.vlans import Vlans


@pytest.mark.parametrize(
    ("config", "vlans"),
    [
        ({}, Vlans()),
        ({"vlan": 0}, Vlans()),
        ({"vlanTrunk": []}, Vlans()),
        ({"vlan": 7}, Vlans(7)),
        ({"vlan": 7, "preserveDefaultVlan": True}, Vlans(7, preserve_default=True)),
        ({"vlanTrunk": [{"id": 100}]}, Vlans(1, ((100, 100),))),
        ({"vlan": 7, "vlanTrunk": [{"minID": 5, "maxID": 9}]}, Vlans(7, ((5, 6), (8, 9)))),
        ({"vlanTrunk": [{"id": 12}, {"minID": 9, "maxID": 11}, {"id": 12}]}, Vlans(1, ((9, 12),))),
        ({"vlanTrunk": [{"minID": 1, "maxID": 4094}]}, Vlans(1, ((2, 4094),))),
    ],
)
def test_options(config: dict[str, Any], vlans: Vlans) -> None:
    assert Vlans.of(config) == vlans
    assert bool(vlans) == bool(vlans.native)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"vlan": 4095}, "vlan 4095 is no VLAN id"),
        ({"vlan": -1}, "vlan -1"),
        ({"vlan": "7"}, "vlan '7'"),
        ({"vlan": True}, "vlan True"),
        ({"preserveDefaultVlan": "no"}, "preserveDefaultVlan must be true or false"),
        ({"vlanTrunk": {"id": 7}}, "vlanTrunk must be a list"),
        ({"vlanTrunk": [7]}, "vlanTrunk: 7"),
        ({"vlanTrunk": [{}]}, "vlanTrunk: {}"),
        ({"vlanTrunk": [{"ID": 7}]}, "vlanTrunk: {'ID': 7}"),
        ({"vlanTrunk": [{"id": 0}]}, "vlanTrunk: id 0"),
        ({"vlanTrunk": [{"id": 4095}]}, "vlanTrunk: id 4095"),
        ({"vlanTrunk": [{"minID": 7}]}, "vlanTrunk: {'minID': 7}"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 8}]}, "minID 9 is greater than maxID 8"),
    ],
)
def test_what_is_wrong_is_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Vlans.of(config)
    assert words in str(refused.value)
