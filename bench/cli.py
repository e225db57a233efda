"""The command line: what to measure, where, and how often."""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import cargo, corpora, disk, machine, requirements, selftest
from .bench import Bench, Clock
from .failure import Failure
from .report import Report
from .targets import rows
from .workloads import closures, copies, imports, index, serving, sweep

WORKLOADS = {
    "import": "importing linux, anew and again, and what it takes on the disk",
    "cold": "importing linux from the disk, its contents not in the page cache",
    "disk": "what the closure and its rebuild take with restic, borg and as .zst files",
    "copy": "nix copy of the closure and its rebuild to the daemon, and what they take",
    "nars": "all NARs over HTTP, beside nginx",
    "narinfo": "10,000 narinfos over HTTP, beside nginx",
    "index": "an index of 10 million chunks",
    "sweep": "all corpora with other chunks, frames and compression; long, so only if named",
}
# A whole run leaves it out.
ONLY_IF_NAMED = ("sweep",)
WHOLE = [name for name in WORKLOADS if name not in ONLY_IF_NAMED]
INTERRUPTED = 130
# Load for each core, from which on seconds mean little.
BUSY_PER_CORE = 0.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it, and returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{name:8} {what}" for name, what in WORKLOADS.items()))
        return 0
    if options.self_test:
        return 0 if selftest.passes() else 1
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _benchmark(options)
    except Failure as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return INTERRUPTED


def _interrupt(*_) -> None:
    # So that servers are stopped on the way out.
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m bench",
        description="Measures Granary against what a user would otherwise run.",
        epilog="docs/performance.md explains the method.",
    )
    parser.add_argument(
        "--only",
        metavar="NAME[,NAME]",
        type=_names,
        default=WHOLE,
        help=f"these workloads; all but {', '.join(ONLY_IF_NAMED)} unless told otherwise",
    )
    parser.add_argument("--rounds", type=_positive, default=3, help="3 unless told otherwise")
    parser.add_argument("--quick", action="store_true", help="small corpora, to try it out")
    parser.add_argument("--granary", type=Path, help="this binary, instead of building one")
    parser.add_argument("--work", type=Path, help="where everything is kept: target/bench")
    parser.add_argument(
        "--packages", type=Path, default=corpora.PACKAGES, help="other packages, one name a line"
    )
    parser.add_argument("--list", action="store_true", help="name the workloads")
    parser.add_argument("--self-test", action="store_true", help="test the benchmark's own parts")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(WORKLOADS)):
        raise argparse.ArgumentTypeError(
            f"there is no {', '.join(unknown)}; there are {', '.join(WORKLOADS)}"
        )
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _benchmark(options: argparse.Namespace) -> int:
    progress = Clock()
    requirements.install()
    work = (options.work or cargo.target_directory() / "bench").resolve()
    # Small corpora are others: each kind is kept.
    work = work / "quick" if options.quick else work
    work.mkdir(parents=True, exist_ok=True)
    granary = _binary(options.granary, progress)
    made = corpora.prepare(work / "corpora", options.packages, options.quick, progress)
    bench = Bench(granary, made, work, options.rounds, options.quick, progress)
    described = machine.describe(work, granary)
    # Of a binary from elsewhere nobody knows of which sources it was built.
    commit = machine.commit(cargo.ROOT)
    described["built"] = f"built from {commit}" if options.granary is None else "a given binary"
    progress("how fast the machine is")
    speeds = machine.speeds(made.linux, work)
    if described["load_before"] > BUSY_PER_CORE * described["cores"]:
        bench.samples.notes.append("the machine was busy with something else from the start")
    failed = _measure(bench, options.only)
    described["load_after"] = round(os.getloadavg()[0], 2)
    whole = set(options.only) >= set(WHOLE)
    shown = [row for row in rows() if whole or row.has_figures(bench.samples)]
    report = Report(bench, described, speeds, shown)
    saved = report.save(work / "results")
    print(report.text())
    for file in saved:
        progress(f"written: {file}")
    return 1 if failed else 0


def _measure(bench: Bench, names: Sequence[str]) -> bool:
    """Runs the workloads; one that fails is noted, and the others still run."""
    served = [name for name in serving.PARTS if name in names]
    steps: dict[str, Callable[[], None]] = {
        "import": lambda: imports.measure(bench),
        "cold": lambda: imports.measure_cold(bench),
        "disk": lambda: closures.measure(bench),
        "copy": lambda: copies.measure(bench),
        # Both from one daemon.
        " and ".join(served): lambda: serving.measure(bench, served),
        "index": lambda: index.measure(bench),
        "sweep": lambda: sweep.measure(bench),
    }
    failed = False
    for name, step in steps.items():
        if not name or (name in WORKLOADS and name not in names):
            continue
        bench.progress(name)
        # What a run that was killed left behind.
        disk.remove(bench.stores)
        bench.stores.mkdir()
        try:
            step()
        except Failure as failure:
            failed = True
            bench.samples.notes.append(f"{name} failed: {failure}")
            bench.progress(f"{name} failed: {failure}")
        finally:
            disk.remove(bench.stores)
    return failed


def _binary(given: Path | None, progress: Clock) -> Path:
    """The binary to measure: that which was given, else one that is built of this tree."""
    if given is None:
        progress("building granary")
        return cargo.build("granary-cli", "granary")
    if not (found := shutil.which(given.resolve())):
        raise Failure(f"{given} is no program: give the path of a granary binary")
    return Path(found)
