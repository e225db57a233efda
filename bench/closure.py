"""Closures as Nix would have them, made of Debian packages.

Each package becomes a store path: its files without `usr/`, ELF files with a RUNPATH and an
interpreter in the closure, scripts with such a shebang, configuration with the prefix of the
path. Store hashes depend on a salt alone, so that two salts give what a mass rebuild gives:
the same contents but for the 32 characters of every reference.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .cache import STORE_DIR, Cache
from .debian import Package
from .nixbase32 import encode
from .process import environment

# Raised when trees come out otherwise, so that those kept from before are made anew.
GENERATION = 1
LIBC = "libc6"
LIBRARIES = "lib/x86_64-linux-gnu"
INTERPRETER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
# Of e_type: programs, and shared objects, which position-independent programs are too.
PATCHABLE_ELF = (b"\x02\0", b"\x03\0")
SHEBANG = re.compile(rb"#! ?/(?:usr/)?bin/(\w[\w.]*)")
# Which package has the interpreter of a script.
INTERPRETERS = {
    b"sh": "dash",
    b"bash": "bash",
    b"perl": "perl-base",
    b"python3": "python3.11-minimal",
    b"env": "coreutils",
}
# Files that name the prefix under which a package is installed.
PREFIXED = (".pc", ".la", ".desktop", ".service", ".cmake", ".conf")
REFERENCE = re.compile(rb"/nix/store/([0-9a-z]{32})-")


@dataclass(frozen=True)
class Closure:
    """A closure in a directory: `store/` has the trees, `cache/` the binary cache."""

    directory: Path

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def cache(self) -> Cache:
        return Cache(self.directory / "cache")

    def create(self) -> None:
        """Makes it, with nothing in it."""
        self.store.mkdir(parents=True)
        self.cache.create()


def store_hash(salt: str, name: str) -> str:
    """The hash part of the store path of this name."""
    return encode(hashlib.sha256(f"{salt}:{name}".encode()).digest()[:20])


def base_name(salt: str, package: Package) -> str:
    """The name of the store path of a package, as Nix allows it."""
    name = f"{package.name}-{re.sub(r'[^0-9A-Za-z+._-]', '-', package.version)}"
    return f"{store_hash(salt, name)}-{name}"


def reference_order(depends: Mapping[str, frozenset[str]]) -> list[str]:
    """The packages in depth-first postorder.

    Nix allows no cycles among references, Debian has some: a package may refer only to those
    before it in this order.
    """
    order: list[str] = []
    seen: set[str] = set()
    for root in sorted(depends, key=lambda name: (name != LIBC, name)):
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(sorted(depends[root])))]
        while stack:
            name, rest = stack[-1]
            unseen = next((d for d in rest if d in depends and d not in seen), None)
            if unseen is None:
                order.append(name)
                stack.pop()
            else:
                seen.add(unseen)
                stack.append((unseen, iter(sorted(depends[unseen]))))
    return order


def generate(packages: Sequence[Package], salt: str, closure: Closure) -> None:
    """Writes the closure of the packages; those without files become no path."""
    by_name = {package.name: package for package in packages}
    order = reference_order({package.name: package.depends for package in packages})
    closure.create()
    paths: dict[str, str] = {}
    for name in order:
        package = by_name[name]
        own = f"{STORE_DIR}/{base_name(salt, package)}"
        dependencies = sorted(name for name in package.depends if name in paths)
        tree = Tree(closure.store / Path(own).name, own, name, dependencies, paths)
        with tempfile.TemporaryDirectory(dir=closure.directory) as unpacked:
            package.unpack(Path(unpacked))
            tree.take(Path(unpacked))
        if tree.files_and_links():
            paths[name] = own
            closure.cache.add(tree.directory, (Path(paths[name]).name for name in tree.references))


@dataclass
class Tree:
    """The tree of a store path while it is made. `paths` has the store paths before it."""

    directory: Path
    store_path: str
    name: str
    dependencies: Sequence[str]
    paths: Mapping[str, str]
    references: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.references.update(self.dependencies)
        places = [self.store_path, *(self.paths[name] for name in self.dependencies)]
        self.runpath = ":".join(f"{place}/{LIBRARIES}" for place in places)
        self.directory.mkdir()

    def files_and_links(self) -> bool:
        """Whether there is anything in it; removes it if not."""
        if any(self.directory.iterdir()):
            return True
        self.directory.rmdir()
        return False

    def take(self, root: Path) -> None:
        """Copies what a package has below `root`, `usr/` being the same as its root."""
        self._take_directory(root, self.directory, skip={"usr"})
        if (root / "usr").is_dir():
            self._take_directory(root / "usr", self.directory, skip=set())

    def _take_directory(self, source: Path, target: Path, skip: set[str]) -> None:
        # A package that ships a symlink where another part of it has a directory: what would
        # lie below the symlink is left out, or it would be written elsewhere.
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            return
        target.mkdir(exist_ok=True)
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            if entry.name in skip:
                continue
            place = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                self._take_directory(Path(entry.path), place, skip=set())
            elif os.path.lexists(place):
                continue
            elif entry.is_symlink():
                place.symlink_to(os.readlink(entry.path))
            elif entry.is_file(follow_symlinks=False):
                shutil.copyfile(entry.path, place)
                executable = entry.stat(follow_symlinks=False).st_mode & stat.S_IXUSR
                place.chmod(0o755 if executable else 0o644)
                self._patch(place)

    def _patch(self, file: Path) -> None:
        with open(file, "rb") as opened:
            head = opened.read(4096)
        if head[:4] == b"\x7fELF" and head[16:18] in PATCHABLE_ELF:
            self._patch_elf(file)
        elif head[:2] == b"#!":
            self._patch_script(file)
        elif file.name.endswith(PREFIXED):
            prefix = self.store_path.encode() + b"/"
            file.write_bytes(file.read_bytes().replace(b"/usr/", prefix))

    def _patch_elf(self, file: Path) -> None:
        # patchelf refuses what has no dynamic section, and shared objects have no interpreter.
        if not _patchelf("--set-rpath", self.runpath, file):
            return
        libc = self.paths.get(LIBC, self.store_path if self.name == LIBC else None)
        if libc is not None:
            self.references.add(LIBC)
            _patchelf("--set-interpreter", f"{libc}/{INTERPRETER}", file)

    def _patch_script(self, file: Path) -> None:
        data = file.read_bytes()
        if not (match := SHEBANG.match(data)):
            return
        provider = INTERPRETERS.get(match[1], "")
        place = self.store_path if provider == self.name else self.paths.get(provider)
        if place is not None:
            self.references.add(provider)
            file.write_bytes(b"#!%s/bin/%s%s" % (place.encode(), match[1], data[match.end() :]))


def _patchelf(option: str, value: str, file: Path) -> bool:
    done = subprocess.run(
        ["patchelf", option, value, file], env=environment(), capture_output=True, check=False
    )
    return done.returncode == 0


def substitute(data: bytes, hashes: Mapping[bytes, bytes]) -> bytes:
    """The data with each store hash of `hashes` replaced where a store path begins."""
    if data.find(b"/nix/store/") < 0:
        return data
    return REFERENCE.sub(lambda m: b"/nix/store/%s-" % hashes.get(m[1], m[1]), data)


def rebuild(closure: Closure, salt: str, into: Closure) -> None:
    """Writes what `generate` would write for the same packages with another salt.

    All store hashes are of one length and stand only in store paths, so that replacing them
    gives the same bytes as doing everything again, in a tenth of the time.
    """
    bases = os.listdir(closure.store)
    names = {base: f"{store_hash(salt, base[33:])}-{base[33:]}" for base in bases}
    hashes = {old[:32].encode(): new[:32].encode() for old, new in names.items()}
    into.create()
    for info in closure.cache.narinfos():
        base = Path(info.store_path).name
        target = into.store / names[base]
        _rebuild_tree(closure.store / base, target, hashes)
        into.cache.add(target, (names[reference] for reference in info.references))


def _rebuild_tree(source: Path, target: Path, hashes: Mapping[bytes, bytes]) -> None:
    target.mkdir()
    for entry in os.scandir(source):
        place = target / entry.name
        if entry.is_symlink():
            place.symlink_to(os.readlink(entry.path))
        elif entry.is_dir(follow_symlinks=False):
            _rebuild_tree(Path(entry.path), place, hashes)
        else:
            place.write_bytes(substitute(Path(entry.path).read_bytes(), hashes))
            place.chmod(entry.stat(follow_symlinks=False).st_mode & 0o777)
