"""One repository of a registry, through whichever of its hosts answers: manifests by name, blobs by digest.

A host that fails is tried again a few times if that can help, then the next one is asked. How a blob is read to
its end although hosts fail is told in download.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp

from images.digest import Digest
from images.errors import DigestMismatch, ImageError, ImageNotFound, RegistryError, Unauthorized
from images.limits import Limits
from images.media import ACCEPTED
from images.reference import Reference
from images.registry.auth import Authorizer
from images.registry.credentials import Auth
from images.registry.hosts import PULL, RESOLVE, Host
from images.registry.http import Answer, Http, connection_errors
from images.registry.retries import pause, worth_retrying
from images.source import Fetched

ERROR_BODY = 64 << 10


class Repository:
    """For one pull: it remembers which host works, and the tokens that were given."""

    def __init__(
        self, http: Http, reference: Reference, hosts: Sequence[Host], auth: Auth | None, limits: Limits
    ) -> None:
        self._http = http
        self._reference = reference
        self._hosts = list(hosts)
        self._authorizer = Authorizer(http, auth, reference.path)
        self._limits = limits

    async def manifest(self, digest: Digest | None = None) -> Fetched:
        """What the reference names, or the manifest of a digest; raises ImageNotFound, Unauthorized, RegistryError.

        A tag is only looked up where hosts.toml grants "resolve"; the first host that has an answer is preferred
        for everything after.
        """
        wanted = digest or self._reference.digest
        needed = PULL if wanted else RESOLVE
        failures: list[ImageError] = []
        for host in self.hosts(needed):
            try:
                fetched = await self._patiently(host, wanted)
            except ImageError as error:
                failures.append(error)
            else:
                self._prefer(host)
                return fetched
        raise self.verdict(failures, f"no host of {self._reference.domain} may {needed}")

    def hosts(self, capability: str) -> list[Host]:
        """The hosts that may be asked for this, the one that answered last first."""
        return [host for host in self._hosts if capability in host.capabilities]

    @contextlib.asynccontextmanager
    async def blob(self, host: Host, digest: Digest, offset: int) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response with a blob, or, of a host that knows ranges, with what follows `offset` (status 206)."""
        path, headers = f"blobs/{digest}", {"Range": f"bytes={offset}-"} if offset else {}
        for _ in range(2):
            shown = self._authorizer.header(host)
            sent = {**host.headers, **headers, **shown}
            async with self._http.stream("GET", self._url(host, path), sent, host) as response:
                if response.status in (200, 206):
                    yield response
                    return
                with connection_errors(str(response.url)):
                    body = await response.content.read(ERROR_BODY)
                answer = Answer(str(response.url), response.status, response.headers, body)
            if answer.status != 401 or not await self._authorizer.answer(host, answer, shown):
                break
        raise self._refusal(host, path, answer)

    def verdict(self, failures: Sequence[ImageError], otherwise: str) -> ImageError:
        """The last host's failure, as it is the registry itself, with those of the mirrors as notes."""
        if not failures:
            return RegistryError(otherwise, self._reference.domain)
        verdict = failures[-1]
        for failure in failures[:-1][-8:]:
            verdict.add_note(f"before that: {failure}")
        return verdict

    async def _manifest(self, host: Host, digest: Digest | None) -> Fetched:
        path = f"manifests/{digest or self._reference.target}"
        answer = await self._small(host, path, {"Accept": ACCEPTED})
        promised = digest or _promised(answer)
        actual = Digest.of(answer.body)
        if promised is not None and promised.algorithm != actual.algorithm:
            hasher = promised.hasher()
            hasher.update(answer.body)
            actual = Digest(f"{promised.algorithm}:{hasher.hexdigest()}")
        if promised is not None and promised != actual:
            raise DigestMismatch(f"{host.name} sent {actual} for the manifest {promised} of {self._reference.name}")
        return Fetched(answer.body, answer.headers.get("Content-Type", "").partition(";")[0].strip(), actual)

    async def _small(self, host: Host, path: str, headers: Mapping[str, str]) -> Answer:
        url = self._url(host, path)
        for _ in range(2):
            shown = self._authorizer.header(host)
            sent = {**host.headers, **headers, **shown}
            answer = await self._http.small("GET", url, sent, host, limit=self._limits.manifest)
            if answer.status != 401 or not await self._authorizer.answer(host, answer, shown):
                break
        if answer.status == 200:
            return answer
        raise self._refusal(host, path, answer)

    async def _patiently(self, host: Host, digest: Digest | None) -> Fetched:
        for attempt in range(1, self._limits.attempts):
            try:
                return await self._manifest(host, digest)
            except RegistryError as error:
                if not worth_retrying(error):
                    raise
            await pause(attempt, self._limits.first_pause)
        return await self._manifest(host, digest)

    def _refusal(self, host: Host, path: str, answer: Answer) -> ImageError:
        what = f"{host.name}/{self._reference.path} {path}"
        if answer.status == 404:
            return ImageNotFound(f"{what}: not found in the registry{answer.reason()}")
        if answer.status in (401, 403):
            hint = "check the credentials (imagePullSecrets), and whether the repository exists"
            return Unauthorized(f"{what}: access denied{answer.reason()}: {hint}", host.name, answer.status)
        return RegistryError(f"{what}: HTTP {answer.status}{answer.reason()}", host.name, answer.status)

    def _url(self, host: Host, path: str) -> str:
        namespace = f"?ns={host.namespace}" if host.namespace else ""
        return f"{host.base}/{self._reference.path}/{path}{namespace}"

    def _prefer(self, host: Host) -> None:
        self._hosts.remove(host)
        self._hosts.insert(0, host)


def _promised(answer: Answer) -> Digest | None:
    """The digest that the registry says the manifest has; whoever it is, it has to be right about that."""
    text = answer.headers.get("Docker-Content-Digest", "")
    return Digest.parse(text) if text else None
