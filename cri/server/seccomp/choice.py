"""Which seccomp filter a container asks for, and that filter in the form that its runtime takes.

A request names a profile by the typed field or, from older clients, by a path. One that names none is unconfined, as is
a privileged container whatever it names (api.proto, LinuxContainerSecurityContext).
"""

from __future__ import annotations

from typing import Any

from cri.proto import api_pb2 as api
from cri.server.errors import InvalidRequest
from cri.server.seccomp.compiled import Profiles


async def compiled_filter(
    profiles: Profiles, context: api.LinuxContainerSecurityContext, capabilities: frozenset[str]
) -> str:
    """For the built-in runtime: the path of the compiled filter, '' for none. Raises InvalidRequest, NotFound."""
    profile = profile_of(context)
    if profile is None:
        return ""
    if profile.profile_type == api.SecurityProfile.RuntimeDefault:
        return await profiles.default(capabilities)
    return await profiles.localhost(_localhost_path(profile), capabilities)


async def filter_document(
    profiles: Profiles, context: api.LinuxContainerSecurityContext, capabilities: frozenset[str]
) -> dict[str, Any] | None:
    """For an external runtime: the same as OCI `linux.seccomp`, None for none. Raises InvalidRequest, NotFound."""
    profile = profile_of(context)
    if profile is None:
        return None
    if profile.profile_type == api.SecurityProfile.RuntimeDefault:
        return await profiles.default_document(capabilities)
    return await profiles.localhost_document(_localhost_path(profile), capabilities)


def profile_of(context: api.LinuxContainerSecurityContext) -> api.SecurityProfile | None:
    """The profile as the typed field would name it, None for none. Raises InvalidRequest."""
    if context.privileged:
        return None
    profile = _typed(context) if context.HasField("seccomp") else _deprecated(context.seccomp_profile_path)
    return None if profile.profile_type == api.SecurityProfile.Unconfined else profile


def _typed(context: api.LinuxContainerSecurityContext) -> api.SecurityProfile:
    if context.seccomp.profile_type not in api.SecurityProfile.ProfileType.values():
        raise InvalidRequest(f"seccomp profile_type {context.seccomp.profile_type} is no value of the interface's")
    return context.seccomp


def _deprecated(text: str) -> api.SecurityProfile:
    if text in ("", "unconfined"):
        return api.SecurityProfile(profile_type=api.SecurityProfile.Unconfined)
    if text in ("runtime/default", "docker/default"):
        return api.SecurityProfile(profile_type=api.SecurityProfile.RuntimeDefault)
    kind, _, path = text.partition("/")
    if kind != "localhost":
        raise InvalidRequest(
            f"seccomp_profile_path {text[:200]!r} is not runtime/default, unconfined or localhost/PATH"
        )
    return api.SecurityProfile(profile_type=api.SecurityProfile.Localhost, localhost_ref=path)


def _localhost_path(profile: api.SecurityProfile) -> str:
    if not profile.localhost_ref:
        # An empty name once meant "no filter" (CVE-2023-2431).
        raise InvalidRequest("seccomp profile_type is Localhost, but localhost_ref is empty")
    return profile.localhost_ref
