"""hosts.toml: which servers are asked for a reference's domain, in which order, and how."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from images.errors import InvalidConfiguration
from images.registry.challenge import Challenge, parse_challenges
from images.registry.hosts import Host, hosts_for


def hosts(tmp_path: Path, domain: str, text: str, folder: str | None = None) -> list[Host]:
    directory = tmp_path / (folder or domain)
    directory.mkdir(exist_ok=True)
    (directory / "hosts.toml").write_text(text)
    return hosts_for(domain, [tmp_path])


@pytest.mark.parametrize(
    ("domain", "base"),
    [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("quay.io", "https://quay.io/v2"),
        ("registry.example:5000", "https://registry.example:5000/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("localhost", "http://localhost/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("127.9.9.9:5000", "http://127.9.9.9:5000/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("127.0.0.1:443", "https://127.0.0.1:443/v2"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
        ("localhost.example", "https://localhost.example/v2"),
    ],
)
def test_without_configuration(tmp_path: Path, domain: str, base: str) -> None:
    (host,) = hosts_for(domain, [tmp_path / "missing"])
    assert host.base == base
    assert (host.tls is None) == base.startswith("http:")
    assert (host.namespace, dict(host.headers), set(host.capabilities)) == ("", {}, {"pull", "resolve"})


def test_mirrors_come_first_in_the_order_of_the_file(tmp_path: Path) -> None:
    first, second, server = hosts(
        tmp_path,
        "docker.io",
        """
        server = "https://upstream.example"
        [host."https://b.example/v2/cache"]
          capabilities = ["pull"]
          override_path = true
          [host."https://b.example/v2/cache".header]
            x-token = ["one", "two"]
        [host."http://a.example:8080/sub"]
          dial_timeout = "1500ms"
          proxy = "http://proxy.example:3128"
        """,
    )
    assert (first.base, set(first.capabilities), dict(first.headers)) == (
        "https://b.example/v2/cache",
        {"pull"},
        {"x-token": "one, two"},
    )
    assert (second.base, second.tls, second.dial_timeout) == ("http://a.example:8080/sub/v2", None, 1.5)
    assert second.proxy == "http://proxy.example:3128"
    assert (server.base, server.namespace) == ("https://upstream.example/v2", "")
    assert (first.namespace, second.namespace) == ("docker.io", "docker.io")


@pytest.mark.parametrize("folder", ["registry.example_5000_", "registry.example:5000", "_default"])
def test_names_of_the_directory(tmp_path: Path, folder: str) -> None:
    mirror, server = hosts(tmp_path, "registry.example:5000", '[host."https://m.example"]', folder)
    assert mirror.base == "https://m.example/v2"
    assert server.base == "https://registry.example:5000/v2"
    assert len(hosts_for("other.example", [tmp_path])) == (2 if folder == "_default" else 1)


def test_the_first_directory_that_knows_the_host_wins(tmp_path: Path) -> None:
    for number in "12":
        (tmp_path / number).mkdir()
        hosts(tmp_path / number, "a.example", f'server = "https://s{number}.example"')
    (host,) = hosts_for("a.example", [tmp_path / "none", tmp_path / "1", tmp_path / "2"])
    assert host.base == "https://s1.example/v2"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "pair.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=tests", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=path.parent, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    path.write_text((path.parent / "cert.pem").read_text() + (path.parent / "key.pem").read_text())
    return path


def test_tls_settings(tmp_path: Path, certificate: Path) -> None:
    (strict,) = hosts(tmp_path, "a.example", f'ca = "{certificate}"\nclient = [["{certificate}", ""]]')
    assert strict.tls is not None
    assert strict.tls.verify_mode == ssl.CERT_REQUIRED
    assert "tests" in str(strict.tls.get_ca_certs())
    (lax,) = hosts(tmp_path, "a.example", "skip_verify = true")
    assert lax.tls is not None
    assert lax.tls.verify_mode == ssl.CERT_NONE
    shutil.copy(certificate, tmp_path / "a.example" / "relative.pem")
    assert hosts(tmp_path, "a.example", 'ca = ["relative.pem"]\nclient = "relative.pem"')[0].tls is not None


def test_loopback_with_tls_settings_speaks_tls(tmp_path: Path, certificate: Path) -> None:
    (host,) = hosts(tmp_path, "127.0.0.1:5000", f'ca = "{certificate}"')
    assert host.base == "https://127.0.0.1:5000/v2"


def test_certificates_under_dockers_names(tmp_path: Path, certificate: Path) -> None:
    directory = tmp_path / "a.example"
    directory.mkdir()
    shutil.copy(certificate, directory / "ca.crt")
    shutil.copy(certificate, directory / "client.cert")
    shutil.copy(certificate, directory / "client.key")
    (host,) = hosts_for("a.example", [tmp_path])
    assert host.tls is not None
    assert host.tls is not hosts_for("b.example", [tmp_path])[0].tls
    (directory / "client.key").unlink()
    with pytest.raises(InvalidConfiguration, match=r"a\.example"):
        hosts_for("a.example", [tmp_path])


@pytest.mark.parametrize(
    "text",
    [
        "server = ",
        'server = "ftp://x"',
        'server = "https://user:secret@x"',
        'server = "https://x?y=z"',
        "host = 5",
        "[host]\nx = 5",
        'ca = "missing.pem"',
        "ca = 5",
        'skip_verify = "yes"',
        'override_path = "yes"',
        'header = "x"',
        "[header]\nx = 5",
        'capabilities = "pull"\ndial_timeout = "soon"',
        'proxy = "socks5://x"',
        "\xff",
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"a\.example/hosts\.toml"):
        hosts(tmp_path, "a.example", text)


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        ([], []),
        (["Basic realm=x"], [Challenge("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a/t?x=1,2",service="reg istry",Scope="repository:a/b:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a/t?x=1,2", "service": "reg istry", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            ['Negotiate, BEARER realm = "a\\"b\\\\" , error="invalid_token", Basic realm="c"'],
            [
                Challenge("negotiate"),
                Challenge("bearer", {"realm": 'a"b\\', "error": "invalid_token"}),
                Challenge("basic", {"realm": "c"}),
            ],
        ),
        (["Basic", "Bearer realm=t"], [Challenge("basic"), Challenge("bearer", {"realm": "t"})]),
        (['realm="x"', "", "=", '"', 'Bearer realm="open'], [Challenge("bearer")]),
    ],
)
def test_challenges(headers: list[str], challenges: list[Challenge]) -> None:
    found = parse_challenges(headers)
    assert found[: len(challenges)] == challenges


def test_a_hostile_challenge_takes_no_time() -> None:
    assert parse_challenges([", " * 1_000_000, '"' * 1_000_000, "a=" * 1_000_000]) is not None
