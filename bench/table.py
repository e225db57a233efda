"""The results as text: Markdown tables."""

from collections.abc import Sequence

from .samples import Samples
from .targets import MIB, Figure, Row, show

HEAD = ("work", "Granary", "others", "ratio", "reach", "reached")
DETAILS_HEAD = ("work", "of", "figure", "median", "least", "most", "rounds")
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
        VERDICTS[row.met(samples)],
    ]


def _named(figure: Figure, samples: Samples) -> str:
    return f"{figure.name} {figure.shown(samples)}"


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
