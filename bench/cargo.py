"""cargo: the programs of this tree, built as for a release."""

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


def build(package: str, target: str, kind: str = "bin") -> Path:
    """Builds a target, a `bin` or a `bench`, and tells where the program is."""
    for line in _cargo("build", *RELEASE, "-p", package, f"--{kind}", target).splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("executable") and message["target"]["name"] == target:
            return Path(message["executable"])
    raise Failure(f"cargo built no {target} of {package}")


def figures(printed: str) -> dict[str, float]:
    """All numbers of the last JSON object of a line that a program prints."""
    objects = [line for line in printed.splitlines() if line.startswith("{")]
    if not objects:
        raise Failure(f"a program was to print a JSON object, and printed {printed[-200:]!r}")
    values = json.loads(objects[-1])
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _cargo(*arguments: str) -> str:
    cargo = shlex.split(os.environ.get("CARGO", "cargo"))
    if not shutil.which(cargo[0]):
        raise Failure("cargo is missing: install a Rust toolchain, 1.90 or newer")
    return run([*cargo, *arguments], cwd=ROOT).stdout
