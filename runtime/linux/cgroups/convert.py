"""Numbers of the OCI runtime spec, which thinks in cgroup v1, as cgroup v2 wants them."""

from __future__ import annotations

import math

from runtime.linux.cgroups.errors import InvalidResources

UNLIMITED = -1
SHARES_MIN, SHARES_MAX = 2, 1 << 18
WEIGHT_MIN, WEIGHT_MAX = 1, 10000


def shares_to_weight(shares: int) -> int:
    """cpu.shares (2..262144, default 1024) as cpu.weight (1..10000, default 100).

    10^((l^2 + 125 l) / 612 - 7/34) with l = log2(shares): the parabola in the exponents through both ends and both
    defaults, which runc 1.3.2 and crun 1.23 brought in place of the linear map that made the default 39
    (opencontainers/runc#4785, kubernetes/kubernetes#131216).
    """
    if shares <= SHARES_MIN:
        return WEIGHT_MIN
    if shares >= SHARES_MAX:
        return WEIGHT_MAX
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def swap_to_v2(swap: int, limit: int) -> int:
    """memory.swap.max for OCI `swap` (memory + swap together) and `limit`, in bytes; UNLIMITED for none.

    Both are set (not 0). Raises InvalidResources when the difference makes no sense.
    """
    if swap == UNLIMITED:
        return UNLIMITED
    if limit in (0, UNLIMITED):
        raise InvalidResources(f"memory.swap is {swap}, memory and swap together, which needs a memory.limit")
    if swap < limit:
        raise InvalidResources(
            f"memory.swap ({swap}) counts memory and swap together and is below memory.limit ({limit})"
        )
    return swap - limit


def blkio_to_io_weight(weight: int) -> int:
    """blkio weight (10..1000) as io.weight (1..10000), linear, as crun(1) documents it."""
    return 1 + (weight - 10) * 9999 // 990


def number_or_max(value: int) -> str:
    """A limit as v2 files take it; negative means none."""
    return "max" if value < 0 else str(value)
