"""The results as text: Markdown tables."""

from collections.abc import Mapping, Sequence

from .samples import Samples
from .targets import MIB, Figure, Row, show
from .workloads import sweep

HEAD = ("work", "Granary", "others", "ratio", "reach", "reached")
DETAILS_HEAD = ("work", "of", "figure", "median", "least", "most", "rounds")
SETTINGS_HEAD = ("chunks", "runs", "groups", "zstd")
# Of each corpus: what takes the disk, what goes over the wire where that says something new,
# and the CPU.
SWEEP_HEAD = ("linux", "wire", "CPU", "closure", "wire", "CPU", "rebuild adds", "CPU")
VERDICTS = {True: "yes", False: "**no**", None: "not measured"}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """A table, its columns padded; the last `numbers` of them are aligned to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    left = len(head) - numbers

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)]) + "\n"


def targets(rows: Sequence[Row], samples: Samples) -> str:
    """What was measured beside what is to be reached."""
    return markdown(HEAD, [_cells(row, samples) for row in rows])


def _cells(row: Row, samples: Samples) -> list[str]:
    own = row.figure.shown(samples)
    beside = [_named(figure, samples) for figure in row.beside if figure.value(samples) is not None]
    peers = [_named(figure, samples) for figure in row.peers]
    ratios = (criterion.ratio(samples) for criterion in row.criteria)
    reach = [criterion.text() for criterion in row.criteria]
    if len(row.criteria) > 1:
        # Of which figure, where there are several.
        reach = [
            f"{text} {criterion.figure.label}".strip()
            for text, criterion in zip(reach, row.criteria, strict=True)
        ]
    return [
        row.work,
        f"{own} ({', '.join(beside)})" if beside else own,
        ", ".join(peers),
        ", ".join(ratio for ratio in ratios if ratio),
        ", ".join(reach),
        _verdict(row, samples),
    ]


def _verdict(row: Row, samples: Samples) -> str:
    if not row.criteria:
        return ""
    gives_way = f": {row.behind.work} comes first" if row.gives_way(samples) else ""
    return VERDICTS[row.met(samples)] + gives_way


def _named(figure: Figure, samples: Samples) -> str:
    return f"{figure.name} {figure.shown(samples)}"


def settings(samples: Samples) -> str:
    """What the corpora take with other settings: megabytes, and seconds of CPU."""
    rows = []
    for combination, corpora in sweep.results(samples):
        sizes = (combination.chunk, combination.run, combination.group)
        named = [*map(str, sizes), combination.zstd]
        if combination == sweep.TODAY:
            named = [f"**{cell}**" for cell in named]
        linux, closure, rebuild = corpora["linux"], corpora["closure"], corpora["rebuild"]
        cells = [*_taken(linux), *_taken(closure), *_taken(rebuild, wire=False)]
        rows.append([*named, *cells])
    return markdown([*SETTINGS_HEAD, *SWEEP_HEAD], rows, numbers=len(SWEEP_HEAD))


def _taken(figures: Mapping[str, float], wire: bool = True) -> list[str]:
    if not figures:
        return [""] * (3 if wire else 2)
    sizes = [figures["packs_bytes"] + figures["index_bytes"]]
    sizes += [figures["wire_bytes"]] if wire else []
    return [*(f"{size / MIB:.1f}" for size in sizes), f"{figures['cpu_seconds']:.1f}"]


def details(samples: Samples) -> str:
    """Every figure of everybody, with its spread."""
    rows = []
    for work, contender in samples.kinds():
        for name in samples.figures(work, contender):
            values = samples.values(work, contender, name)
            median = samples.median(work, contender, name)
            spread = [_plain(name, value) for value in (median, min(values), max(values))]
            rows.append([work, contender, name.replace("_", " "), *spread, str(len(values))])
    return markdown(DETAILS_HEAD, rows, numbers=4)


def _plain(name: str, value: float) -> str:
    if name.lower().endswith("bytes"):
        return show(value / MIB, "MB")
    if name.endswith("seconds"):
        return show(value, "s")
    return f"{value:.6g}"
