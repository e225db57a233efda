"""The index at scale, by the project's own program for it: a store of many chunks opened, and
digests looked up in it."""

from .. import cargo, disk
from ..bench import Bench
from ..process import run

PACKAGE, PROGRAM = "granary-engine", "index"
CHUNKS = (100_000, 10_000_000)
QUICK_CHUNKS = (10_000, 100_000)


def measure(bench: Bench) -> None:
    """Runs the program once for each size and round."""
    bench.progress("building it")
    program = cargo.build(PACKAGE, PROGRAM, "bench")
    sizes = list(zip(QUICK_CHUNKS if bench.quick else CHUNKS, CHUNKS, strict=True))
    for round, (chunks, as_chunks) in bench.alternating(sizes):
        # Where the corpora lie, and not in a /tmp that may be memory.
        directory = bench.stores / "index"
        directory.mkdir(parents=True)
        options = ["--chunks", str(chunks), "--json", "--dir", directory]
        printed = run([program, *options]).stdout
        bench.record(work_name(as_chunks), "granary", round, **cargo.figures(printed))
        disk.remove(bench.stores)


def work_name(chunks: int) -> str:
    """The name of what is measured for so many chunks."""
    return f"index of {chunks:,} chunks"
