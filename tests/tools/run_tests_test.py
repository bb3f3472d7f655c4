#!/usr/bin/env python3
"""tools/run_tests.py on made-up build folders: merged names, failures noticed, skips with reasons, summary last."""

import os
import subprocess
import sys
import tempfile
import unittest

SCRIPT = sys.argv.pop(1)

SKIPPED = r"printf '[ RUN      ] A.B\nx_test.cc:7: Skipped\nthe kernel has no foo\n\n[  SKIPPED ] A.B\n'"


class RunTests(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = holder.name

    def build(self, name, *tests):
        folder = os.path.join(self.root, name)
        os.makedirs(folder)
        with open(os.path.join(folder, "CTestTestfile.cmake"), "w") as file:
            for title, command in tests:
                file.write(f'add_test([=[{title}]=] "/bin/sh" "-c" [=[{command}]=])\n'
                           f'set_tests_properties([=[{title}]=] PROPERTIES SKIP_REGULAR_EXPRESSION '
                           f'"\\\\[  SKIPPED \\\\]" ENVIRONMENT "WORD=a b")\n')
        return f"{name}={folder}"

    def run_script(self, *builds, options=()):
        return subprocess.run([sys.executable, SCRIPT, "--folder", os.path.join(self.root, "all"), *options, *builds],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    def test_equal_names_of_two_builds_both_run_and_the_summary_is_last(self):
        run = self.run_script(self.build("release", ("A.One", '[ "$WORD" = "a b" ]')), self.build("asan", ("A.One", "true")))
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertIn("release/A.One", run.stdout)
        self.assertIn("asan/A.One", run.stdout)
        self.assertEqual(run.stdout.splitlines()[-1], "100% tests passed, 0 tests failed out of 2")

    def test_one_failure_fails_the_run_and_is_named(self):
        run = self.run_script(self.build("release", ("A.One", "true"), ("A.Two", "echo because; false")))
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("because", run.stdout)
        self.assertIn("release/A.Two (Failed)", run.stdout)
        self.assertEqual(run.stdout.splitlines()[-1], "50% tests passed, 1 tests failed out of 2")

    def test_skipped_tests_are_listed_with_their_reason(self):
        run = self.run_script(self.build("release", ("A.One", "true"), ("A.Skip", SKIPPED)))
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertIn("SKIPPED:\n  the kernel has no foo\n    release/A.Skip", run.stdout)

    def test_no_test_at_all_is_a_failure(self):
        self.assertEqual(self.run_script(self.build("release")).returncode, 1)
        self.assertNotEqual(self.run_script(self.build("other", ("A.One", "true")), options=("-R", "Nothing")).returncode, 0)


if __name__ == "__main__":
    unittest.main()
