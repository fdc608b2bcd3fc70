"""References: the grammar's corners, docker.io's defaults, and what must never become a file name or an address."""

from __future__ import annotations

import pytest

from images.errors import InvalidReference
from images.reference import Reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("registry.k8s.io/e2e-test-images/busybox:1.29-2", "registry.k8s.io/e2e-test-images/busybox:1.29-2"),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("UPPER/app", "UPPER/app:latest"),
        ("a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}"),
        (f"busybox:1.36@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}"),
        (f"host/app@sha512:{HEX * 2}", f"docker.io/host/app@sha512:{HEX * 2}"),
        ("a.b/c:" + "t" * 128, "a.b/c:" + "t" * 128),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert str(Reference.parse(text)) == normal
    assert str(Reference.parse(normal)) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "/app",
        "app/",
        "a//b",
        "host//app",
        "Busybox",
        "app:",
        "app:-tag",
        "app:" + "t" * 129,
        "app:ta/g:",
        "app@",
        "app@sha256:",
        f"app@sha256:{HEX[1:]}",
        f"app@sha256:{HEX}0",
        f"app@sha256:{'A' * 64}",
        f"app@md5:{'a' * 32}",
        "app@sha256:../../x",
        HEX,
        "../../etc/passwd",
        "host:5000/../app",
        "host:99999/app",
        "ho_st.example/app",
        "-host.example/app",
        "host.example:/app",
        "[::1/app",
        "[fe80::1%eth0]/app",
        "[127.0.0.1]/app",
        "app name",
        "app\n",
        "app\x00",
        "a" * 256,
        "x" * 5000,
        "http://host/app",
        "user:password@host/app",
        "äpp",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert len(str(caught.value)) < 1000


def test_target_is_what_the_registry_is_asked_for() -> None:
    assert Reference.parse("busybox:1").target == "1"
    assert Reference.parse(f"busybox:1@sha256:{HEX}").target == f"sha256:{HEX}"
    assert Reference.parse("host.example/a/b:1").name == "host.example/a/b"
