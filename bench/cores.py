"""How far the cores of the machine are from each other.

A virtual machine may be given near cores or far ones, and others while it runs. With far ones,
what several threads work on takes up to a third more CPU.
"""

import mmap
import os
import signal
import time

ROUND_TRIPS = 10_000
# Whoever waits for longer has lost the other.
TIMEOUT_S = 5


def round_trip_us() -> float | None:
    """Microseconds that a byte takes from one core to another and back, what Python itself takes
    for that included. None with fewer than two cores, or if they are too busy with something else.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        child = os.fork()
        if child == 0:
            # Nothing else ends it when there is nobody to answer any more.
            signal.alarm(TIMEOUT_S)
            try:
                os.sched_setaffinity(0, {cores[1]})
                _pass_on(shared, 1)
            finally:
                os._exit(0)
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {cores[0]})
            began = time.perf_counter()
            _pass_on(shared, 0)
            seconds = time.perf_counter() - began
        except TimeoutError:
            return None
        finally:
            os.sched_setaffinity(0, before)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return seconds / ROUND_TRIPS * 1e6


def _pass_on(shared: mmap.mmap, turn: int) -> None:
    """Waits until the byte is `turn` and makes it the other's, again and again."""
    deadline = time.monotonic() + TIMEOUT_S
    waited = 0
    for _ in range(ROUND_TRIPS):
        while shared[0] != turn:
            waited += 1
            if waited % 100_000 == 0 and time.monotonic() > deadline:
                raise TimeoutError("the other core does not answer")
        shared[0] = 1 - turn
