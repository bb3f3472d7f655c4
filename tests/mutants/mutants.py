#!/usr/bin/env python3
"""Builds each mutant of mutants.txt in a scratch copy of the tree, and expects the tests that it names to fail.

usage: mutants.py [--only NAME,...] [--json] [--scratch DIR] [--list FILE]
       mutants.py --check        every mutant still fits the sources: its line is there exactly once, its target exists
       mutants.py --self-test    shows that the check and the run themselves can fail

A mutant is killed if a named test fails, crashes or runs out of time. One that does not build proves nothing and counts
as a failure of the list. The scratch copy has a build folder of its own (a release build with asserts, ccache if there
is one), which is kept in DIR, if given, for the next run. First the tests run without a mutant: they must pass there.
Exit code 1 if a mutant survives, does not build or does not fit; 2 for a bad list.
"""

import argparse
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD_SECONDS, TEST_SECONDS = 1800, 120
NOT_COPIED = {".git", "target", "__pycache__"}
FIELDS = ("file", "-", "+", "build", "test")


def read_list(text):
    """The mutants as dictionaries; raises ValueError for a bad line."""
    mutants = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            mutants.append({"name": line[1:-1]})
            continue
        field, _, value = line.partition(" ")
        if field not in FIELDS or not mutants or field in mutants[-1]:
            raise ValueError(f"line {number}: {line}")
        mutants[-1][field] = value.strip()
    names = [mutant["name"] for mutant in mutants]
    for mutant in mutants:
        missing = [field for field in FIELDS if field not in mutant]
        if missing or not mutant["build"] or not mutant["test"] or names.count(mutant["name"]) != 1:
            raise ValueError(f"{mutant['name']}: incomplete or twice: {missing}")
    return mutants


def mutated(source, mutant):
    """The source with the mutant in it, or None if its line is not there exactly once."""
    lines = source.split("\n")
    places = [i for i, line in enumerate(lines) if line.strip() == mutant["-"]]
    if len(places) != 1:
        return None
    lines[places[0]] = mutant["+"]
    return "\n".join(lines)


def targets_of_tree():
    """The test executables that CMake knows."""
    found = set()
    for folder, _, files in os.walk(os.path.join(ROOT, "tests")):
        for name in files:
            if name == "CMakeLists.txt":
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    found.update(re.findall(r"^\s*sutra_test\((\w+)", file.read(), re.M))
    return found


def faults_of(mutants):
    faults = []
    targets = targets_of_tree()
    for mutant in mutants:
        path = os.path.join(ROOT, mutant["file"])
        if not os.path.exists(path):
            faults.append(f"{mutant['name']}: there is no {mutant['file']}")
            continue
        with open(path, encoding="utf-8") as file:
            if mutated(file.read(), mutant) is None:
                faults.append(f"{mutant['name']}: its line is not exactly once in {mutant['file']}: {mutant['-']}")
        if mutant["build"] not in targets:
            faults.append(f"{mutant['name']}: there is no test program {mutant['build']}")
    return faults


class Scratch:
    """A copy of the tree with a build folder. Used by one thread."""

    def __init__(self, folder):
        self.source = os.path.join(folder, "source")
        self.build_folder = os.path.join(self.source, "build")  # like that of any checkout: ccache knows its objects
        self.environment = dict(os.environ, CCACHE_BASEDIR=self.source, CCACHE_NOHASHDIR="1")
        self.copy_tree()
        launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache", "-DCMAKE_C_COMPILER_LAUNCHER=ccache"]
        self.run(["cmake", "-C", ".ci/release.cmake", "-S", ".", "-B", self.build_folder, "-G", "Ninja",
                  "-DSUTRA_BENCH=OFF", "-DSUTRA_WITH_TORCH=OFF", *(launcher if shutil.which("ccache") else [])], BUILD_SECONDS, must=True)

    def copy_tree(self):
        """Writes only what differs, at the present time: a folder that is used again builds little, and what the last
        mutant left in it is built anew."""
        wanted = set()
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [name for name in folders if name not in NOT_COPIED and not name.startswith("build")]
            for name in files:
                path = os.path.join(folder, name)
                to = os.path.join(self.source, os.path.relpath(path, ROOT))
                wanted.add(to)
                if os.path.exists(to) and filecmp.cmp(path, to, shallow=False):
                    continue
                os.makedirs(os.path.dirname(to), exist_ok=True)
                shutil.copyfile(path, to)
                shutil.copymode(path, to)
        for folder, folders, files in os.walk(self.source):
            folders[:] = [name for name in folders if not name.startswith("build")]
            for path in (os.path.join(folder, name) for name in files):
                if path not in wanted:
                    os.remove(path)

    def run(self, command, seconds, must=False):
        """(exit code, output); the code is None when the time is over."""
        # A group of its own, so that what a hanging test started ends with it.
        with subprocess.Popen(command, cwd=self.source, env=self.environment, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
                code = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                output, _ = process.communicate()
                code = None
        if must and code != 0:
            sys.exit(f"{' '.join(command)} failed:\n{output[-3000:]}")
        return code, output

    def build(self, target):
        return self.run(["cmake", "--build", self.build_folder, "--target", target, "-j", str(os.cpu_count())],
                        BUILD_SECONDS)

    def test(self, mutant):
        code, output = self.run([os.path.join(self.build_folder, "bin", mutant["build"]),
                                 "--gtest_filter=" + mutant["test"]], TEST_SECONDS)
        if "Running 0 tests" in output:
            return "no test", output
        if code is None:
            return "hung", output
        if code < 0:
            return f"signal {-code}", output
        return ("failed" if code else "passed"), output

    def try_mutant(self, mutant):
        """(verdict, the test that noticed it or the end of the output)."""
        path = os.path.join(self.source, mutant["file"])
        with open(path, encoding="utf-8") as file:
            original = file.read()
        text = mutated(original, mutant)
        if text is None:
            return "does not fit", ""
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            code, output = self.build(mutant["build"])
            if code != 0:
                errors = [line for line in output.splitlines() if "error" in line]
                return "does not build", "; ".join(errors[:2])
            result, output = self.test(mutant)
        finally:
            with open(path, "w", encoding="utf-8") as file:  # the new time has the original built again
                file.write(original)
        failed = re.findall(r"^\[  FAILED  \] ([\w/]+\.[\w/]+)", output, re.M) or re.findall(r"^\[ RUN      \] (\S+)", output,
                                                                                      re.M)[-1:]
        if result == "passed":
            return "SURVIVED", mutant["test"]
        return ("no test" if result == "no test" else "killed"), f"{result}: {failed[0] if failed else '?'}"


def expect_pass(scratch, target, tests):
    """Ends the program if a test fails without a mutant."""
    code, output = scratch.build(target)
    if code != 0:
        sys.exit(f"{target} does not build without a mutant:\n{output[-3000:]}")
    for test in tests:
        result, output = scratch.test({"build": target, "test": test})
        if result != "passed":
            sys.exit(f"{target} {test}: {result} without a mutant:\n{output[-3000:]}")


def run_all(scratch, mutants, as_json):
    """The verdicts, printed as they come; those of one test program in a row."""
    verdicts = []
    for target in dict.fromkeys(mutant["build"] for mutant in mutants):
        of_target = [mutant for mutant in mutants if mutant["build"] == target]
        expect_pass(scratch, target, sorted({mutant["test"] for mutant in of_target}))
        for mutant in of_target:
            start = time.monotonic()
            verdict, by = scratch.try_mutant(mutant)
            verdicts.append({"name": mutant["name"], "file": mutant["file"], "verdict": verdict, "by": by,
                             "seconds": round(time.monotonic() - start, 1)})
            if not as_json:
                print(f"{verdict:14} {mutant['name']:44} {by}  ({verdicts[-1]['seconds']} s)", flush=True)
    return verdicts


CANARY = """
[an-empty-mutant]
file shm/lane_ring.h
- if (!expected) return Read::kGap;
+ if (!expected) return Read::kGap;  // the same
build shm_test
test LaneRing.LappedReaderSeesAGapOnceAndGoesOn
[one-that-does-not-build]
file shm/lane_ring.h
- if (!expected) return Read::kGap;
+ if (!expected) return this is no program;
build shm_test
test LaneRing.LappedReaderSeesAGapOnceAndGoesOn
[one-that-is-noticed]
file shm/lane_ring.h
- if (!expected) return Read::kGap;
+
build shm_test
test LaneRing.LappedReaderSeesAGapOnceAndGoesOn
"""


def self_test(scratch):
    lost = CANARY.replace("- if (!expected)", "- if (this line is nowhere)")
    twice = CANARY.replace("if (!expected) return Read::kGap;", "private:", 1)
    if len(faults_of(read_list(lost))) != 3 or len(faults_of(read_list(twice))) != 1:
        print("the check does not notice lines that are missing or there twice")
        return 1
    verdicts = [verdict["verdict"] for verdict in run_all(scratch, read_list(CANARY), False)]
    return 0 if verdicts == ["SURVIVED", "does not build", "killed"] else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scratch")
    parser.add_argument("--list", default=os.path.join(HERE, "mutants.txt"))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    try:
        with open(arguments.list, encoding="utf-8") as file:
            mutants = read_list(file.read())
    except ValueError as error:
        print(error)
        return 2
    only = [name for name in arguments.only.split(",") if name]
    unknown = set(only) - {mutant["name"] for mutant in mutants}
    if unknown:
        print("no such mutant: " + ", ".join(sorted(unknown)))
        return 2
    mutants = [mutant for mutant in mutants if not only or mutant["name"] in only]
    faults = faults_of(mutants)
    for fault in faults:
        print(fault)
    if arguments.check or faults:
        print(f"{len(mutants)} mutants, {len(faults)} faults")
        return 1 if faults else 0
    with tempfile.TemporaryDirectory(prefix="sutra-mutants.") as temporary:
        scratch = Scratch(arguments.scratch or temporary)
        if arguments.self_test:
            return self_test(scratch)
        verdicts = run_all(scratch, mutants, arguments.json)
    killed = sum(verdict["verdict"] == "killed" for verdict in verdicts)
    if arguments.json:
        print(json.dumps({"mutants": len(verdicts), "killed": killed, "verdicts": verdicts}, indent=1))
    else:
        print(f"{len(verdicts)} mutants, {killed} killed, {len(verdicts) - killed} not")
    return 0 if killed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
