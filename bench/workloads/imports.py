"""Importing the source of Linux: into a new store, and again into the same; from the disk."""

import os
from pathlib import Path

from .. import cargo, disk
from ..bench import Bench
from ..corpora import cool, warm
from ..peers import Borg, Nix, Restic, Tar
from ..process import Finished, run
from . import sweep

PACKAGE, PROGRAM = "granary-engine", "floor"


class Libraries:
    """What libraries have to do for an import, and reading: nothing of ours, in one thread."""

    name = "libraries"

    def __init__(self, bench: Bench) -> None:
        bench.progress("building the program of the libraries alone")
        self.program = cargo.build(PACKAGE, PROGRAM, "bench")

    def figures(self, tree: Path) -> dict[str, float]:
        """What takes how long. `shared_seconds` is all of it, were it shared out to all cores evenly."""
        settings = ["--fast-text", *map(str, sweep.TODAY.fast_text)]
        figures = cargo.figures(run([self.program, *settings, tree]).stdout)
        cores = len(os.sched_getaffinity(0))
        return {"shared_seconds": figures["cpu_seconds"] / cores, **figures}


def measure(bench: Bench) -> None:
    """Times Granary, restic, borg, Nix, and as yardsticks tar and the libraries; sizes on the way."""
    tree = bench.corpora.linux
    stores = [
        bench.granary_store(),
        Restic(bench.stores / "restic"),
        Borg(bench.stores / "borg"),
        Nix(bench.stores / "nix"),
        Tar(),
        Libraries(bench),
    ]
    # ext4 looks at each inode that was freed within the last minutes, and passes it over: were
    # trees removed between the rounds, Nix would take three and five times as long in the next.
    kept = []
    for round, store in bench.alternating(stores):
        # Before each: what stores write pushes out of the page cache what was read long ago.
        warm(tree)
        if isinstance(store, Tar):
            bench.record("read", store.name, round, **_figures(store.add(tree)))
            continue
        if isinstance(store, Libraries):
            bench.record("import", store.name, round, **store.figures(tree))
            continue
        made = store.prepare()
        figures = _figures(store.add(tree))
        if made is not None:
            # The others make their store when they first need it.
            figures["init_seconds"] = made.seconds
        bench.record("import", store.name, round, **figures)
        bench.record("disk", store.name, round, bytes=disk.usage_bytes(store.directory))
        if isinstance(store, Nix):
            kept.append(store.base.rename(bench.stores / f"{store.base.name}-{round}"))
        else:
            disk.settle()
            bench.record("import again", store.name, round, **_figures(store.add_again(tree)))
        for directory in bench.stores.iterdir():
            if directory not in kept:
                disk.remove(directory)
    disk.remove(bench.stores)


def measure_cold(bench: Bench) -> None:
    """Times Granary and restic, and tar, with no contents of the tree in the page cache."""
    tree = bench.corpora.linux
    stores = [bench.granary_store(), Restic(bench.stores / "restic"), Tar()]
    # Once before: what is below a virtual machine may keep what was read.
    cool(tree)
    warm(tree)
    for round, store in bench.alternating(stores):
        if not isinstance(store, Tar):
            store.prepare()
        if not cool(tree):
            bench.samples.notes.append("import, cold: the page cache does not forget what it has")
            return
        bench.record("import, cold", store.name, round, **_figures(store.add(tree)))
        for directory in bench.stores.iterdir():
            disk.remove(directory)


def _figures(finished: Finished) -> dict[str, float]:
    return {
        "seconds": finished.seconds,
        "cpu_seconds": finished.cpu_seconds,
        "peak_bytes": finished.peak_bytes,
    }
