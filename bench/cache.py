"""Binary caches of plain files: narinfos, and NARs as they are or zstd-compressed."""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

from . import nar, narinfo
from .narinfo import NarInfo
from .nixbase32 import encode
from .process import run

STORE_DIR = "/nix/store"
# Nix's own choice for zstd, and that of Granary and borg here.
ZSTD_LEVEL = 3
# Paths for one call of zstd: far below what a command line takes.
BATCH = 100


class Cache:
    """A `file://` binary cache in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def url(self) -> str:
        return f"file://{self.directory.absolute()}"

    def create(self) -> None:
        """Makes the directory, with no paths in it."""
        (self.directory / "nar").mkdir(parents=True)
        info = f"StoreDir: {STORE_DIR}\nWantMassQuery: 1\nPriority: 30\n"
        (self.directory / "nix-cache-info").write_text(info)

    def add(self, tree: Path, references: Iterable[str]) -> NarInfo:
        """Adds the tree as the store path of its name; `references` are base names."""
        partial = self.directory / "nar" / "partial"
        digest = hashlib.sha256()
        with open(partial, "wb", buffering=1 << 20) as file:

            def sink(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            nar.write(tree, sink)
        name, size = encode(digest.digest()), partial.stat().st_size
        partial.rename(self.directory / "nar" / f"{name}.nar")
        info = NarInfo(
            store_path=f"{STORE_DIR}/{tree.name}",
            url=f"nar/{name}.nar",
            compression="none",
            file_hash=f"sha256:{name}",
            file_size=size,
            nar_hash=f"sha256:{name}",
            nar_size=size,
            references=tuple(sorted(references)),
        )
        self._write(info)
        return info

    def _write(self, info: NarInfo) -> None:
        base = info.store_path.rpartition("/")[2]
        (self.directory / f"{base[:32]}.narinfo").write_text(info.render())

    def narinfos(self) -> list[NarInfo]:
        """All of them, sorted by hash."""
        files = sorted(self.directory.glob("*.narinfo"))
        return [narinfo.parse(file.read_text()) for file in files]

    def compress(self, into: "Cache") -> None:
        """Writes the same cache with all NARs as zstd, at `ZSTD_LEVEL`, to `into`."""
        into.create()
        infos = self.narinfos()
        nars = sorted({self.directory / info.url for info in infos})
        for start in range(0, len(nars), BATCH):
            output = ["--output-dir-flat", into.directory / "nar"]
            run(["zstd", "-q", f"-{ZSTD_LEVEL}", *output, *nars[start : start + BATCH]])
        for info in infos:
            url = f"{info.url}.zst"
            file = into.directory / url
            with open(file, "rb") as compressed:
                digest = hashlib.file_digest(compressed, "sha256").digest()
            into._write(
                dataclasses.replace(
                    info,
                    url=url,
                    compression="zstd",
                    file_hash=f"sha256:{encode(digest)}",
                    file_size=file.stat().st_size,
                )
            )
