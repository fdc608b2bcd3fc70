"""What a pod sees of names: its hostname, /etc/hosts and resolver configuration."""

from __future__ import annotations

from collections.abc import MutableSequence
from pathlib import Path

from cri.proto import api_pb2
from nodeagent.pods.pod import Pod
from runtime.linux.files import read_limited

#: The first that exists: systemd-resolved's stub on 127.0.0.53 cannot be reached from a pod.
RESOLV_CONFS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
NODE_HOSTS = Path("/etc/hosts")
_LIMIT = 1 << 20

_LOOPBACK = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hostname(pod: Pod) -> str:
    """At most 63 characters (HOST_NAME_MAX is 64); empty in the node's network, where it is the node's."""
    if pod.spec.get("hostNetwork"):
        return ""
    return (pod.spec.get("hostname") or pod.key.name)[:63].rstrip("-.")


def hosts_file(pod: Pod, pod_ips: tuple[str, ...]) -> str:
    """The content of /etc/hosts: the node's own file in the node's network, else the pod's name and addresses."""
    if pod.spec.get("hostNetwork"):
        lines = ["# The node's hosts file, as it was when the pod was made."]
        lines += read_limited(NODE_HOSTS, _LIMIT).decode(errors="replace").splitlines()
    else:
        lines = ["# The pod's hosts file, made by its node agent.", *_LOOPBACK.splitlines()]
        lines += [f"{ip}\t{hostname(pod)}" for ip in pod_ips]
    aliases = [f"{each['ip']}\t{' '.join(each.get('hostnames') or [])}" for each in pod.spec.get("hostAliases") or []]
    if aliases:
        lines += ["", "# spec.hostAliases", *aliases]
    return "\n".join(lines) + "\n"


def dns_config(pod: Pod) -> api_pb2.DNSConfig:
    """dnsPolicy None: spec.dnsConfig alone. Otherwise the node's own resolvers with spec.dnsConfig added, since there
    is no cluster DNS without a cluster."""
    made = api_pb2.DNSConfig() if pod.spec["dnsPolicy"] == "None" else node_dns()
    extra = pod.spec.get("dnsConfig") or {}
    _add(made.servers, extra.get("nameservers") or [])
    _add(made.searches, extra.get("searches") or [])
    for option in extra.get("options") or []:
        text = f"{option['name']}:{option['value']}" if option.get("value") else option["name"]
        kept = [each for each in made.options if each.partition(":")[0] != option["name"]]
        made.options[:] = [*kept, text]
    return made


def node_dns() -> api_pb2.DNSConfig:
    """resolv.conf(5) of the node; empty where there is none."""
    made = api_pb2.DNSConfig()
    place = next((path for path in RESOLV_CONFS if path.exists()), None)
    if place is None:
        return made
    for line in read_limited(place, _LIMIT).decode(errors="replace").splitlines():
        keyword, *words = line.split("#")[0].split(";")[0].split() or [""]
        if keyword == "nameserver":
            _add(made.servers, words[:1])
        elif keyword in ("search", "domain"):
            made.searches[:] = words
        elif keyword == "options":
            _add(made.options, words)
    return made


def _add(existing: MutableSequence[str], more: list[str]) -> None:
    existing.extend(each for each in more if each not in existing)
