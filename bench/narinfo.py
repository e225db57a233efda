"""What a binary cache says of a store path."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NarInfo:
    """The fields that the benchmark writes and reads. `url` is relative to the cache; file hash
    and size are those of the NAR as the cache has it."""

    store_path: str
    url: str
    compression: str
    file_hash: str
    file_size: int
    nar_hash: str
    nar_size: int
    references: tuple[str, ...]

    def render(self) -> str:
        """The text of it, unsigned."""
        return (
            f"StorePath: {self.store_path}\n"
            f"URL: {self.url}\n"
            f"Compression: {self.compression}\n"
            f"FileHash: {self.file_hash}\n"
            f"FileSize: {self.file_size}\n"
            f"NarHash: {self.nar_hash}\n"
            f"NarSize: {self.nar_size}\n"
            f"References: {' '.join(self.references)}\n"
        )


def parse(text: str) -> NarInfo:
    """Reads what `render` or a server writes."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return NarInfo(
        store_path=fields["StorePath"],
        url=fields["URL"],
        compression=fields.get("Compression", "bzip2"),
        file_hash=fields.get("FileHash", fields["NarHash"]),
        file_size=int(fields.get("FileSize", fields["NarSize"])),
        nar_hash=fields["NarHash"],
        nar_size=int(fields["NarSize"]),
        references=tuple(fields.get("References", "").split()),
    )
