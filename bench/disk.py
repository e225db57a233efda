"""Directories on the disk: how large they are, and how they go away."""

import os
import shutil
import stat
from pathlib import Path

from .process import run


def usage_bytes(directory: Path) -> int:
    """What a directory takes on the disk; rounded up to megabytes it is what `du -sm` says."""
    return int(run(["du", "-s", "-B1", directory]).stdout.split()[0])


def remove(directory: Path) -> None:
    """Removes a directory with all that is in it, as in a Nix store without permission to."""
    if not directory.exists():
        return
    for place, _, _ in os.walk(directory):
        if not os.lstat(place).st_mode & stat.S_IWUSR:
            os.chmod(place, 0o755)
    shutil.rmtree(directory)


def settle() -> None:
    """Writes out what earlier runs left to write, so that the next does not pay for it."""
    os.sync()
