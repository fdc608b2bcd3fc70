"""A real docker-registry (Debian's package) on a loopback port, for as long as a `with` block lasts.

    with Registry(tmp_path) as registry:
        push_image(registry, "demo:1", [busybox_tree()])      # tests.support.images
        ... pull f"{registry.host}/demo:1" ...

Pushing goes through the distribution API with nothing but http.client, so that what we pull was stored by another
project's server without our own client having had a hand in it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import ssl
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

USER = "puller"
PASSWORD = "s3cret"
HTPASSWD = f"{USER}:$2b$04$PJlFjLEZV6s7t0yIlFVLYOv/TtLYeaOKm/vVZQPgonmnG0MAW99aa\n"
START_SECONDS = 20
CALL_SECONDS = 60


class Registry:
    """One server process with its storage in `directory`.

    `auth` demands USER and PASSWORD by HTTP Basic; `tls` serves HTTPS with a certificate of its own, `certificate`.
    """

    def __init__(self, directory: Path, *, auth: bool = False, tls: bool = False) -> None:
        self.directory = directory
        self.auth = auth
        self.certificate = directory / "certificate.pem" if tls else None
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """The registry's name in image references."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the server has logged, its access log included."""
        return (self.directory / "registry.log").read_text()

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Serve; the first time on a free port, after a stop() on the same one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.certificate is not None and not self.certificate.exists():
            self._make_certificate()
        (self.directory / "registry.json").write_text(json.dumps(self._config()))
        with (self.directory / "registry.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", "registry.json"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(r"listening on 127\.0\.0\.1:(\d+)", self.log)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"docker-registry did not start: {self.log}")
            time.sleep(0.01)
        self.port = int(found[1])

    def stop(self) -> None:
        """End the process; what was pushed stays for the next start()."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _config(self) -> dict[str, Any]:
        (self.directory / "htpasswd").write_text(HTPASSWD)
        auth = {"auth": {"htpasswd": {"realm": "tests", "path": str(self.directory / "htpasswd")}}}
        return {
            "version": "0.1",
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "storage")},
                "delete": {"enabled": True},
            },
            "http": {"addr": f"127.0.0.1:{self.port}", **self._tls()},
            **(auth if self.auth else {}),
        }

    def _tls(self) -> dict[str, Any]:
        if self.certificate is None:
            return {}
        return {"tls": {"certificate": str(self.certificate), "key": str(self.directory / "key.pem")}}

    def _make_certificate(self) -> None:
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=registry"
        files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"]
        subprocess.run([*command.split(), *files], cwd=self.directory, capture_output=True, check=True, timeout=60)

    def push_blob(self, repository: str, data: bytes) -> str:
        """Store a blob; returns its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        status, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, status
        location = urlsplit(headers["location"])
        target = f"{location.path}?{location.query}&digest={digest}"
        status, _, body = self.request("PUT", target, data, {"Content-Type": "application/octet-stream"})
        assert status == 201, (status, body)
        return digest

    def push_manifest(self, repository: str, tag: str, manifest: Mapping[str, Any] | bytes, media_type: str) -> str:
        """Store a manifest or an index under a tag; returns its digest."""
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        path = f"/v2/{repository}/manifests/{tag}"
        status, headers, answer = self.request("PUT", path, body, {"Content-Type": media_type})
        assert status == 201, (status, answer)
        return headers["docker-content-digest"]

    def _connection(self) -> http.client.HTTPConnection:
        if self.certificate is None:
            return http.client.HTTPConnection(self.host, timeout=CALL_SECONDS)
        context = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection(self.host, timeout=CALL_SECONDS, context=context)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One call: status, headers with lower-case names, body."""
        all_headers = dict(headers or {})
        if self.auth:
            all_headers["Authorization"] = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        connection = self._connection()
        try:
            connection.request(method, path, body, all_headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()
