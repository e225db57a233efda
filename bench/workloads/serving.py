"""One daemon under everything: filled with the closure and its rebuild, then asked for all
NARs and for narinfos, beside nginx with the same as plain files. Last, its peak memory."""

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .. import disk
from ..bench import Bench
from ..corpora import warm
from ..curl import ACCEPT_ZSTD, fetch, sha256, shares
from ..failure import Failure
from ..granary import Daemon
from ..narinfo import NarInfo
from ..nginx import Nginx
from ..nixbase32 import encode
from .copies import copy

CONNECTIONS = (1, 4, 16)

# What takes a second or two is measured more often than what takes many: the distance of cores, which
# decides much of it, changes within seconds.
TIMES = 3

NARINFO_REQUESTS = 10_000
PARTS = ("nars", "narinfo")
# What clients take: no encoding, or zstd.
PLAIN, ZSTD = "NARs", "NARs, zstd"


@dataclass(frozen=True)
class Source:
    """A server as clients of one kind see it, with the narinfos of what is asked for and the
    headers that are sent."""

    name: str
    kind: str
    server: Daemon | Nginx
    infos: list[NarInfo]
    headers: tuple[str, ...] = ()

    def sizes(self) -> dict[str, int]:
        """URLs of all NARs, with their lengths as NARs."""
        return {f"{self.server.url}/{info.url}": info.nar_size for info in self.infos}

    def check(self) -> None:
        """Sees that what it sends are the NARs; and so everything was read once."""
        for info in self.infos:
            digest = sha256(f"{self.server.url}/{info.url}", self.headers)
            if info.nar_hash != f"sha256:{encode(bytes.fromhex(digest))}":
                raise Failure(f"{self.name} sends another NAR for {info.store_path}")


def measure(bench: Bench, parts: Collection[str]) -> None:
    """Measures those of `PARTS` that are asked for."""
    corpora = bench.corpora
    for cache in (corpora.closure.cache, corpora.rebuild.cache, corpora.compressed):
        warm(cache.directory)
    infos = corpora.closure.cache.narinfos()
    with ExitStack() as servers:
        daemon = servers.enter_context(bench.granary_store().daemon())
        nginx = servers.enter_context(Nginx(corpora.closure.cache.directory, bench.work / "nginx"))
        packed = servers.enter_context(
            Nginx(corpora.compressed.directory, bench.work / "nginx-zstd")
        )
        bench.progress("filling the daemon that serves")
        for closure in (corpora.closure, corpora.rebuild):
            copy(daemon, closure, bench.stores / "nix")
        if "nars" in parts:
            served = [daemon.narinfo(info.store_path) for info in infos]
            ready = corpora.compressed.narinfos()
            sources = [
                Source(nginx.name, PLAIN, nginx, infos),
                Source(daemon.name, PLAIN, daemon, served),
                Source("nginx .zst", ZSTD, packed, ready),
                Source(daemon.name, ZSTD, daemon, served, (ACCEPT_ZSTD,)),
            ]
            for source in sources:
                bench.progress(f"checking {source.kind} of {source.name}")
                source.check()
            _nars(bench, sources)
        if "narinfo" in parts:
            _narinfos(bench, [nginx, daemon], infos)
        # Peak memory means something only after all of it.
        if set(parts) == set(PARTS):
            bench.record("everything", daemon.name, 0, peak_bytes=daemon.peak_bytes())
    disk.remove(bench.stores)


def work_name(kind: str, connections: int) -> str:
    """The name of fetching all NARs over so many connections."""
    return f"{kind}, {connections} connection{'s' * (connections > 1)}"


def _nars(bench: Bench, sources: list[Source]) -> None:
    for count in CONNECTIONS:
        for round, source in bench.alternating(sources, TIMES):
            parts = shares(source.sizes(), count)
            before = source.server.cpu_seconds()
            fetched = fetch(parts, source.headers, bench.work / "curl")
            used = source.server.cpu_seconds() - before
            if source.kind == PLAIN and fetched.wire_bytes != sum(source.sizes().values()):
                raise Failure(f"{source.name} sent {fetched.wire_bytes} bytes, which is not all")
            bench.record(
                work_name(source.kind, count),
                source.name,
                round,
                seconds=fetched.seconds,
                wire_bytes=fetched.wire_bytes,
                server_cpu_seconds=used,
                client_cpu_seconds=fetched.cpu_seconds,
            )


def _narinfos(bench: Bench, servers: list[Daemon | Nginx], infos: list[NarInfo]) -> None:
    names = [Path(info.store_path).name[:32] for info in infos]
    wanted = [names[index % len(names)] for index in range(NARINFO_REQUESTS)]
    for round, server in bench.alternating(servers, TIMES):
        urls = [f"{server.url}/{name}.narinfo" for name in wanted]
        before = server.cpu_seconds()
        fetched = fetch([urls], (), bench.work / "curl")
        used = server.cpu_seconds() - before
        if fetched.connections != 1:
            raise Failure(f"{server.name} took {fetched.connections} connections instead of one")
        bench.record(
            "narinfos",
            server.name,
            round,
            seconds=fetched.seconds,
            server_cpu_seconds=used,
            client_cpu_seconds=fetched.cpu_seconds,
        )
