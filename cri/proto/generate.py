"""Makes NAME_pb2.py and NAME_pb2.pyi beside every NAME.proto of this repository.

    python cri/proto/generate.py            write them
    python cri/proto/generate.py --check    say which of them are stale, exit 1 if any is

The generated files are committed: an installation needs protobuf only, not grpcio-tools. There are no *_pb2_grpc.py
files, because clients and servers bind their services from the descriptors at run time.
"""

from __future__ import annotations

import argparse
import importlib.resources
import keyword
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cri", "csi", "nodeagent")


def sources() -> list[Path]:
    """Every .proto of the packages, relative to the repository root, which is also the import root of protoc."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.proto"))
    return sorted(path.relative_to(ROOT) for path in found)


def compile_into(out: Path, protos: Iterable[Path]) -> None:
    """Run protoc over `protos`; raises RuntimeError when it refuses them (its complaint is on stderr)."""
    from grpc_tools import protoc

    well_known = importlib.resources.files("grpc_tools") / "_proto"
    arguments = [f"-I{ROOT}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}"]
    names = [str(proto) for proto in protos]
    if protoc.main(["protoc", *arguments, *names]) != 0:
        raise RuntimeError(f"protoc refused one of {', '.join(names)}; its message is above")
    for proto in protos:
        _make_parsable(out / outputs(proto)[1])


def _make_parsable(stub: Path) -> None:
    """Take the names that Python keeps for itself (NRI has a value None) out of a stub, or nothing can read it."""
    lines = stub.read_text().splitlines(keepends=True)
    stub.write_text("".join(line for line in lines if not keyword.iskeyword(line.strip().partition(":")[0])))


def outputs(proto: Path) -> tuple[Path, Path]:
    stem = proto.name.removesuffix(".proto")
    return proto.with_name(f"{stem}_pb2.py"), proto.with_name(f"{stem}_pb2.pyi")


def stale() -> list[Path]:
    """Generated files that are missing or differ from what their .proto gives now."""
    protos = sources()
    with tempfile.TemporaryDirectory() as scratch:
        compile_into(Path(scratch), protos)
        made = [path for proto in protos for path in outputs(proto)]
        return [path for path in made if not _same(ROOT / path, Path(scratch) / path)]


def _same(committed: Path, fresh: Path) -> bool:
    return committed.is_file() and committed.read_bytes() == fresh.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        compile_into(ROOT, sources())
        return 0
    old = stale()
    for path in old:
        print(f"{path} is stale: run python cri/proto/generate.py", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    raise SystemExit(main())
