"""What an idle pod costs: the pages that its shim has written to, counted by the kernel; nothing is timed."""

from __future__ import annotations

from pathlib import Path

from tests.support.containers import Node

#: KiB that a shim with one container may have of its own, with room for other kernels and C libraries (775 measured,
#: 850 where the zygote had to compile its modules first).
PRIVATE_MAX = 930


def private(pid: int) -> int:
    """KiB of memory that is this process's alone (proc_pid_smaps(5))."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    sizes = {name: int(size) for name, size, _ in lines}
    return sizes["Private_Dirty:"] + sizes["Private_Clean:"]


async def test_a_shim_shares_nearly_all_of_its_memory_with_the_zygote(node: Node) -> None:
    shims = []
    for _ in range(3):
        pod = await node.pod()
        await node.idle(pod)
        shims.append(pod.shim.pid)
    assert max(map(private, shims)) < PRIVATE_MAX
