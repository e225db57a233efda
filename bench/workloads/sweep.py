"""A sweep over the settings of the store: what the corpora take with chunks and frames of other
sizes and with other compression, by the engine's own program for it."""

import json
from dataclasses import dataclass, replace

from .. import cargo, disk
from ..bench import Bench
from ..corpora import warm
from ..failure import Failure
from ..process import run
from ..samples import Samples

PACKAGE, PROGRAM = "granary-engine", "sweep"
# Imported into one store each, one after the other.
STORES = (("linux",), ("closure", "rebuild"))

SAID = {
    "level": "level {}",
    "two-tables": "dfast, 2^{}, 2^{}, {}",
    "fast": "fast, 2^{}, {}",
}


@dataclass(frozen=True)
class Settings:
    """Settings of a store, those of today unless told otherwise. Sizes are in KiB."""

    chunk: int = 64
    run: int = 1024
    group: int = 512
    # How zstd looks for matches: by "level"; "two-tables", binary logarithms of the entries of those
    # of long and of short ones, and the shortest match; "fast", that of its only table and the same.
    way: tuple[str, tuple[int, ...]] = ("two-tables", (16, 15, 6))
    # For text, as "fast"; None if it is compressed like all else.
    fast_text: tuple[int, int] | None = (14, 7)

    @property
    def zstd(self) -> str:
        said = SAID[self.way[0]].format(*self.way[1])
        if self.fast_text is not None:
            said += "; text fast, 2^{}, {}".format(*self.fast_text)
        return said

    @property
    def name(self) -> str:
        return f"chunks {self.chunk}, runs {self.run}, groups {self.group}, {self.zstd}"

    def options(self) -> list[str]:
        """As the program takes them."""
        sizes = {"average-chunk": self.chunk, "run": self.run, "group": self.group}
        options = [word for name, size in sizes.items() for word in (f"--{name}-kib", str(size))]
        options += [f"--{self.way[0]}", *map(str, self.way[1])]
        if self.fast_text is not None:
            options += ["--fast-text", *map(str, self.fast_text)]
        return options


TODAY = Settings()
CHUNKS = (16, 64, 128, 256)
FRAMES = (64, 128, 256, 512, 1024)
# One more, to see what lies beyond.
RUNS = (*FRAMES, 2048)
WAYS = (
    ("level", (3,)),
    ("two-tables", (15, 14, 5)),
    ("two-tables", (15, 14, 6)),
    ("two-tables", (16, 15, 7)),
    ("two-tables", (17, 16, 6)),
    ("fast", (15, 5)),
    ("fast", (16, 6)),
)
FAST_TEXT = (None, (13, 7), (14, 6), (15, 6), (16, 6))
LEVEL_1 = {"way": ("level", (1,)), "fast_text": None}


def grid() -> list[Settings]:
    """The combinations: one setting changed at a time, and sizes together with level 1."""
    combinations = [TODAY]
    for compression in ({}, LEVEL_1):
        combinations += [replace(TODAY, chunk=size, **compression) for size in CHUNKS]
    for compression in ({}, LEVEL_1):
        combinations += [replace(TODAY, run=size, group=size, **compression) for size in FRAMES]
    combinations += [replace(TODAY, run=size) for size in RUNS]
    combinations += [replace(TODAY, group=size) for size in FRAMES]
    combinations += [replace(TODAY, way=way) for way in WAYS]
    combinations += [replace(TODAY, fast_text=fast) for fast in FAST_TEXT]
    return list(dict.fromkeys(combinations))


def measure(bench: Bench) -> None:
    """Runs the program for every combination, in each round."""
    bench.progress("building it")
    program = cargo.build(PACKAGE, PROGRAM, "bench")
    corpora = bench.corpora
    trees = {
        "linux": corpora.linux,
        "closure": corpora.closure.store,
        "rebuild": corpora.rebuild.store,
    }
    for round, settings in bench.alternating(grid()):
        for names in STORES:
            wanted = [trees[name] for name in names]
            for tree in wanted:
                warm(tree)
            place = bench.stores / "sweep"
            options = [*settings.options(), "--data-dir", place]
            printed = run([program, *options, *wanted]).stdout
            for name, figures in zip(names, parse(printed, len(names), settings), strict=True):
                bench.record(work_name(name), settings.name, round, **figures)
            disk.remove(place)


def work_name(corpus: str) -> str:
    """The name of what is measured of a corpus."""
    return f"sweep of {corpus}"


def parse(printed: str, trees: int, settings: Settings) -> list[dict[str, float]]:
    """The figures of so many trees, of which the program prints a JSON object each."""
    objects = [json.loads(line) for line in printed.splitlines()]
    if len(objects) != trees:
        raise Failure(f"{PROGRAM} printed {len(objects)} lines for {trees} trees: {printed!r}")
    for values in objects:
        # Or the line that is said to be today's would be another.
        if values.pop("defaults") != (settings == TODAY):
            raise Failure("the defaults of the engine are not those of the sweep: change TODAY")
    return objects


def results(samples: Samples) -> list[tuple[Settings, dict[str, dict[str, float]]]]:
    """Each combination that was measured, with the medians of each corpus."""
    measured = []
    for settings in grid():
        corpora = {}
        for corpus in (name for names in STORES for name in names):
            work = work_name(corpus)
            corpora[corpus] = {
                figure: samples.median(work, settings.name, figure)
                for figure in samples.figures(work, settings.name)
            }
        if any(corpora.values()):
            measured.append((settings, corpora))
    return measured
