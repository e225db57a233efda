"""What was measured: every figure of every round."""

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """The figures of one contender in one round of one piece of work."""

    work: str
    contender: str
    round: int
    figures: dict[str, float]
    # How far apart the cores were before.
    core_round_trip_us: float | None = None


@dataclass
class Samples:
    """All samples of a run, and what could not be measured, with the reason."""

    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # How far apart the cores are when what comes next is measured.
    core_round_trip_us: float | None = None

    def add(self, work: str, contender: str, round: int, **figures: float) -> None:
        """Keeps a sample."""
        sample = Sample(work, contender, round, figures, self.core_round_trip_us)
        self.samples.append(sample)

    def core_round_trips_us(self) -> list[float]:
        """How far apart the cores were before each sample of which it is known."""
        found = (sample.core_round_trip_us for sample in self.samples)
        return [microseconds for microseconds in found if microseconds is not None]

    def values(self, work: str, contender: str, figure: str) -> list[float]:
        """A figure, of all rounds."""
        return [
            sample.figures[figure]
            for sample in self.samples
            if (sample.work, sample.contender) == (work, contender) and figure in sample.figures
        ]

    def median(self, work: str, contender: str, figure: str) -> float | None:
        """The median of a figure, or None if it was not measured."""
        values = self.values(work, contender, figure)
        return statistics.median(values) if values else None

    def kinds(self) -> list[tuple[str, str]]:
        """What was measured of whom: each work where it was first measured, and so all its
        contenders."""
        works: dict[str, dict[str, None]] = {}
        for sample in self.samples:
            works.setdefault(sample.work, {})[sample.contender] = None
        return [(work, contender) for work, contenders in works.items() for contender in contenders]

    def figures(self, work: str, contender: str) -> list[str]:
        """Names of the figures there are for one kind."""
        names = (
            name
            for sample in self.samples
            if (sample.work, sample.contender) == (work, contender)
            for name in sample.figures
        )
        return list(dict.fromkeys(names))
