"""Which AppArmor profile confines a container (KEP-24).

The kernel's profiles are the node's: one of the node's administrator is only looked up, the default one is loaded here
once, through apparmor_parser(8), whose compiler the kernel does not have. On a kernel without AppArmor nothing can be
asked for by name, and the default is none, as with the peers.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from pathlib import Path
from typing import Final

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest, NotFound, WrongState
from runtime.linux.commands import CommandFailed, run_command
from runtime.linux.files import read_limited
from runtime.linux.lsm import APPARMOR, apparmor_enabled

log = logging.getLogger("crid")

DEFAULT: Final = "nodeagent-default"
PARSER: Final = "apparmor_parser"
_PARSER_SECONDS: Final = 30.0
_PROFILES_LIMIT: Final = 16 << 20
_NAME: Final = re.compile(r"[^\s\0]{1,255}")

#: What the ecosystem's default profiles come to: everything but mounts, other profiles' processes, and the kernel's
#: settings below /proc and /sys. Signals may come from whoever runs unconfined, as the shim does, and from the runtimes
#: that distributions give a profile of that name.
PROFILE: Final = """\
@{PROC}=/proc/
profile %s flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  signal (receive) peer={unconfined,runc,crun},
  signal (send,receive) peer=%s,
  ptrace (trace,read,tracedby,readby) peer=%s,
  deny mount,
  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9s/]*,s[^y/]*,sy[^s/]*,sys[^/]*}/** w,
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{[^s]**,s[^h]**,sh[^m]**} w,
  deny @{PROC}/{kcore,sysrq-trigger} rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
""" % ((DEFAULT,) * 3)


class AppArmor:
    """The host's AppArmor, or its absence. `directory` is where the kernel lists profiles."""

    def __init__(self, enabled: bool | None = None, directory: Path = Path(APPARMOR)) -> None:
        self.enabled = apparmor_enabled() if enabled is None else enabled
        self._directory = directory
        self._loading = asyncio.Lock()
        #: Whether the default profile in the kernel is this program's, and not that of an older one.
        self._current = False
        if self.enabled and shutil.which(PARSER) is None:
            log.warning("%s is not installed: the default AppArmor profile, unless it is loaded, is none", PARSER)

    async def profile_of(self, context: api.LinuxContainerSecurityContext) -> str:
        """The name of the container's profile, "" for none.

        Raises InvalidRequest, NotFound for a profile that is not loaded, WrongState without AppArmor.
        """
        asked = _asked(context)
        kind = asked.profile_type if asked is not None else api.SecurityProfile.RuntimeDefault
        if kind == api.SecurityProfile.Localhost:
            assert asked is not None
            return await asyncio.to_thread(self._named, asked.localhost_ref)
        if kind == api.SecurityProfile.Unconfined or context.privileged or not self.enabled:
            return ""
        return await self._default()

    def _named(self, reference: str) -> str:
        if not self.enabled:
            raise WrongState(
                f"apparmor profile {reference[:80]!r}: this kernel runs without AppArmor; boot it with "
                "lsm=...,apparmor, or ask for Unconfined or RuntimeDefault"
            )
        if reference not in self._loaded():
            raise NotFound(
                f"apparmor profile {reference!r} is not loaded on this node; load it with {PARSER} -r FILE, and see "
                f"{self._directory}/profiles"
            )
        return reference

    def _loaded(self) -> set[str]:
        """Lines are `name (mode)`."""
        text = read_limited(self._directory / "profiles", _PROFILES_LIMIT).decode("utf-8", "replace")
        return {line.rpartition(" (")[0] for line in text.splitlines()}

    async def _default(self) -> str:
        """The default profile, loaded when it is not; "" where nothing is there to load it with."""
        async with self._loading:
            loaded = DEFAULT in await asyncio.to_thread(self._loaded)
            if loaded and self._current:
                return DEFAULT
            if shutil.which(PARSER) is None:
                return DEFAULT if loaded else ""
            await asyncio.to_thread(_load_default)
            self._current = True
            return DEFAULT


def _load_default() -> None:
    try:
        done = run_command([PARSER, "-Kr"], input=PROFILE.encode(), timeout=_PARSER_SECONDS, limit=1 << 16)
    except (CommandFailed, OSError) as error:
        raise WrongState(f"the default AppArmor profile cannot be loaded: {error}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise WrongState(f"the default AppArmor profile cannot be loaded: {PARSER} says: {said}")


def _asked(context: api.LinuxContainerSecurityContext) -> api.SecurityProfile | None:
    """The typed field, else the deprecated string; None when the request has neither."""
    if context.HasField("apparmor"):
        asked = context.apparmor
    elif context.apparmor_profile:
        asked = _from_text(context.apparmor_profile)
    else:
        return None
    if asked.profile_type != api.SecurityProfile.Localhost:
        if asked.localhost_ref:
            raise InvalidRequest("apparmor.localhost_ref is set, but profile_type is not Localhost")
        return asked
    name = asked.localhost_ref.removeprefix("localhost/")
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"apparmor.localhost_ref {asked.localhost_ref[:80]!r} is not the name of a profile")
    return api.SecurityProfile(profile_type=api.SecurityProfile.Localhost, localhost_ref=name)


def _from_text(text: str) -> api.SecurityProfile:
    if text == "runtime/default":
        return api.SecurityProfile(profile_type=api.SecurityProfile.RuntimeDefault)
    if text == "unconfined":
        return api.SecurityProfile(profile_type=api.SecurityProfile.Unconfined)
    kind, _, name = text.partition("/")
    if kind != "localhost":
        raise InvalidRequest(f"apparmor_profile {text[:80]!r} is not runtime/default, unconfined or localhost/NAME")
    return api.SecurityProfile(profile_type=api.SecurityProfile.Localhost, localhost_ref=name)
