"""Nix archives: one file system object as a stream of bytes, without times and owners."""

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

PIECE_BYTES = 1 << 20

Write = Callable[[bytes], object]


def write(root: Path, sink: Write) -> None:
    """Gives the NAR of what is at `root` to `sink`, piece by piece."""
    sink(_string(b"nix-archive-1"))
    _node(os.fsencode(root), sink)


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 8)


def _string(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value + _padding(len(value))


def _strings(*values: bytes) -> bytes:
    return b"".join(_string(value) for value in values)


def _node(path: bytes, sink: Write) -> None:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        sink(_strings(b"(", b"type", b"symlink", b"target", os.readlink(path), b")"))
    elif stat.S_ISREG(status.st_mode):
        sink(_strings(b"(", b"type", b"regular"))
        if status.st_mode & stat.S_IXUSR:
            sink(_strings(b"executable", b""))
        sink(_string(b"contents") + struct.pack("<Q", status.st_size))
        with open(path, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                sink(piece)
        sink(_padding(status.st_size) + _string(b")"))
    elif stat.S_ISDIR(status.st_mode):
        sink(_strings(b"(", b"type", b"directory"))
        for name in sorted(os.listdir(path)):
            sink(_strings(b"entry", b"(", b"name", name, b"node"))
            _node(os.path.join(path, name), sink)
            sink(_string(b")"))
        sink(_string(b")"))
    else:
        raise ValueError(f"a NAR cannot hold {os.fsdecode(path)}")
