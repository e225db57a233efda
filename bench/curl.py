"""The client of all servers: curl, which throws away what it gets."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .failure import Failure
from .process import Started, run

# One line for each answer.
REPORT = "%{http_code} %{size_download} %{num_connects}\\n"
ACCEPT_ZSTD = "Accept-Encoding: zstd"


@dataclass(frozen=True)
class Fetched:
    """How long it took for all to arrive, and how many bytes of bodies there were on the wire."""

    seconds: float
    wire_bytes: int
    cpu_seconds: float
    connections: int


def shares(sizes: dict[str, int], count: int) -> list[list[str]]:
    """Divides URLs among `count` connections, so that each has about as many bytes to fetch."""
    loads = [0] * count
    parts: list[list[str]] = [[] for _ in range(count)]
    for url in sorted(sizes, key=lambda url: (-sizes[url], url)):
        least = loads.index(min(loads))
        loads[least] += sizes[url]
        parts[least].append(url)
    return [part for part in parts if part]


def fetch(parts: Sequence[Sequence[str]], headers: Sequence[str], scratch: Path) -> Fetched:
    """Fetches each part over one connection, all parts at a time.

    There is one curl for each connection: a single one with many connections is one thread,
    and would be what is measured.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    configurations = []
    for index, part in enumerate(parts):
        configuration = scratch / f"{index}.curl"
        lines = [f'url = "{url}"\noutput = "/dev/null"\n' for url in part]
        configuration.write_text("".join(lines))
        configurations.append(configuration)
    options = [option for header in headers for option in ("-H", header)]
    began = time.monotonic()
    clients = []
    try:
        for configuration in configurations:
            # -q: no settings of the user's.
            curl = ["curl", "-q", "-sS", "--http1.1", *options, "-K", configuration, "-w", REPORT]
            clients.append(Started(curl))
        finished = [client.finish() for client in clients]
    except BaseException:
        for client in clients:
            client.kill()
        raise
    seconds = time.monotonic() - began
    lines = [line.split() for client in finished for line in client.stdout.splitlines()]
    wanted = sum(len(part) for part in parts)
    if len(lines) != wanted or any(code != "200" for code, _, _ in lines):
        codes = sorted({code for code, _, _ in lines})
        raise Failure(f"of {wanted} requests {len(lines)} were answered, with {', '.join(codes)}")
    return Fetched(
        seconds=seconds,
        wire_bytes=sum(int(size) for _, size, _ in lines),
        cpu_seconds=sum(client.cpu_seconds for client in finished),
        connections=sum(int(made) for _, _, made in lines),
    )


def sha256(url: str, headers: Sequence[str]) -> str:
    """The SHA-256, in hexadecimal, of what a body decodes to, zstd or not."""
    options = " ".join(f"-H '{header}'" for header in headers)
    # zstd -f gives what is not zstd as it is.
    line = f"curl -q -sSf {options} '{url}' | zstd -dcfq | sha256sum"
    return run(["bash", "-o", "pipefail", "-c", line]).stdout.split()[0]
