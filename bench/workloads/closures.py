"""What the closure takes on the disk with restic and borg and as compressed NARs, and what a
mass rebuild adds. Granary's figures are those of `copies`, on the way that closures go."""

from .. import disk
from ..bench import Bench
from ..corpora import warm
from ..peers import Borg, Restic


def measure(bench: Bench) -> None:
    """Sizes only, which differ so little from time to time that once is enough."""
    made, rebuilt = bench.corpora.closure, bench.corpora.rebuild
    warm(made.store)
    for store in (Restic(bench.stores / "restic"), Borg(bench.stores / "borg")):
        store.prepare()
        store.add(made.store)
        before = disk.usage_bytes(store.directory)
        bench.record("closure disk", store.name, 0, bytes=before)
        store.add(rebuilt.store)
        after = disk.usage_bytes(store.directory)
        bench.record("rebuild disk", store.name, 0, bytes=after - before)
        disk.remove(bench.stores)
    # Whoever keeps compressed NARs keeps all of them once more.
    size = disk.usage_bytes(bench.corpora.compressed.directory)
    bench.record("closure disk", "zstd NARs", 0, bytes=size)
    bench.record("rebuild disk", "zstd NARs", 0, bytes=size)
