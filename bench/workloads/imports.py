"""Importing the source of Linux: into a new store, and again into the same; from the disk."""

from .. import disk
from ..bench import Bench
from ..corpora import cool, warm
from ..peers import Borg, Nix, Restic, Tar
from ..process import Finished


def measure(bench: Bench) -> None:
    """Times Granary, restic, borg, Nix, and tar as the yardstick; sizes on the way."""
    tree = bench.corpora.linux
    stores = [
        bench.granary_store(),
        Restic(bench.stores / "restic"),
        Borg(bench.stores / "borg"),
        Nix(bench.stores / "nix"),
        Tar(),
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
