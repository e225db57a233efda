"""The corpora: the source of Linux, a closure, and the same closure rebuilt."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import closure
from .cache import Cache
from .closure import Closure
from .debian import download
from .failure import Failure
from .process import run

LINUX = "linux-source-6.1"
SALTS = ("A", "B")
# Raised when the source comes out otherwise, so that what is kept from before is made anew.
GENERATION = 1
PACKAGES = Path(__file__).parent / "packages.txt"
# What a quick run takes: a part of the source, and every so many-th package.
QUICK_PART = "kernel"
QUICK_STEP = 11
# Corpora, what they are made of, and the stores that are filled from them.
NEEDED_BYTES = 30 << 30
READ_BYTES = 1 << 20
# Of so many files, one is looked at to see whether the page cache has forgotten them.
PROBED_FILES = 64
# What part of those must be forgotten.
FORGOTTEN = 0.95

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Corpora:
    """Where the corpora lie, and what they are."""

    linux: Path
    closure: Closure
    rebuild: Closure
    # The cache of `closure`, its NARs compressed.
    compressed: Cache
    description: dict[str, dict]


def package_names(file: Path) -> list[str]:
    """The names in a list of packages, one a line."""
    names = sorted(set(file.read_text().split()))
    if not names:
        raise Failure(f"{file} names no packages")
    return names


def prepare(directory: Path, packages: Path, quick: bool, progress: Progress) -> Corpora:
    """Makes the corpora that are not there yet, which takes some minutes and the network."""
    directory.mkdir(parents=True, exist_ok=True)
    names = package_names(packages)
    names = names[::QUICK_STEP] if quick else names
    linux = directory / "linux"
    made = Closure(directory / "closure")
    rebuilt = Closure(directory / "rebuild")
    compressed = Cache(directory / "closure-zstd")
    source = {"generation": GENERATION}
    wanted = {"packages": _digest(names), "generation": closure.GENERATION}
    steps: list[tuple[Path, dict, Callable[[], dict]]] = [
        (linux, source, lambda: _make_linux(linux, quick)),
        (made.directory, wanted, lambda: _make_closure(made, names, progress)),
        (rebuilt.directory, wanted, lambda: _make_rebuild(made, rebuilt)),
        (compressed.directory, wanted, lambda: _make_compressed(made, compressed)),
    ]
    description: dict[str, dict] = {}
    anew = False
    for place, wanted, make in steps:
        known = None if anew else _stamped(place, wanted)
        if known is None:
            # What follows the closure is made of it.
            anew = anew or place == made.directory
            _check_space(directory, quick)
            progress(f"making the corpus {place.name}")
            shutil.rmtree(place, ignore_errors=True)
            known = make()
            _stamp(place).write_text(json.dumps({"wanted": wanted, "known": known}))
        description[place.name] = known
    return Corpora(linux / LINUX, made, rebuilt, compressed, description)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _stamp(place: Path) -> Path:
    # Beside the corpus, and written last: a corpus without one is half made.
    return place.with_name(f"{place.name}.json")


def _stamped(place: Path, wanted: dict) -> dict | None:
    try:
        stamp = json.loads(_stamp(place).read_text())
    except (OSError, ValueError):
        return None
    return stamp["known"] if stamp.get("wanted") == wanted and place.is_dir() else None


def _check_space(directory: Path, quick: bool) -> None:
    free = shutil.disk_usage(directory).free
    if not quick and free < NEEDED_BYTES:
        raise Failure(
            f"{directory} has {free >> 30} GB of free space and {NEEDED_BYTES >> 30} are needed: "
            "choose another place with --work"
        )


def _make_linux(into: Path, quick: bool) -> dict:
    into.mkdir()
    unpacked = into / "unpacked"
    (package,) = download([LINUX], into)
    package.unpack(unpacked)
    part = ["--wildcards", f"{LINUX}/{QUICK_PART}/*"] if quick else []
    archive = unpacked / "usr/src" / f"{LINUX}.tar.xz"
    run(["tar", "-C", into, "--no-same-owner", "-xf", archive, *part])
    shutil.rmtree(unpacked)
    if package.deb is not None:
        package.deb.unlink()
    files, size = _count(into / LINUX)
    return {"version": package.version, "files": files, "bytes": size}


def _make_closure(made: Closure, names: Sequence[str], progress: Progress) -> dict:
    debs = made.directory / "debs"
    made.directory.mkdir()
    progress(f"downloading {len(names)} packages")
    packages = download(names, debs)
    progress("making store paths of them")
    closure.generate(packages, SALTS[0], made)
    shutil.rmtree(debs)
    known = _describe(made)
    known["versions"] = {package.name: package.version for package in packages}
    return known


def _make_rebuild(made: Closure, rebuilt: Closure) -> dict:
    rebuilt.directory.mkdir()
    closure.rebuild(made, SALTS[1], rebuilt)
    return _describe(rebuilt)


def _make_compressed(made: Closure, compressed: Cache) -> dict:
    made.cache.compress(compressed)
    return {"bytes": sum(info.file_size for info in compressed.narinfos())}


def _describe(made: Closure) -> dict:
    infos = made.cache.narinfos()
    files, _ = _count(made.store)
    return {
        "paths": len(infos),
        "files": files,
        "bytes": sum(info.nar_size for info in infos),
        "digest": _digest([info.nar_hash for info in infos]),
    }


def _count(tree: Path) -> tuple[int, int]:
    files = size = 0
    for directory, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            files += 1
            size += status.st_size
    return files, size


def warm(tree: Path) -> None:
    """Reads every file below `tree` once, so that the page cache has it."""
    buffer = bytearray(READ_BYTES)
    for path in _files(tree):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def cool(tree: Path) -> bool:
    """Has the page cache forget the contents of every file below `tree`; their names it keeps. Tells
    whether it has, going by some of the files."""
    # It does not forget what is still to be written.
    os.sync()
    asked = forgotten = 0
    for number, path in enumerate(_files(tree)):
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if number % PROBED_FILES == 0 and os.fstat(file.fileno()).st_size > 0:
                asked += 1
                forgotten += _would_wait(file.fileno())
    return forgotten >= FORGOTTEN * asked


def _would_wait(file: int) -> bool:
    """Whether the beginning of a file is to be read from the disk, as far as that can be told."""
    try:
        os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        # The file system cannot tell.
        return False
    return False


def _files(tree: Path) -> Iterator[str]:
    for directory, _, names in os.walk(tree):
        paths = (os.path.join(directory, name) for name in names)
        yield from (path for path in paths if not os.path.islink(path))
