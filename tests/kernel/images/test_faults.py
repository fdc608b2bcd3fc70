"""Registries that fail, lie, stall or ask for more: what is retried, what is refused, and that no half of it stays."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from images import Auth, ImageStore
from images.build import regular
from images.errors import (
    DigestMismatch,
    ImageError,
    ImageNotFound,
    InvalidConfiguration,
    MalformedImage,
    RegistryError,
    TooLarge,
    Unauthorized,
)
from runtime.linux.ledger import Ledger
from runtime.linux.records import Records
from tests.support.faulty_registry import FaultyRegistry, changed, cut, passed_on, stall, status, without_ranges
from tests.support.images import push_image
from tests.support.registry import PASSWORD, USER, Registry

SIZE = 3 << 20
NUMBERS = itertools.count()


def pushed_image(registry: Registry) -> tuple[str, str, str]:
    """A new image with one large layer: name, id and the layer's digest."""
    name = f"faults:{next(NUMBERS)}"
    pushed = push_image(registry, name, [[regular("data", os.urandom(SIZE))]])
    return name, pushed.image_id, pushed.blobs[0]


def nothing_left(root: Path, ledger: Ledger, *, partial: bool = False) -> bool:
    """Nothing but an ingest file to resume, if that is meant, is left of a failed pull."""
    files = [path.name for folder in ("unpacking", "layers") for path in (root / "snapshots" / folder).iterdir()]
    ingests = [path.name for path in (root / "content" / "ingest").iterdir()]
    assert ([entry.key for entry in ledger.entries()], files) == (ingests, [])
    return len(ingests) == partial


@pytest.mark.parametrize("code", [401, 403, 404, 418, 429, 500, 503])
@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
async def test_statuses(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger, code: int, part: str
) -> None:
    name, _, _ = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(part, status(code))
        kind = {401: Unauthorized, 403: Unauthorized, 404: ImageNotFound}.get(code, RegistryError)
        with pytest.raises(kind, match=f"you get {code}") as caught:
            await store.pull(f"{faulty.host}/{name}")
        assert faulty.host in str(caught.value)
        retried = code in (429, 500, 503)
        assert len({seen.path for seen in faulty.asked(part)}) == 1
        assert len(faulty.asked(part)) == (3 if retried and part == "/manifests/" else len(faulty.asked(part)))
    assert store.list() == []
    assert nothing_left(tmp_path / "root", ledger)


async def test_failures_that_pass_are_retried(store: ImageStore, registry: Registry) -> None:
    name, image_id, _ = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add("/manifests/", status(503), times=2)
        faulty.add("/blobs/", status(502), times=2)
        assert (await store.pull(f"{faulty.host}/{name}")).id == image_id


async def test_a_blob_is_resumed_where_it_broke_off(store: ImageStore, registry: Registry) -> None:
    name, image_id, blob = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(blob, cut(after=1 << 20), times=2)
        assert (await store.pull(f"{faulty.host}/{name}")).id == image_id
        ranges = [seen.headers.get("Range") for seen in faulty.asked(blob)]
    assert ranges[0] is None
    starts = [int(re.sub(r"bytes=(\d+)-", r"\1", text)) for text in ranges[1:] if text]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] <= 2 << 20


async def test_a_server_without_ranges_sends_it_all_again(store: ImageStore, registry: Registry) -> None:
    name, image_id, blob = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(blob, without_ranges(after=1 << 20), times=2)
        faulty.add(blob, without_ranges())
        assert (await store.pull(f"{faulty.host}/{name}")).id == image_id


async def test_the_next_pull_resumes_what_a_failed_one_left(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger
) -> None:
    name, image_id, blob = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(blob, cut(after=1 << 20), times=1)
        faulty.add(blob, status(500))
        with pytest.raises(RegistryError):
            await store.pull(f"{faulty.host}/{name}")
        assert nothing_left(tmp_path / "root", ledger, partial=True)
        faulty.heal()
        before = len(faulty.asked(blob))
        assert (await store.pull(f"{faulty.host}/{name}")).id == image_id
        (last,) = faulty.asked(blob)[before:]
        assert re.fullmatch(r"bytes=[1-9]\d+-", last.headers["Range"])


@pytest.mark.parametrize("after", [0, 1000])
async def test_a_stalled_registry_is_given_up(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger, after: int
) -> None:
    name, _, blob = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(blob, stall(after))
        begun = time.monotonic()
        with pytest.raises(RegistryError, match=faulty.host):
            await store.pull(f"{faulty.host}/{name}")
        assert time.monotonic() - begun < 20
    assert nothing_left(tmp_path / "root", ledger, partial=True)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), DigestMismatch),
        (lambda body: body[:1000] + bytes(1000) + body[2000:], DigestMismatch),
        (lambda body: body[:-10], DigestMismatch),
        (lambda body: body + b"more", DigestMismatch),
        (lambda body: b"", DigestMismatch),
        (lambda body: b"<html>log in first</html>", DigestMismatch),
    ],
    ids=["last byte", "middle", "short", "long", "empty", "portal"],
)
async def test_a_blob_that_is_not_what_its_digest_says(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger, change: object, error: type[ImageError]
) -> None:
    name, image_id, blob = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(blob, changed(change), times=1)  # type: ignore[arg-type]
        with pytest.raises(error, match=blob):
            await store.pull(f"{faulty.host}/{name}")
        assert nothing_left(tmp_path / "root", ledger)
        assert (await store.pull(f"{faulty.host}/{name}")).id == image_id


async def test_a_config_or_manifest_that_is_not_what_its_digest_says(store: ImageStore, registry: Registry) -> None:
    name, image_id, _ = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(image_id, changed(lambda body: body.replace(b"sh", b"SH")), times=1)
        with pytest.raises(DigestMismatch, match=image_id):
            await store.pull(f"{faulty.host}/{name}")
        manifest = (await store.pull(f"{faulty.host}/{name}")).repo_digests[0].partition("@")[2]
        faulty.add("/manifests/", changed(lambda body: body + b" "), times=1)
        with pytest.raises(DigestMismatch, match=manifest):
            await store.pull(f"{faulty.host}/faults@{manifest}")


async def test_documents_without_end(store: ImageStore, registry: Registry) -> None:
    name, image_id, _ = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add("/manifests/", changed(lambda _: b" " * (5 << 20)), times=1)
        with pytest.raises(TooLarge, match="4194304"):
            await store.pull(f"{faulty.host}/{name}")
        faulty.add(image_id, changed(lambda _: b" " * (64 << 20)), times=1)
        with pytest.raises(DigestMismatch):
            await store.pull(f"{faulty.host}/{name}")
        faulty.add("/manifests/", changed(lambda _: b"<html></html>"), times=1)
        with pytest.raises(MalformedImage):
            await store.pull(f"{faulty.host}/{name}")


async def test_a_layer_that_unpacks_to_something_else(store: ImageStore, registry: Registry) -> None:
    """The blob's digest is right; the diff id in the config is not."""
    pushed = push_image(registry, "liar:1", [[regular("a", b"a")]], claimed=["sha256:" + "0" * 64])
    with pytest.raises(DigestMismatch, match="unpacks to"):
        await store.pull(pushed.ref)


async def test_tokens(store: ImageStore, registry: Registry) -> None:
    name, image_id, _ = pushed_image(registry)
    async with FaultyRegistry(registry, bearer=True) as faulty:
        for wrong in (None, Auth(USER, "wrong")):
            with pytest.raises(Unauthorized, match="who are you"):
                await store.pull(f"{faulty.host}/{name}", auth=wrong)
        faulty.requests.clear()
        assert (await store.pull(f"{faulty.host}/{name}", auth=Auth(USER, PASSWORD))).id == image_id
        (asked,) = faulty.asked("/token")
        assert "scope=repository%3Afaults%3Apull" in asked.path
        assert "service=tests" in asked.path
        assert all(seen.authorization.startswith("Bearer ") for seen in faulty.asked("/blobs/"))
        assert not any("Basic" in seen.authorization for seen in faulty.asked("/v2/"))


async def test_tokens_for_anybody(store: ImageStore, registry: Registry) -> None:
    name, image_id, _ = pushed_image(registry)
    async with FaultyRegistry(registry, bearer=True, anonymous=True) as faulty:
        assert (await store.pull(f"{faulty.host}/{name}")).id == image_id


async def test_a_token_that_expires_in_mid_blob_is_renewed(store: ImageStore, registry: Registry) -> None:
    name, image_id, blob = pushed_image(registry)
    async with FaultyRegistry(registry, bearer=True) as faulty:
        faulty.add(blob, cut(after=1 << 20), times=1)
        pulling = asyncio.create_task(store.pull(f"{faulty.host}/{name}", auth=Auth(USER, PASSWORD)))
        await faulty.until_asked(blob)
        faulty.revoke_tokens()
        assert (await pulling).id == image_id
        assert len(faulty.asked("/token")) == 2


async def test_an_identity_token_is_exchanged(store: ImageStore, registry: Registry) -> None:
    name, image_id, _ = pushed_image(registry)
    async with FaultyRegistry(registry, bearer=True) as faulty:
        with pytest.raises(Unauthorized):
            await store.pull(f"{faulty.host}/{name}", auth=Auth(identity_token="wrong"))
        assert (await store.pull(f"{faulty.host}/{name}", auth=Auth(identity_token=PASSWORD))).id == image_id
        assert all(seen.authorization.startswith("Bearer access-") for seen in faulty.asked("/blobs/"))


async def test_a_registry_token_is_used_as_it_is(store: ImageStore, registry: Registry) -> None:
    name, image_id, _ = pushed_image(registry)
    async with FaultyRegistry(registry, bearer=True) as faulty:
        faulty._tokens.append("given")
        assert (await store.pull(f"{faulty.host}/{name}", auth=Auth(registry_token="given"))).id == image_id
        assert faulty.asked("/token") == []


async def test_a_redirect_elsewhere_gets_no_credentials(store: ImageStore, tmp_path: Path) -> None:
    with Registry(tmp_path / "private", auth=True) as private, Registry(tmp_path / "elsewhere") as elsewhere:
        data = os.urandom(SIZE)
        pushed = push_image(private, "redirected:1", [[regular("data", data)]])
        push_image(elsewhere, "redirected:1", [[regular("data", data)]])
        async with FaultyRegistry(private) as faulty, FaultyRegistry(elsewhere) as other:
            for blob in (pushed.image_id, pushed.blobs[0]):
                faulty.add(blob, status(307, Location=f"http://{other.host}/v2/redirected/blobs/{blob}"))
            image = await store.pull(f"{faulty.host}/redirected:1", auth=Auth(USER, PASSWORD))
            assert image.id == pushed.image_id
            assert faulty.asked("/blobs/")[0].authorization.startswith("Basic ")
            assert len(other.requests) == 2
            assert [seen.authorization for seen in other.requests] == ["", ""]


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
async def test_who_is_redirected_to_cannot_ask_for_credentials(
    store: ImageStore, registry: Registry, part: str
) -> None:
    """Neither Basic, nor by naming a token service of its own (CVE-2020-15157)."""
    name, _, _ = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty, FaultyRegistry(registry, bearer=True) as thief:
        faulty.add(part, status(307, Location=f"http://{thief.host}/v2/faults{part}1"))
        for auth in (Auth(USER, PASSWORD), Auth(identity_token=PASSWORD)):
            with pytest.raises(Unauthorized, match=faulty.host):
                await store.pull(f"{faulty.host}/{name}", auth=auth)
        assert thief.asked("/token") == []
        thief.add(part, status(401, WWW_Authenticate='Basic realm="x"'))
        thief._bearer = False
        with pytest.raises(Unauthorized, match=faulty.host):
            await store.pull(f"{faulty.host}/{name}", auth=Auth(USER, PASSWORD))
        assert {seen.authorization for seen in thief.requests + faulty.requests} == {""}


async def test_a_registry_with_tls(store: ImageStore, tmp_path: Path) -> None:
    with Registry(tmp_path / "tls", tls=True) as secure:
        pushed = push_image(secure, "secure:1", [[regular("data", b"data")]])
        folder = tmp_path / "certs.d" / secure.host
        folder.mkdir(parents=True)
        settings = folder / "hosts.toml"
        settings.write_text(f'server = "https://{secure.host}"')
        with pytest.raises(RegistryError, match=r"(?i)certificate"):
            await store.pull(pushed.ref)
        settings.write_text(f'ca = "{secure.certificate}"')
        assert (await store.pull(pushed.ref)).id == pushed.image_id
        await store.remove(pushed.ref)
        settings.write_text("skip_verify = true")
        assert (await store.pull(pushed.ref)).id == pushed.image_id
        settings.write_text("skip_verify = maybe")
        with pytest.raises(InvalidConfiguration, match=r"hosts\.toml"):
            await store.pull(pushed.ref)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "//", "http://", "/v2/loop/blobs/sha256:x"])
async def test_redirects_to_nowhere(store: ImageStore, registry: Registry, location: str) -> None:
    name, _, _ = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add("/blobs/", status(302, Location=location))
        with pytest.raises(ImageError):
            await store.pull(f"{faulty.host}/{name}")
        assert len(faulty.asked("/blobs/")) < 60


async def test_stalled_pulls_keep_nobody_else_waiting(
    tmp_path: Path, ledger: Ledger, records: Records, registry: Registry
) -> None:
    """More stalled layers than there are threads in the pool, and each with an unpacker that waits for it."""
    store = ImageStore(tmp_path / "root", ledger, records, registries=[])
    await store.recover()
    stalled = [
        push_image(registry, f"stalled:{n}", [[regular(f"{n}-{layer}", os.urandom(1000))] for layer in range(3)])
        for n in range(8)
    ]
    fine = push_image(registry, "fine:1", [[regular("fine", os.urandom(SIZE))]])
    async with FaultyRegistry(registry) as faulty:
        for layer in (blob for image in stalled for blob in image.blobs):
            faulty.add(layer, stall(100))
        pulls = [asyncio.create_task(store.pull(f"{faulty.host}/stalled:{n}")) for n in range(8)]
        for image in stalled:
            await faulty.until_asked(image.blobs[0])
        assert (await asyncio.wait_for(store.pull(f"{faulty.host}/fine:1"), 20)).id == fine.image_id
        assert not any(pull.done() for pull in pulls)
        await store.close()
        assert all(pull.cancelled() for pull in pulls)


@pytest.mark.parametrize("shared", ["a layer", "a blob", "a layer that is another one"])
async def test_a_pull_does_not_fail_with_another_one(store: ImageStore, registry: Registry, shared: str) -> None:
    """The first of two that wait for the same is refused, or has promised what it does not send."""
    base, other = [regular(shared, shared.encode())], [regular("other", os.urandom(100))]
    good = push_image(registry, f"faults:{next(NUMBERS)}", [base] if shared != "a blob" else [other, base])
    if shared == "a layer that is another one":
        bad, outcome = push_image(registry, f"faults:{next(NUMBERS)}", [other], claimed=good.diff_ids), passed_on
    else:
        bad, outcome = push_image(registry, f"faults:{next(NUMBERS)}", [base]), status(403)
    joined = asyncio.Event()

    async def late(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        await joined.wait()
        return await outcome(request, upstream)

    async with FaultyRegistry(registry) as faulty:
        faulty.add(bad.blobs[0], late)
        first = asyncio.create_task(store.pull(bad.ref.replace(registry.host, faulty.host)))
        await faulty.until_asked(bad.blobs[0])
        second = asyncio.create_task(store.pull(good.ref))
        flights = (store._arrivals if shared == "a blob" else store._layers)._flights._flights
        while all(flight.aboard < 2 for flight in flights.values()):  # noqa: ASYNC110 - joining tells nobody
            await asyncio.sleep(0.01)
        joined.set()
        assert (await second).id == good.image_id
        with pytest.raises((Unauthorized, DigestMismatch)):
            await first
    assert [image.id for image in store.list()] == [good.image_id]


async def test_a_cancelled_pull_leaves_nothing_but_what_can_be_resumed(
    store: ImageStore, registry: Registry, tmp_path: Path, ledger: Ledger
) -> None:
    name, image_id, blob = pushed_image(registry)
    async with FaultyRegistry(registry) as faulty:
        faulty.add(blob, stall(1 << 20), times=1)
        pulls = [asyncio.create_task(store.pull(f"{faulty.host}/{name}")) for _ in range(2)]
        await faulty.until_asked(blob)
        pulls[0].cancel()
        await asyncio.sleep(0.05)
        assert list((tmp_path / "root/snapshots/unpacking").iterdir()), "the other pull goes on"
        pulls[1].cancel()
        await asyncio.wait(pulls)
        assert nothing_left(tmp_path / "root", ledger, partial=True)
        assert (await store.pull(f"{faulty.host}/{name}")).id == image_id
