"""The benchmark of Granary against what a user would otherwise run.

`make bench` runs it; docs/performance.md explains the method. Nothing else depends on it, and
it uses nothing but the standard library and the programs that it measures.
"""
