"""What stops the benchmark, or one workload of it."""


class Failure(Exception):
    """Says what failed, on what, and what to do about it."""
