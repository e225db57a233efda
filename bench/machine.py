"""The machine, and the versions of all that is measured: what figures mean nothing without."""

import hashlib
import os
import platform
import re
import subprocess
import time
from pathlib import Path

from .failure import Failure
from .peers import VERSIONS
from .process import environment, run

# Of the source of Linux: some ten megabytes of text, for zstd to show how fast it is here.
SAMPLE = ("kernel", "mm", "fs")
SECONDS_PER_LEVEL = 2
MIB = 1 << 20


def describe(work: Path, granary: Path) -> dict[str, object]:
    """What the machine is, and which programs it runs."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": _memory_bytes() // MIB,
        "kernel": platform.release(),
        "system": _system(),
        "file_system": (_said(["df", "--output=fstype", work]) or "unknown").split()[-1],
        "load_before": round(os.getloadavg()[0], 2),
        "rustc": _said(["rustc", "--version"]),
        "granary": _said([granary, "--version"]),
        "peers": {name: _first_version(argv) for name, argv in VERSIONS.items()},
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def speeds(linux: Path, work: Path) -> dict[str, float]:
    """What one core does here, in megabytes a second: zstd at levels 1 and 3, and SHA-256."""
    sample = work / "sample.tar"
    parts = [part for part in SAMPLE if (linux / part).is_dir()]
    run(["tar", "-C", linux, "-cf", sample, *parts])
    measured = {}
    try:
        for level in (1, 3):
            done = run(["zstd", f"-b{level}", f"-i{SECONDS_PER_LEVEL}", sample])
            measured[f"zstd_{level}"] = zstd_speed(done.stdout)
        measured["sha256"] = _sha256_speed(sample)
    finally:
        sample.unlink(missing_ok=True)
    return measured


def zstd_speed(printed: str) -> float:
    """Megabytes a second that `zstd -b` says it compresses.

    It overwrites its one line again and again; the last is the result.
    """
    if not (found := re.findall(r"\(x?[\d.]+\), *([\d.]+) MB/s", printed)):
        raise Failure(f"zstd -b says no speed: {printed[-200:]!r}")
    return float(found[-1])


def _sha256_speed(sample: Path) -> float:
    with open(sample, "rb") as file:
        began = time.perf_counter()
        hashlib.file_digest(file, "sha256")
        return round(sample.stat().st_size / (time.perf_counter() - began) / 1e6, 1)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _said(argv) -> str | None:
    """What a program prints, or None if it fails or is missing."""
    try:
        return run(argv, timeout_s=60).stdout.strip()
    except Failure:
        return None


def commit(root: Path) -> str:
    """The commit of the tree, and whether it was changed since."""
    git = ["git", "-C", root]
    head = _said([*git, "rev-parse", "--short=12", "HEAD"]) or "unknown sources"
    changed = _said([*git, "status", "--porcelain", "--untracked-files=no"])
    return f"{head} and changes" if changed else head


def _first_version(argv: list[str]) -> str:
    """The version in what a program says of itself, on either output."""
    try:
        done = subprocess.run(
            argv, env=environment(), capture_output=True, text=True, check=False, timeout=60
        )
    except OSError:
        return "missing"
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"
