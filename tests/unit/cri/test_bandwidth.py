"""The bandwidth annotations of Kubernetes: quantities, exactly as the API has them, and nothing else."""

from __future__ import annotations

import pytest

from cri.server.bandwidth import bandwidth
from cri.server.errors import InvalidRequest

KEY = "kubernetes.io/ingress-bandwidth"


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        *(("1k", 1000), ("1Ki", 1024), ("10M", 10**7), ("1.5G", 15 * 10**8), ("1e6", 10**6), ("1E3", 1000)),
        *(("2000", 2000), ("1000.1", 1001), ("1500000m", 1500), (".5M", 500_000), ("5.M", 5_000_000), ("1P", 10**15)),
    ],
)
def test_quantities(text: str, rate: int) -> None:
    assert bandwidth({KEY: text, "other": "1"}) == {"ingressRate": rate, "ingressBurst": 2**32 - 1}


@pytest.mark.parametrize(
    "text",
    [
        *("", "fast", "999", "0", "-1M", "1.1P", "1Pi", "1E", "1e99", "1 M", "1M ", "1Mb", "1mi", "0x10", "1e6M"),
        *("\N{ARABIC-INDIC DIGIT THREE}k", "1" * 10_000, "1e-99", "1e999999999", ".", "1.2.3k", "inf", "nan"),
    ],
)
def test_what_is_none_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="ingress-bandwidth"):
        bandwidth({KEY: text})


def test_both_directions_and_none() -> None:
    assert bandwidth({}) == {}
    both = bandwidth({KEY: "1M", "kubernetes.io/egress-bandwidth": "2M"})
    assert (both["ingressRate"], both["egressRate"]) == (10**6, 2 * 10**6)
