"""`nix copy --to` a daemon: the closure into an empty store, then the mass rebuild into it."""

from pathlib import Path

from .. import disk
from ..bench import Bench
from ..closure import Closure
from ..corpora import warm
from ..failure import Failure
from ..granary import Daemon
from ..peers import Nix
from ..process import Finished


def measure(bench: Bench) -> None:
    """Times both; sizes are taken after the daemon has ended."""
    made, rebuilt = bench.corpora.closure, bench.corpora.rebuild
    for round in range(bench.rounds):
        disk.settle()
        granary = bench.granary_store()
        _copy(bench, "copy", granary, made, round)
        first, stats = granary.sizes(), granary.stats()
        bench.record("closure disk", granary.name, round, **first)
        disk.settle()
        _copy(bench, "copy of the rebuild", granary, rebuilt, round)
        added = {name: size - first[name] for name, size in granary.sizes().items()}
        more = granary.stats()
        for name in ("chunks", "blobs", "directories", "uniqueBytes", "storedBytes"):
            added[name] = more[name] - stats[name]
        bench.record("rebuild disk", granary.name, round, **added)
        disk.remove(bench.stores)


def _copy(bench: Bench, work: str, granary, closure: Closure, round: int) -> None:
    warm(closure.cache.directory)
    with granary.daemon() as daemon:
        finished = copy(daemon, closure, bench.stores / "nix")
        bench.record(
            work,
            granary.name,
            round,
            seconds=finished.seconds,
            server_cpu_seconds=daemon.cpu_seconds(),
            client_cpu_seconds=finished.cpu_seconds,
            server_peak_bytes=daemon.peak_bytes(),
        )


def copy(daemon: Daemon, closure: Closure, scratch: Path) -> Finished:
    """Copies a closure into a daemon, as a fresh Nix does, and sees that all of it is there."""
    infos = closure.cache.narinfos()
    nix = Nix(scratch)
    nix.prepare()
    paths = [info.store_path for info in infos]
    finished = nix.copy(closure.cache.url, f"{daemon.url}?compression=none", paths)
    for info in infos:
        served = daemon.narinfo(info.store_path)
        if served.nar_hash != info.nar_hash or set(served.references) != set(info.references):
            raise Failure(f"the daemon says otherwise than the cache of {info.store_path}")
    return finished
