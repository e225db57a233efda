"""Nix's base 32: its own alphabet, the last digit first."""

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"


def encode(data: bytes) -> str:
    """The digits of `data`, most significant first, five bits each."""
    number = int.from_bytes(data, "little")
    length = (len(data) * 8 + 4) // 5
    return "".join(ALPHABET[number >> (5 * i) & 31] for i in reversed(range(length)))
