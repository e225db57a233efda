"""The report of a run, for people and for programs."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from . import table
from .bench import Bench
from .targets import Row
from .workloads import sweep


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured, and on what."""

    bench: Bench
    machine: dict
    speeds: dict[str, float]
    rows: Sequence[Row]

    def text(self) -> str:
        """The report as Markdown: the machine, the corpora, the table, everything else."""
        samples = self.bench.samples
        parts = [
            self._machine(),
            self._corpora(),
            table.targets(self.rows, samples) if self.rows else "",
            table.settings(samples) if sweep.results(samples) else "",
            "".join(f"- {note}\n" for note in samples.notes),
            "All figures:\n",
            table.details(samples),
        ]
        return "\n".join(part for part in parts if part)

    def _machine(self) -> str:
        machine = self.machine
        peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items())
        speeds = ", ".join(
            f"{name.replace('_', ' -')} {speed:.0f} MB/s" for name, speed in self.speeds.items()
        )
        tar = self.bench.samples.median("read", "tar", "seconds")
        read = "" if tar is None else f", tar reads linux in {tar:.2f} s"
        return (
            f"- {machine['date']}; {machine['granary']}, {machine['built']}; {machine['rustc']}\n"
            f"- {machine['cpu']}, {machine['cores']} cores, {machine['memory_mb']} MB of memory; "
            f"{machine['system']}, Linux {machine['kernel']}, {machine['file_system']}\n"
            f"- one core: {speeds}{read}\n"
            f"- load before {machine['load_before']}, after {machine['load_after']}; "
            f"rounds: {self.bench.rounds}{', small corpora' if self.bench.quick else ''}\n"
            f"- {peers}\n"
            f"{self._cores()}"
        )

    def _cores(self) -> str:
        if not (trips := self.bench.samples.core_round_trips_us()):
            return ""
        return (
            f"- a byte from one core to another and back: {statistics.median(trips):.2f} µs, "
            f"{min(trips):.2f} to {max(trips):.2f}\n"
        )

    def _corpora(self) -> str:
        described = self.bench.corpora.description
        linux, closure = described["linux"], described["closure"]
        return (
            f"- linux: {linux['version']}, {linux['files']:,} files, {linux['bytes']:,} bytes\n"
            f"- closure: {closure['paths']} paths, {closure['files']:,} files, "
            f"{closure['bytes']:,} bytes of NARs ({closure['digest']})\n"
        )

    def json(self) -> str:
        """The report with every round, as one JSON object."""
        samples = self.bench.samples
        rows = [
            {
                "work": row.work,
                "value": row.figure.value(samples),
                "unit": row.figure.unit,
                "others": {figure.name: figure.value(samples) for figure in row.peers},
                "beside": {figure.name: figure.value(samples) for figure in row.beside},
                "criteria": [
                    {
                        "reach": criterion.text(),
                        "limit": criterion.limit,
                        "measured": criterion.measured(samples),
                    }
                    for criterion in row.criteria
                ],
                "reached": row.met(samples),
                "behind": row.behind.work if row.gives_way(samples) else None,
            }
            for row in self.rows
        ]
        whole = {
            "machine": self.machine,
            "speedsMegabytesPerSecond": self.speeds,
            "rounds": self.bench.rounds,
            "quick": self.bench.quick,
            "corpora": self.bench.corpora.description,
            "table": rows,
            "sweep": [
                {"settings": dataclasses.asdict(settings), **corpora}
                for settings, corpora in sweep.results(samples)
            ],
            "notes": samples.notes,
            "samples": [dataclasses.asdict(sample) for sample in samples.samples],
        }
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    def save(self, directory: Path) -> tuple[Path, Path]:
        """Writes both, under the date of the run; tells where they are."""
        directory.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() else "-" for c in self.machine["date"].removesuffix(" UTC"))
        text, values = directory / f"{name}.md", directory / f"{name}.json"
        text.write_text(self.text())
        values.write_text(self.json())
        return text, values
