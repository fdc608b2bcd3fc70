"""What a request means for the process: arguments, environment, capabilities, signals, limits, sysctls, mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest, NotFound
from cri.server.limits import completed
from cri.server.security.capabilities import DEFAULT, capability_sets, grantable
from cri.server.security.sysctls import checked_sysctls
from cri.server.specs import oci, process
from cri.server.specs.etc_files import resolv_conf
from cri.server.specs.mounts import base_mounts, host_volume, image_volume, in_order, merge_mounts
from cri.server.specs.resources import merged, oci_resources, oom_score_adj, without_swap
from cri.server.specs.signals import interface_signal, number_of, stop_signal

IMAGE = {"Entrypoint": ["/entry"], "Cmd": ["cmd"], "Env": ["A=1", "B=2"], "WorkingDir": "/work"}


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["/entry", "cmd"]),
        ([], ["x"], ["/entry", "x"]),
        (["/other"], [], ["/other"]),
        (["/other"], ["x"], ["/other", "x"]),
    ],
)
def test_command_and_args(command: list[str], args: list[str], expected: list[str]) -> None:
    assert process.arguments(api.ContainerConfig(command=command, args=args), IMAGE) == expected


def test_arguments_and_environment_are_counted_in_bytes() -> None:
    process.checked(["x" * (process.ARGUMENT_LIMIT - 1)], [])
    with pytest.raises(InvalidRequest, match="more than the limit"):
        process.checked(["\N{SNOWMAN}" * (process.ARGUMENT_LIMIT // 3)], ["A=1"])
    process.checked(["\udcff" * (process.ARGUMENT_LIMIT - 1)], [])  # bytes that are not UTF-8, one each
    with pytest.raises(InvalidRequest, match="not text"):
        process.checked(["\ud800"], [])  # an image's configuration can hold it
    for texts in ((["a\0b"], []), ([], ["A=\0"])):
        with pytest.raises(InvalidRequest, match="NUL"):
            process.checked(*texts)


def test_nothing_to_run() -> None:
    with pytest.raises(InvalidRequest, match="what to run"):
        process.arguments(api.ContainerConfig(), {"Cmd": None})


def test_environment() -> None:
    config = api.ContainerConfig(envs=[api.KeyValue(key="B", value=b"3"), api.KeyValue(key="C", value=b"\xff")])
    env = dict(line.split("=", 1) for line in process.environment(config, IMAGE, "host", "/home/app"))
    assert (env["A"], env["B"], env["C"]) == ("1", "3", "\udcff")
    assert (env["HOME"], env["HOSTNAME"], env["PATH"]) == ("/home/app", "host", process.DEFAULT_PATH)
    assert "TERM" not in env
    assert "TERM=xterm" in process.environment(api.ContainerConfig(tty=True), {}, "host", "/")


@pytest.mark.parametrize(("key", "value"), [("", b""), ("A=B", b""), ("A\0", b""), ("A", b"\0")])
def test_environment_that_no_execve_takes(key: str, value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        process.environment(api.ContainerConfig(envs=[api.KeyValue(key=key, value=value)]), {}, "", "/")


def test_capabilities_by_default() -> None:
    sets = capability_sets(api.Capability(), privileged=False)
    assert set(sets["bounding"]) == set(sets["effective"]) == DEFAULT & grantable()
    assert sets["inheritable"] == sets["ambient"] == []


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        (["NET_ADMIN"], [], {"CAP_NET_ADMIN", "CAP_CHOWN"}, set()),
        (["cap_net_admin"], ["CHOWN"], {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}),
        (["NET_ADMIN"], ["ALL"], {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}),
        (["ALL"], ["CHOWN"], {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}),
        (["CHOWN"], ["CHOWN"], set(), {"CAP_CHOWN"}),
        ([], ["ALL"], set(), set(DEFAULT)),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], has: set[str], lacks: set[str]) -> None:
    sets = capability_sets(api.Capability(add_capabilities=add, drop_capabilities=drop), privileged=False)
    assert has & grantable() <= set(sets["permitted"])
    assert not lacks & set(sets["permitted"])


def test_ambient_capabilities_are_in_all_sets() -> None:
    request = api.Capability(add_ambient_capabilities=["NET_BIND_SERVICE"], drop_capabilities=["ALL"])
    assert set(map(tuple, capability_sets(request, privileged=False).values())) == {("CAP_NET_BIND_SERVICE",)}


def test_unknown_capability() -> None:
    with pytest.raises(InvalidRequest, match="FLY"):
        capability_sets(api.Capability(add_capabilities=["FLY"]), privileged=False)


def test_privileged_has_all_that_can_be_given() -> None:
    assert set(capability_sets(api.Capability(drop_capabilities=["ALL"]), privileged=True)["bounding"]) == grantable()


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGRTMAX", 64), ("SIGPOLL", 29)],
)
def test_signal_names(name: str, number: int) -> None:
    assert number_of(name) == number


@pytest.mark.parametrize("name", ["", "SIGFOO", "0", "65", "-1", "SIGRTMIN+99", "SIGRTMIN+x", "SIGRT", "999"])
def test_no_signals(name: str) -> None:
    with pytest.raises(InvalidRequest):
        number_of(name)


def test_every_signal_of_the_interface_goes_there_and_back() -> None:
    for value in api.Signal.values():
        if value != api.SIGNAL_RUNTIME_DEFAULT:
            number = stop_signal(value, "")
            assert stop_signal(interface_signal(number), "") == number
    assert stop_signal(api.SIGNAL_RUNTIME_DEFAULT, "SIGQUIT") == 3
    assert stop_signal(api.SIGNAL_RUNTIME_DEFAULT, "") == 15


def test_resources() -> None:
    asked = api.LinuxContainerResources(
        cpu_quota=20000,
        cpu_period=100000,
        memory_limit_in_bytes=1 << 26,
        cpuset_cpus="0",
        unified={"memory.high": "1000"},
        hugepage_limits=[api.HugepageLimit(page_size="2MB", limit=1)],
    )
    assert oci_resources(asked) == {
        "cpu": {"quota": 20000, "period": 100000, "cpus": "0"},
        "memory": {"limit": 1 << 26},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "unified": {"memory.high": "1000"},
    }
    assert oci_resources(api.LinuxContainerResources()) == {}
    assert merged(asked, api.LinuxContainerResources(cpu_quota=5)).memory_limit_in_bytes == 1 << 26


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_limit_in_bytes": -1},
        {"memory_limit_in_bytes": 2, "memory_swap_limit_in_bytes": 1},
        {"unified": {"../../memory.max": "1"}},
        {"unified": {"cgroupprocs": "1"}},
    ],
)
def test_resources_that_mean_nothing(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        oci_resources(api.LinuxContainerResources(**fields))


def test_an_update_changes_what_it_says_and_what_follows_from_it() -> None:
    page = api.HugepageLimit
    current = api.LinuxContainerResources(
        memory_limit_in_bytes=10, hugepage_limits=[page(page_size="2MB", limit=1), page(page_size="1GB", limit=2)]
    )
    update = api.LinuxContainerResources(memory_limit_in_bytes=20, hugepage_limits=[page(page_size="1GB", limit=3)])
    after = merged(current, update)
    assert {each.page_size: each.limit for each in after.hugepage_limits} == {"2MB": 1, "1GB": 3}
    assert (after.memory_limit_in_bytes, after.memory_swap_limit_in_bytes) == (20, 0)
    current.memory_swap_limit_in_bytes = 10
    assert merged(current, update).memory_swap_limit_in_bytes == 20, "no swap is still no swap"
    current.memory_swap_limit_in_bytes = 30
    assert merged(current, update).memory_swap_limit_in_bytes == 30


def test_half_of_a_pair_brings_the_other_half() -> None:
    wanted = {"cpu": {"quota": 5, "period": 9, "shares": 2}, "memory": {"limit": 3, "swap": 3}}
    assert completed({"cpu": {"quota": 5}}, wanted) == {"cpu": {"quota": 5, "period": 9}}
    assert completed({"cpu": {"shares": 2}}, wanted) == {"cpu": {"shares": 2}}
    assert completed({"memory": {"limit": 3}}, wanted) == {"memory": {"limit": 3, "swap": 3}}
    assert completed({"memory": {"limit": -1}}, wanted) == {"memory": {"limit": -1, "swap": -1}}


def test_a_memory_limit_that_says_nothing_of_swap_allows_none() -> None:
    assert without_swap({"memory": {"limit": 5}}) == {"memory": {"limit": 5, "swap": 5}}
    for told in (
        {"memory": {"limit": 5, "swap": -1}},
        {"memory": {"limit": 5}, "unified": {"memory.swap.max": "9"}},
        {},
    ):
        assert without_swap(told) == told
    with pytest.raises(InvalidRequest, match="set both"):
        without_swap({"memory": {"swap": 5}})


def test_oom_score_is_bounded() -> None:
    assert oom_score_adj(1000) == 1000
    with pytest.raises(InvalidRequest):
        oom_score_adj(1001)


def test_sysctls_of_the_pods_own_namespaces() -> None:
    own = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "1024 65000"}
    assert checked_sysctls(own, api.NamespaceOption()) == own


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [
        ("kernel.core_pattern", "|/bin/x", {}),
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/bin/x #", {}),  # CVE-2022-0811
        ("kernel.shm_rmid_forced", "1\nx", {}),
        ("net.ipv4.ip_forward", "1=2", {}),
        ("net/../kernel/core_pattern", "x", {}),
        ("kernel.shmmax/../core_pattern", "x", {}),
        ("net.ipv4.ip_forward", "1", {"network": api.NODE}),  # CVE-2022-0532
        ("kernel.shmmax", "1", {"ipc": api.NODE}),
        ("vm.swappiness", "1", {}),
    ],
)
def test_sysctls_of_the_host(name: str, value: str, options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        checked_sysctls({name: value}, api.NamespaceOption(**options))


def test_resolv_conf() -> None:
    config = api.DNSConfig(servers=["10.0.0.10"], searches=["a.b", "c"], options=["ndots:5"])
    assert resolv_conf(config) == b"search a.b c\nnameserver 10.0.0.10\noptions ndots:5\n"
    with pytest.raises(InvalidRequest):
        resolv_conf(api.DNSConfig(servers=["1.1.1.1\nnameserver 6.6.6.6"]))


def test_host_volumes(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    mount = host_volume(api.Mount(container_path="data/", host_path=str(tmp_path / "link"), readonly=True))
    assert (mount["destination"], mount["source"]) == ("/data", str(tmp_path / "real"))
    assert mount["options"] == ["rbind", "rprivate", "ro"]
    with pytest.raises(NotFound, match="create it first"):
        host_volume(api.Mount(container_path="/data", host_path=str(tmp_path / "none")))


@pytest.mark.parametrize(
    "fields",
    [
        {"container_path": ""},
        {"container_path": "/"},
        {"container_path": "/x/.."},
        {"host_path": "relative"},
        {"recursive_read_only": True},
        {"recursive_read_only": True, "readonly": True, "propagation": api.PROPAGATION_BIDIRECTIONAL},
        {"mount_options": ["suid"]},
        {"image_sub_path": "x"},
    ],
)
def test_mounts_that_contradict_themselves(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        host_volume(api.Mount(**{"container_path": "/data", "host_path": "/", **fields}))


def test_a_volume_replaces_a_base_mount_and_parents_come_first() -> None:
    volumes = [
        host_volume(api.Mount(container_path=path, host_path="/")) for path in ("/a/b", "/a", "/dev/shm", "/dev/x")
    ]
    merged_mounts = [mount["destination"] for mount in merge_mounts(base_mounts(privileged=False, shm="/s"), volumes)]
    assert merged_mounts.count("/dev/shm") == 1
    assert merged_mounts.index("/a") < merged_mounts.index("/a/b")
    assert merged_mounts.index("/dev") < merged_mounts.index("/dev/x")


def test_a_slash_at_the_end_makes_no_mount_deeper() -> None:
    mounts = [{"destination": place} for place in ("/a/b", "/z/", "/c", "/a/", "/")]
    assert [mount["destination"] for mount in in_order(mounts)] == ["/", "/z/", "/c", "/a/", "/a/b"]


def test_image_volumes(tmp_path: Path) -> None:
    for layer in ("a", "b"):
        (tmp_path / layer / "sub").mkdir(parents=True)
    layers = [str(tmp_path / "a"), str(tmp_path / "b")]
    request = api.Mount(container_path="/v", image=api.ImageSpec(image="i"), image_sub_path="sub")
    mount = image_volume(request, layers)
    assert mount["type"] == "overlay"
    assert mount["options"] == ["ro", f"lowerdir+={layers[0]}/sub", f"lowerdir+={layers[1]}/sub"]
    assert image_volume(request, layers[:1])["source"] == f"{layers[0]}/sub"
    request.image_sub_path = "nothing"
    with pytest.raises(NotFound, match="image_sub_path 'nothing'"):
        image_volume(request, layers)


def test_what_is_masked_for_clients_that_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GHSA-6fw5-f8r9-fgfm: the counters of each processor, where there are any; the client's own list is its own."""
    for number in range(2):
        (tmp_path / f"cpu{number}/thermal_throttle").mkdir(parents=True)
    monkeypatch.setattr(oci, "THROTTLING", f"{tmp_path}/cpu*/thermal_throttle")
    context = api.LinuxContainerSecurityContext()
    masked, readonly = oci.guarded_paths(context, userns=False)
    assert masked == [*oci.MASKED_PATHS, *(f"{tmp_path}/cpu{number}/thermal_throttle" for number in range(2))]
    assert readonly == oci.READONLY_PATHS
    assert oci.guarded_paths(context, userns=True) == ([], [])
    context.masked_paths.append("/proc/keys")
    assert oci.guarded_paths(context, userns=False)[0] == ["/proc/keys"]
