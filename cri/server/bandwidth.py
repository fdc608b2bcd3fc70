"""How fast a pod's network may be: two annotations of Kubernetes, in CNI's words.

The interface has no field for it, so the kubelet passes on what the pod says of itself. Of all annotations only these
mean something to crid: in a network whose configuration has the capability, the plugin that shapes traffic gets them.
Sources: CNI CONVENTIONS.md, bandwidth; Kubernetes, Network Plugins, "Support traffic shaping", and its quantities
(k8s.io/apimachinery/pkg/api/resource).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from cri.server.errors import InvalidRequest

ANNOTATIONS: Final = {direction: f"kubernetes.io/{direction}-bandwidth" for direction in ("ingress", "egress")}
_QUANTITY: Final = re.compile(
    r"\+?(\d{1,20}\.?\d{0,20}|\.\d{1,20})(?:[eE]([+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII
)
_UNITS: Final = {
    **{unit: Fraction(1000) ** power for power, unit in enumerate(("n", "u", "m", "", *"kMGTPE"), start=-3)},
    **{f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
#: Bits per second, which is what Kubernetes allows.
_SMALLEST, _LARGEST = 10**3, 10**15
#: Bits that may pass at once, as other runtimes have it: the largest number that the reference plugin takes.
_BURST: Final = 2**32 - 1


def bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    """The value of the capability `bandwidth`, rates in bits per second; {} without limits. Raises InvalidRequest."""
    limits = {}
    for direction, annotation in ANNOTATIONS.items():
        if annotation in annotations:
            limits[f"{direction}Rate"] = _rate(annotation, annotations[annotation])
            limits[f"{direction}Burst"] = _BURST
    return limits


def _rate(annotation: str, text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"annotation {annotation}: {text[:80]!r} is no quantity such as 10M (bits per second)")
    number, exponent, unit = match.groups()
    rate = math.ceil(Fraction(number) * _UNITS[unit or ""] * Fraction(10) ** int(exponent or 0))
    if not _SMALLEST <= rate <= _LARGEST:
        raise InvalidRequest(f"annotation {annotation}: {text[:80]} is not between 1k and 1P bits per second")
    return rate
