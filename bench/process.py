"""Programs: run to their end and measured, or kept running as servers."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .failure import Failure

Argument = str | Path

# A run that takes longer has hung: the slowest takes minutes.
TIMEOUT_S = 3600.0
STOP_TIMEOUT_S = 60.0
# How much of what a failed program said its Failure repeats.
SAID_BYTES = 2000
# Settings of the user for the programs that are measured must not change the figures.
FOREIGN_SETTINGS = ("RESTIC_", "BORG_", "NIX_", "GRANARY_", "ZSTD_", "RUST_LOG")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Finished:
    """How a program ran: wall and CPU time, largest memory, and what it printed.

    Linux counts the memory of the process that started it as well: `peak_bytes` is never below
    that of the benchmark itself, some 40 MB.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str


def environment(extra: Mapping[str, Argument] | None = None) -> dict[str, str]:
    """Ours, without settings for what is measured, and with `extra`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_SETTINGS)}
    kept["LC_ALL"] = "C.UTF-8"
    # nginx lies where only root looks.
    kept["PATH"] = kept.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    kept.update({name: str(value) for name, value in (extra or {}).items()})
    return kept


class Started:
    """A program that runs. Its standard error, and its output unless that goes elsewhere, are
    kept in files, so that no pipe can fill up."""

    def __init__(
        self,
        argv: Sequence[Argument],
        *,
        env: Mapping[str, Argument] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
    ) -> None:
        self.argv = [str(argument) for argument in argv]
        self._out = tempfile.TemporaryFile()
        self._err = tempfile.TemporaryFile()
        self._timed_out = False
        self.began = time.monotonic()
        try:
            # A session of its own, so that whatever it starts can be ended with it.
            self.popen = subprocess.Popen(
                self.argv,
                env=environment(env),
                cwd=cwd,
                stdin=stdin,
                stdout=self._out if stdout is None else stdout,
                stderr=self._err,
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"{self.argv[0]} does not start: {error}") from error

    @property
    def pid(self) -> int:
        return self.popen.pid

    def said(self, file: IO[bytes] | None = None) -> str:
        """What it has printed so far, by default on standard error."""
        file = file or self._err
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")

    def printed(self) -> str:
        """What it has printed on standard output."""
        return self.said(self._out)

    def kill(self) -> None:
        """Ends it and all that it started, at once."""
        if self.popen.returncode is None:
            try:
                os.killpg(self.popen.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _expire(self) -> None:
        self._timed_out = True
        self.kill()

    def finish(self, timeout_s: float = TIMEOUT_S) -> Finished:
        """Waits for its end, which must be a good one."""
        timer = threading.Timer(timeout_s, self._expire)
        timer.start()
        try:
            _, status, usage = os.wait4(self.popen.pid, 0)
            seconds = time.monotonic() - self.began
            self.popen.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            self.kill()
            raise
        finally:
            timer.cancel()
        if self._timed_out:
            raise Failure(f"{self.shown()} was stopped: it took more than {timeout_s:.0f} s")
        if self.popen.returncode != 0:
            said = (self.said() or self.printed())[-SAID_BYTES:].strip()
            raise Failure(f"{self.shown()} ended with {self.popen.returncode}: {said}")
        return Finished(
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_bytes=usage.ru_maxrss * 1024,
            stdout=self.printed(),
        )

    def shown(self) -> str:
        """The command line, cut where it is long."""
        line = " ".join(self.argv)
        return line if len(line) <= 200 else line[:200] + " …"


def run(argv: Sequence[Argument], *, timeout_s: float = TIMEOUT_S, **options) -> Finished:
    """Runs a program to its end, which must be a good one."""
    return Started(argv, **options).finish(timeout_s)


class Server:
    """A program that serves until it is stopped; a context manager that always stops it."""

    def __init__(self, argv: Sequence[Argument], **options) -> None:
        self.started = Started(argv, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def alive(self) -> bool:
        """Whether it still runs; if not, it fails with what the server said."""
        if self.started.popen.poll() is not None:
            said = self.started.said()[-SAID_BYTES:].strip()
            raise Failure(f"{self.started.shown()} stopped by itself: {said}")
        return True

    def wait_until(self, ready, timeout_s: float = STOP_TIMEOUT_S):
        """What `ready` gives once it gives something; it is asked again and again."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if (answer := ready()) is not None:
                return answer
            if time.monotonic() > deadline:
                raise Failure(f"{self.started.shown()} took no connections in {timeout_s:.0f} s")
            time.sleep(0.01)

    def stop(self) -> None:
        """Asks it to end, and waits; ends it if it does not."""
        popen = self.started.popen
        if popen.poll() is None:
            popen.terminate()
            try:
                popen.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.started.kill()
                popen.wait()
                raise Failure(
                    f"{self.started.shown()} did not stop in {STOP_TIMEOUT_S:.0f} s of SIGTERM"
                ) from None

    def cpu_seconds(self) -> float:
        """CPU time, user and system, of it and its children so far."""
        return sum(_cpu_seconds(pid) for pid in [self.started.pid, *_children(self.started.pid)])

    def peak_bytes(self) -> int:
        """The largest memory that it had resident (VmHWM), without children."""
        status = Path(f"/proc/{self.started.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def _cpu_seconds(pid: int) -> float:
    # The name, in parentheses, may have blanks in it; user and system time are the fields 14
    # and 15, counted from 1.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
