"""cargo: the binaries of this tree, built as for a release."""

import json
import os
import shlex
import shutil
from pathlib import Path

from .failure import Failure
from .process import run

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ("--release", "--locked", "--message-format", "json-render-diagnostics")


def target_directory() -> Path:
    """Where cargo puts what it builds."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def has(package: str, binary: str) -> bool:
    """Whether this tree has such a binary in such a package."""
    metadata = ["metadata", "--no-deps", "--format-version", "1"]
    packages = json.loads(_cargo(*metadata))["packages"]
    return (package, binary) in {(p["name"], t["name"]) for p in packages for t in p["targets"]}


def build(package: str, binary: str) -> Path:
    """Builds a binary, and tells where it is."""
    for line in _cargo("build", *RELEASE, "-p", package, "--bin", binary).splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable") and message["target"]["name"] == binary:
            return Path(message["executable"])
    raise Failure(f"cargo built no {binary} of {package}")


def _cargo(*arguments: str) -> str:
    cargo = shlex.split(os.environ.get("CARGO", "cargo"))
    if not shutil.which(cargo[0]):
        raise Failure("cargo is missing: install a Rust toolchain, 1.90 or newer")
    return run([*cargo, *arguments], cwd=ROOT).stdout
