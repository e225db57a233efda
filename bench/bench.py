"""One run of the benchmark: what it works on, and what it has measured so far."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from . import cores, disk
from .corpora import Corpora
from .granary import Granary
from .samples import Samples

Contender = TypeVar("Contender")


class Clock:
    """Says on standard error what is being done, and since when this runs."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, message: str) -> None:
        print(f"[{time.monotonic() - self.began:7.1f} s] {message}", file=sys.stderr, flush=True)


@dataclass
class Bench:
    """What workloads need: the binary, corpora, a place for stores, and where figures go."""

    granary: Path
    corpora: Corpora
    work: Path
    rounds: int
    quick: bool
    progress: Clock
    samples: Samples = field(default_factory=Samples)

    @property
    def stores(self) -> Path:
        """Where workloads make stores, which are gone after each."""
        return self.work / "stores"

    def granary_store(self) -> Granary:
        """An empty store of Granary."""
        granary = Granary(self.granary, self.stores / "granary")
        granary.prepare()
        return granary

    def alternating(
        self, contenders: Sequence[Contender], times: int = 1
    ) -> Iterator[tuple[int, Contender]]:
        """Each contender in each round, every round beginning with the next one; `times` as many
        rounds as others have.

        So what happens on the machine meanwhile hits all of them, and none always runs behind
        the same other.
        """
        for round in range(self.rounds * times):
            first = round % len(contenders)
            for contender in [*contenders[first:], *contenders[:first]]:
                disk.settle()
                self.samples.core_round_trip_us = cores.round_trip_us()
                yield round, contender

    def record(self, work: str, contender: str, round: int, **figures: float) -> None:
        """Keeps figures, and shows them."""
        self.samples.add(work, contender, round, **figures)
        shown = ", ".join(f"{name} {value:.6g}" for name, value in figures.items())
        self.progress(f"round {round + 1}, {work}, {contender}: {shown}")
