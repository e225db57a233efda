"""Tests of those parts of the benchmark that can be wrong without anybody noticing."""

import hashlib
import mmap
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from . import cargo, closure, cores, corpora, curl, debian, machine, nar, narinfo, nixbase32, table
from .failure import Failure
from .samples import Samples
from .targets import AtMost, Figure, Ratio, Row, rows
from .workloads import sweep


class Formats(unittest.TestCase):
    """Nix's formats."""

    def test_base_32_is_that_of_nix(self):
        # `nix hash to-base32` of the SHA-256 of nothing.
        digest = hashlib.sha256(b"").digest()
        expected = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
        self.assertEqual(nixbase32.encode(digest), expected)
        self.assertEqual(len(nixbase32.encode(b"\xff" * 20)), 32)

    def test_nar_has_every_kind_of_node(self):
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "root"
            root.mkdir()
            (root / "b").write_bytes(b"123456789")
            (root / "b").chmod(0o755)
            (root / "a").symlink_to("b")
            pieces = []
            nar.write(root, pieces.append)
        archive = b"".join(pieces)

        def word(text):
            return len(text).to_bytes(8, "little") + text + b"\0" * (-len(text) % 8)

        expected = b"".join(
            map(
                word,
                [b"nix-archive-1", b"(", b"type", b"directory"]
                + [b"entry", b"(", b"name", b"a", b"node"]
                + [b"(", b"type", b"symlink", b"target", b"b", b")", b")"]
                + [b"entry", b"(", b"name", b"b", b"node", b"(", b"type", b"regular"]
                + [b"executable", b"", b"contents", b"123456789", b")", b")", b")"],
            )
        )
        self.assertEqual(archive, expected)

    def test_narinfo_comes_back_as_it_was_written(self):
        references = ("x-a", "y-b")
        info = narinfo.NarInfo("/nix/store/x-a", "nar/a.nar", "none", "f", 1, "n", 2, references)
        self.assertEqual(narinfo.parse(info.render()), info)


class Closures(unittest.TestCase):
    """The generator."""

    def test_references_make_no_cycle(self):
        depends = {
            "a": frozenset({"b", "elsewhere"}),
            "b": frozenset({"a", "c"}),
            "c": frozenset({"libc6"}),
            "libc6": frozenset({"c"}),
        }
        order = closure.reference_order(depends)
        self.assertEqual(sorted(order), sorted(depends))
        self.assertEqual(order, ["c", "libc6", "b", "a"])

    def test_a_dependency_is_the_first_of_its_alternatives(self):
        found = debian.dependencies("libc6 (>= 2.36), awk | mawk, perl:any", "dpkg(>= 1)", "")
        self.assertEqual(found, {"libc6", "awk", "perl", "dpkg"})

    def test_the_newest_version_in_the_archive_is_taken(self):
        listed = (
            "  a | 1:2-1+b1 | http://archive/debian-security x/main amd64 Packages\n"
            "  a |  1:1-9 | http://archive/debian x/main amd64 Packages\n"
            "  a |  1:3-1 | http://archive/debian x/main Sources\n"
        )
        self.assertEqual(debian.archived_versions(listed), {"a": "1:2-1+b1"})

    def test_only_hashes_in_store_paths_are_replaced(self):
        old, new = b"0" * 31 + b"1", b"1" * 32
        text = b"/nix/store/%s-x %s /nix/store/%s-y" % (old, old, b"2" * 32)
        replaced = closure.substitute(text, {old: new})
        self.assertEqual(replaced, b"/nix/store/%s-x %s /nix/store/%s-y" % (new, old, b"2" * 32))

    def test_the_list_has_as_many_packages_as_the_method_says(self):
        self.assertEqual(len(corpora.package_names(corpora.PACKAGES)), 330)


class Clients(unittest.TestCase):
    """What is asked for, and what programs print."""

    def test_connections_share_all_bytes_evenly(self):
        sizes = {f"u{number}": number for number in range(1, 9)}
        parts = curl.shares(sizes, 2)
        self.assertEqual(sorted(url for part in parts for url in part), sorted(sizes))
        self.assertEqual({sum(sizes[url] for url in part) for part in parts}, {18})
        self.assertEqual(curl.shares({"only": 1}, 16), [["only"]])

    def test_the_last_speed_of_zstd_counts(self):
        line = " 3#s.tar : 100 ->\r 3#s.tar : 100 -> 25 (x4.000),  250.1 MB/s, 900.0 MB/s\r"
        self.assertEqual(machine.zstd_speed(line), 250.1)

    def test_figures_of_a_program_are_those_of_its_last_line(self):
        printed = 'noise\n{"open_seconds": 9}\n{"open_seconds": 0.5, "name": "x", "chunks": 3}\n'
        self.assertEqual(cargo.figures(printed), {"open_seconds": 0.5, "chunks": 3})


class Sweep(unittest.TestCase):
    """The settings, and what the program says of them."""

    def test_the_grid_has_the_pairs_that_decide_and_none_twice(self):
        grid = sweep.grid()
        self.assertEqual(grid[0], sweep.TODAY)
        self.assertEqual(len(set(grid)), len(grid))
        self.assertEqual(len({settings.name for settings in grid}), len(grid))
        for way in (sweep.TODAY.way, ("level", (1,))):
            same = [settings for settings in grid if settings.way == way]
            self.assertLessEqual({16, 64, 128, 256}, {settings.chunk for settings in same})
            frames = {settings.run for settings in same if settings.run == settings.group}
            self.assertLessEqual({64, 128, 256, 512, 1024}, frames)

    def test_settings_are_told_as_the_program_takes_them(self):
        today = "--average-chunk-kib 64 --run-kib 1024 --group-kib 512 --two-tables 16 15 6"
        today += " --fast-text 14 7"
        self.assertEqual(sweep.TODAY.options(), today.split())
        own = sweep.Settings(chunk=16, run=32, group=8, **sweep.LEVEL_1)
        expected = "--average-chunk-kib 16 --run-kib 32 --group-kib 8 --level 1"
        self.assertEqual(own.options(), expected.split())

    def test_another_default_of_the_engine_is_noticed(self):
        printed = '{"defaults": true, "seconds": 1.5}\n{"defaults": true, "seconds": 2}\n'
        parsed = sweep.parse(printed, 2, sweep.TODAY)
        self.assertEqual(parsed, [{"seconds": 1.5}, {"seconds": 2}])
        for settings, said in ((sweep.Settings(chunk=16), "true"), (sweep.TODAY, "false")):
            with self.assertRaises(Failure):
                sweep.parse(f'{{"defaults": {said}}}\n', 1, settings)
        with self.assertRaises(Failure):
            sweep.parse(printed, 3, sweep.TODAY)

    def test_a_line_has_what_was_measured_of_each_corpus(self):
        samples = Samples()
        for round, cpu in enumerate((3.0, 9.0, 2.0)):
            figures = {"packs_bytes": 3 << 20, "index_bytes": 1 << 19, "cpu_seconds": cpu}
            figures["wire_bytes"] = 5 << 20
            for corpus in ("linux", "rebuild"):
                samples.add(sweep.work_name(corpus), sweep.TODAY.name, round, **figures)
        (line,) = table.settings(samples).splitlines()[2:]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        named = ["**64**", "**1024**", "**512**", f"**{sweep.TODAY.zstd}**"]
        self.assertEqual(cells, [*named, "3.5", "5.0", "3.0", "", "", "", "3.5", "3.0"])


class Tables(unittest.TestCase):
    """The judgement."""

    def setUp(self):
        self.samples = Samples()
        for round, (own, other) in enumerate([(1.0, 4.0), (9.0, 4.0), (2.0, 5.0)]):
            self.samples.add("w", "granary", round, seconds=own)
            self.samples.add("w", "peer", round, seconds=other)
        self.own = Figure("w", "granary", "seconds", "s")
        self.peer = Figure("w", "peer", "seconds", "s")

    def row(self, *criteria):
        return Row("work", self.own, [self.peer], criteria)

    def test_medians_decide(self):
        self.assertIs(self.row(Ratio(0.5, self.own, self.peer)).met(self.samples), True)
        self.assertIs(self.row(Ratio(0.49, self.own, self.peer)).met(self.samples), False)
        both = self.row(Ratio(0.5, self.own, self.peer), AtMost(1.9, self.own))
        self.assertIs(both.met(self.samples), False)

    def test_what_was_not_measured_is_not_met(self):
        absent = Figure("w", "absent", "seconds", "s")
        self.assertIsNone(self.row(Ratio(1, self.own, absent)).met(self.samples))
        text = table.targets([self.row(Ratio(1, self.own, absent))], self.samples)
        self.assertIn("not measured", text)

    def test_a_row_shows_figures_ratio_and_verdict(self):
        text = table.targets([self.row(Ratio(0.5, self.own, self.peer))], self.samples)
        cells = [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]
        expected = ["work", "2.00 s", "peer 4.00 s", "0.50 x peer", "≤ 0.5 x peer", "yes"]
        self.assertEqual(cells, expected)

    def test_a_row_says_what_comes_first_if_it_gives_way(self):
        def verdict(first, *criteria):
            disk = Row("disk", self.own, [], [AtMost(first, self.own)])
            row = Row("work", self.own, [self.peer], criteria, behind=disk)
            return table.targets([row], self.samples).splitlines()[2].split("|")[-2].strip()

        missed, met = Ratio(0.4, self.own, self.peer), Ratio(0.5, self.own, self.peer)
        self.assertEqual(verdict(2, missed, AtMost(2, self.own)), "**no**: disk comes first")
        self.assertEqual(verdict(2, met), "yes")
        self.assertEqual(verdict(1, missed), "**no**")
        self.assertEqual(verdict(2, missed, AtMost(1, self.own)), "**no**")

    def test_a_row_without_a_goal_has_no_verdict(self):
        self.assertIsNone(self.row().met(self.samples))
        self.assertEqual(table.targets([self.row()], self.samples).count("2.00 s"), 1)
        last = table.targets([self.row()], self.samples).splitlines()[2].split("|")[-2]
        self.assertEqual(last.strip(), "")

    def test_every_row_stands_without_figures(self):
        text = table.targets(rows(), Samples())
        self.assertEqual(len(text.splitlines()), len(rows()) + 2)
        self.assertNotIn("yes", text)


class Cores(unittest.TestCase):
    """How far apart they are, and when that was."""

    def test_a_round_trip_takes_time_and_leaves_no_process(self):
        before = os.sched_getaffinity(0)
        found = cores.round_trip_us()
        self.assertEqual(found is None, len(before) < 2)
        if found is not None:
            self.assertGreater(found, 0)
        self.assertEqual(os.sched_getaffinity(0), before)
        with self.assertRaises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_of_a_single_core_nothing_is_found(self):
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            self.assertIsNone(cores.round_trip_us())
        finally:
            os.sched_setaffinity(0, before)

    def test_nobody_waits_for_ever(self):
        with mmap.mmap(-1, mmap.PAGESIZE) as shared, mock.patch.object(cores, "TIMEOUT_S", 0):
            with self.assertRaises(TimeoutError):
                cores._pass_on(shared, 1)

    def test_each_sample_has_what_was_found_before_it(self):
        samples = Samples()
        samples.add("w", "granary", 0, seconds=1.0)
        for round, found in enumerate([0.2, 0.3]):
            samples.core_round_trip_us = found
            samples.add("w", "granary", round, seconds=1.0)
        self.assertEqual(samples.core_round_trips_us(), [0.2, 0.3])


def passes() -> bool:
    """Runs all tests, and says whether they passed."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    return unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful()
