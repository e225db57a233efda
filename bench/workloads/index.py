"""The index at scale, by the project's own program for it: a store of many chunks opened, and
digests looked up in it."""

import json

from .. import cargo, disk
from ..bench import Bench
from ..failure import Failure
from ..process import run

PACKAGE, PROGRAM = "granary-bench", "index"
CHUNKS = (100_000, 10_000_000)
QUICK_CHUNKS = (10_000, 100_000)


def measure(bench: Bench) -> None:
    """Runs the program once for each size; it takes medians itself."""
    if not cargo.has(PACKAGE, PROGRAM):
        bench.samples.notes.append(f"index: this tree has no package {PACKAGE}")
        return
    bench.progress("building it")
    program = cargo.build(PACKAGE, PROGRAM)
    # Where the corpora lie, and not in a /tmp that may be memory.
    directory = bench.stores / "index"
    directory.mkdir()
    env = {"TMPDIR": directory}
    for chunks, as_chunks in zip(QUICK_CHUNKS if bench.quick else CHUNKS, CHUNKS, strict=True):
        bench.progress(f"index: {chunks:,} chunks")
        options = ["--chunks", str(chunks), "--json", "--dir", directory]
        printed = run([program, *options], env=env).stdout
        bench.record(work_name(as_chunks), "granary", 0, **figures(printed))
        disk.remove(directory)
        directory.mkdir()
    disk.remove(bench.stores)


def work_name(chunks: int) -> str:
    """The name of what is measured for so many chunks."""
    return f"index of {chunks:,} chunks"


def figures(printed: str) -> dict[str, float]:
    """All numbers of the last JSON object of a line that the program prints."""
    objects = [line for line in printed.splitlines() if line.startswith("{")]
    if not objects:
        raise Failure(f"{PROGRAM} of {PACKAGE} prints no JSON object: {printed[-200:]!r}")
    values = json.loads(objects[-1])
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
