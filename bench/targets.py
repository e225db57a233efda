"""What is to be reached: the rows of the table, and how each is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from .samples import Samples
from .workloads import index, serving
from .workloads.index import CHUNKS
from .workloads.serving import CONNECTIONS, PLAIN, ZSTD

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One measured figure, in a unit for people: what was measured is divided by `scale`."""

    work: str
    contender: str
    figure: str
    unit: str
    scale: float = 1.0
    label: str = ""

    def value(self, samples: Samples) -> float | None:
        """Its median over all rounds."""
        median = samples.median(self.work, self.contender, self.figure)
        return None if median is None else median / self.scale

    @property
    def name(self) -> str:
        return self.label or self.contender

    def shown(self, samples: Samples) -> str:
        """The median with its unit."""
        value = self.value(samples)
        return "not measured" if value is None else show(value, self.unit)


def show(value: float, unit: str) -> str:
    """A value with about three digits, and its unit."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}"


@dataclass(frozen=True)
class AtMost:
    """A figure may be so large and no larger."""

    limit: float
    figure: Figure

    def measured(self, samples: Samples) -> float | None:
        return self.figure.value(samples)

    def text(self) -> str:
        return f"≤ {self.limit:g} {self.figure.unit}"

    def ratio(self, samples: Samples) -> str:
        return ""


@dataclass(frozen=True)
class Ratio:
    """A figure may be so many times another one."""

    limit: float
    figure: Figure
    of: Figure

    def measured(self, samples: Samples) -> float | None:
        figure, of = self.figure.value(samples), self.of.value(samples)
        return None if figure is None or not of else figure / of

    def text(self) -> str:
        return f"≤ {self.limit:g} x {self.of.name}"

    def ratio(self, samples: Samples) -> str:
        measured = self.measured(samples)
        return "" if measured is None else f"{measured:.2f} x {self.of.name}"


@dataclass(frozen=True)
class Row:
    """One piece of work: Granary's figure, those of others, and what is to be reached, if anything is.

    `beside` are further figures of Granary's that explain the first. `behind` is the row that comes
    first where the ratios of both cannot be reached.
    """

    work: str
    figure: Figure
    peers: Sequence[Figure]
    criteria: Sequence[AtMost | Ratio]
    beside: Sequence[Figure] = ()
    behind: "Row | None" = None

    def has_figures(self, samples: Samples) -> bool:
        """Whether anything of it was measured."""
        return any(figure.value(samples) is not None for figure in (self.figure, *self.peers))

    def met(self, samples: Samples) -> bool | None:
        """Whether all criteria are met; None if that is not known, or there are none."""
        verdicts = []
        for criterion in self.criteria:
            measured = criterion.measured(samples)
            verdicts.append(None if measured is None else measured <= criterion.limit)
        return None if None in verdicts or not verdicts else all(verdicts)

    def gives_way(self, samples: Samples) -> bool:
        """Whether it is not met, by ratios alone, and the row that comes first is."""
        measured = ((criterion, criterion.measured(samples)) for criterion in self.criteria)
        missed = [of for of, value in measured if value is None or value > of.limit]
        ratios = bool(missed) and all(isinstance(criterion, Ratio) for criterion in missed)
        return ratios and self.behind is not None and self.behind.met(samples) is True


def _seconds(work: str, contender: str, figure: str = "seconds", label: str = "") -> Figure:
    return Figure(work, contender, figure, "s", label=label)


def _megabytes(work: str, contender: str, figure: str = "bytes", label: str = "") -> Figure:
    return Figure(work, contender, figure, "MB", MIB, label)


def rows() -> list[Row]:
    """The table, from top to bottom."""
    disk = _disk()
    return [*_imports(disk[0]), *disk, _copy(), *_nars(), _narinfos(), _memory(), *_index()]


def _imports(disk: Row) -> list[Row]:
    names = ("granary", "restic", "borg", "nix-store --add")
    new = {name: _seconds("import", name) for name in names}
    again = {name: _seconds("import again", name) for name in ("granary", "restic", "borg")}
    tar = _seconds("read", "tar")
    init = _seconds("import", "restic", "init_seconds", "restic init")
    libraries = _seconds("import", "libraries", "shared_seconds", "libraries alone")
    granary = new.pop("granary")
    once_more = again.pop("granary")
    return [
        Row(
            "import linux, new store",
            granary,
            [*new.values(), init, tar, libraries],
            [Ratio(0.25, granary, new["restic"]), AtMost(3.7, granary)],
            behind=disk,
        ),
        Row(
            "import linux again, unchanged",
            once_more,
            [*again.values(), tar],
            [Ratio(2, once_more, tar)],
        ),
        Row(
            "import linux, not in the page cache",
            _seconds("import, cold", "granary"),
            [_seconds("import, cold", name) for name in ("restic", "tar")],
            [],
        ),
    ]


def _disk() -> list[Row]:
    linux, closure, rebuild = "disk", "closure disk", "rebuild disk"
    borg = _megabytes(linux, "borg")
    granary = _megabytes(linux, "granary")
    closure_borg = _megabytes(closure, "borg")
    closure_granary = _megabytes(closure, "granary")
    added = _megabytes(rebuild, "granary")
    return [
        Row(
            "disk after import of linux",
            granary,
            [borg, _megabytes(linux, "restic")],
            [Ratio(0.92, granary, borg)],
        ),
        Row(
            "disk after the closure",
            closure_granary,
            [closure_borg, *(_megabytes(closure, name) for name in ("restic", "zstd NARs"))],
            [Ratio(0.97, closure_granary, closure_borg)],
            [
                _megabytes(closure, "granary", "packs_bytes", "packs"),
                _megabytes(closure, "granary", "index_bytes", "index"),
            ],
        ),
        Row(
            "disk added by the mass rebuild",
            added,
            [_megabytes(rebuild, name) for name in ("restic", "borg", "zstd NARs")],
            [AtMost(8, added)],
            [
                _megabytes(rebuild, "granary", "packs_bytes", "packs"),
                _megabytes(rebuild, "granary", "index_bytes", "index"),
            ],
        ),
    ]


def _copy() -> Row:
    wall = _seconds("copy", "granary")
    cpu = _seconds("copy", "granary", "server_cpu_seconds", "server's CPU")
    return Row("nix copy --to the closure", wall, [], [AtMost(20, wall), AtMost(13, cpu)], [cpu])


def _nars() -> list[Row]:
    rows = []
    for count, limit in zip(CONNECTIONS, (1.5, 2.0, 2.0), strict=True):
        work = serving.work_name(PLAIN, count)
        nginx, granary = _seconds(work, "nginx"), _seconds(work, "granary")
        rows.append(Row(work, granary, [nginx], [Ratio(limit, granary, nginx)]))
    for count in CONNECTIONS:
        work = serving.work_name(ZSTD, count)
        nginx = _seconds(serving.work_name(PLAIN, count), "nginx")
        granary, ready = _seconds(work, "granary"), _seconds(work, "nginx .zst")
        wire = _megabytes(work, "granary", "wire_bytes", "on the wire")
        ready_wire = _megabytes(work, "nginx .zst", "wire_bytes", ".zst on the wire")
        peers = [nginx, ready, ready_wire]
        rows.append(Row(work, granary, peers, [Ratio(0.6, granary, nginx)], [wire]))
    return rows


def _narinfos() -> Row:
    nginx, granary = _seconds("narinfos", "nginx"), _seconds("narinfos", "granary")
    return Row("10,000 narinfos, one connection", granary, [nginx], [Ratio(1.1, granary, nginx)])


def _memory() -> Row:
    peak = _megabytes("everything", "granary", "peak_bytes")
    return Row("peak memory of the daemon under all of it", peak, [], [AtMost(300, peak)])


def _index() -> list[Row]:
    small, large = (index.work_name(chunks) for chunks in CHUNKS)
    opened = _seconds(large, "granary", "open_seconds")
    lookup = Figure(large, "granary", "lookup_p50_us", "µs")
    before = Figure(small, "granary", "lookup_p50_us", "µs", label=f"at {CHUNKS[0]:,}")
    return [
        Row(
            f"{large}: start",
            opened,
            [],
            [AtMost(2, opened)],
            [
                _seconds(large, "granary", "unclean_open_seconds", "after a crash"),
                _megabytes(large, "granary", "index_bytes", "index"),
            ],
        ),
        Row(
            f"{large}: look-up, p50",
            lookup,
            [before],
            [AtMost(20, lookup), Ratio(2, lookup, before)],
            [Figure(large, "granary", "lookup_p99_us", "µs", label="p99")],
        ),
    ]
