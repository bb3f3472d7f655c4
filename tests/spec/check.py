#!/usr/bin/env python3
"""Searches the protocol models in this folder exhaustively with spin and compares with what cases.txt expects.

usage: check.py MODEL [--long]   the lines of cases.txt for MODEL; with --long, only those marked long
       check.py --self-test      shows that the check itself can fail
Exit code 1 if a line is not as expected, 77 if spin is not installed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MEMORY_MB = 3000
SECONDS = 900
DEPTH = 100_000
CCACHE = ["ccache"] if shutil.which("ccache") else []  # most searches take less time than compiling them
VERDICTS = {"pass", "wedge", "assert"}


def read_cases(text):
    """[(model, expected, is_long, flags)] of the table."""
    cases = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        model, expected, *flags = words
        is_long = flags[:1] == ["long"]
        flags = flags[is_long:]
        if expected not in VERDICTS or not all(re.fullmatch(r"-D\w+(=\d+)?", flag) for flag in flags):
            raise ValueError(f"cases.txt: not a case: {line}")
        cases.append((model, expected, is_long, flags))
    return cases


def table_faults(model, source, cases):
    """A flag that the model does not know would silently check something else; so would a mutant without a line."""
    used = {flag[2:].split("=")[0] for _, _, _, flags in cases for flag in flags}
    known = set(re.findall(r"\b[A-Z][A-Z_0-9]+\b", "\n".join(re.findall(r"^#\s*(?:el)?if.*$", source, re.M))))
    faults = [f"{model}: no #if knows -D{name}" for name in sorted(used - known)]
    faults += [f"{model}: {name} has no line" for name in sorted(known - used) if name.startswith("MUT_")]
    if not any(expected == "pass" for _, expected, _, _ in cases):
        faults.append(f"{model}: no line expects it to pass")
    return faults


def last_steps(path, flags, folder, count):
    steps = subprocess.run(["spin", "-t", "-p", *flags, path], cwd=folder, text=True, capture_output=True, check=False)
    return "\n".join([line for line in steps.stdout.splitlines() if "(Memory:" not in line][-count:])


def search(path, flags, expected, depth=DEPTH):
    """(verdict, details): one of VERDICTS, or what kept the search from ending. `expected` decides how much is shown."""
    optimize = "-O1" if expected == "pass" else "-O0"  # a mutant's search takes less time than compiling it
    with tempfile.TemporaryDirectory() as folder:
        def run(*command):
            return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False, timeout=SECONDS)
        made = run("spin", "-a", *flags, path)
        if made.returncode != 0 or "rror" in made.stdout + made.stderr:
            return "spin refuses it", made.stdout + made.stderr
        compiler = [*CCACHE, os.environ.get("CC", "cc")]
        built = run(*compiler, optimize, "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MB}", "-c", "pan.c")
        if built.returncode == 0:
            built = run(compiler[-1], "-o", "pan", "pan.o")
        if built.returncode != 0:
            return "cc refuses it", built.stderr
        try:
            done = run("./pan", f"-m{depth}", "-w22")
        except subprocess.TimeoutExpired:
            return "unfinished", f"after {SECONDS} s"
        states = re.search(r"(\d+) states, stored", done.stdout)
        details = f"{states.group(1)} states" if states else done.stdout + done.stderr
        errors = re.search(r"errors: (\d+)", done.stdout)
        if errors and errors.group(1) != "0":
            for text, verdict in (("invalid end state", "wedge"), ("assertion violated", "assert")):
                if f"pan:1: {text}" in done.stdout:
                    return verdict, details + ("" if verdict == expected else "\n" + last_steps(path, flags, folder, 60))
        cut_short = "Search not completed" in done.stdout or "too small" in done.stdout
        if done.returncode == 0 and errors and errors.group(1) == "0" and not cut_short:
            return "pass", details
        return "unfinished", done.stdout + done.stderr


def run_cases(model, want_long):
    with open(os.path.join(HERE, "cases.txt"), encoding="utf-8") as file:
        cases = [case for case in read_cases(file.read()) if case[0] == model]
    path = os.path.join(HERE, model + ".pml")
    with open(path, encoding="utf-8") as file:
        faults = table_faults(model, file.read(), cases)
    failures = len(faults)
    for fault in faults:
        print(fault)
    chosen = [case for case in cases if case[2] == want_long]
    for _, expected, _, flags in chosen:
        start = time.monotonic()
        verdict, details = search(path, flags, expected)
        print(f"{'ok  ' if verdict == expected else 'FAIL'} {model} {' '.join(flags) or '(no flags)'}: {verdict}, "
              f"{details.splitlines()[0] if details else ''}, {time.monotonic() - start:.1f} s", flush=True)
        if verdict != expected:
            failures += 1
            print(f"     expected {expected}\n{details}")
    print(f"{len(chosen)} searches, {failures} failures")
    return 1 if failures or not chosen else 0


TOY = """byte x;
proctype P() { x = 1 }
proctype Q() {
#ifdef MUT_WAITS
  x == 2
#elif defined(MUT_ASSERTS)
  assert(x == 1)
#elif defined(LONG_WAY)
  byte i; do :: i < 200 -> i++ :: else -> break od
#else
  x == 1
#endif
}
init { atomic { run P(); run Q() } }
"""


def self_test():
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "toy.pml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(TOY)
        broken = os.path.join(folder, "broken.pml")
        with open(broken, "w", encoding="utf-8") as file:
            file.write(TOY.replace("init {", "init"))
        for expected, made in (("pass", search(path, [], "pass")), ("wedge", search(path, ["-DMUT_WAITS"], "wedge")),
                               ("assert", search(path, ["-DMUT_ASSERTS"], "pass")),
                               ("unfinished", search(path, ["-DLONG_WAY"], "pass", depth=50)),
                               ("spin refuses it", search(broken, [], "pass"))):
            if made[0] != expected:
                failures.append(f"expected {expected}, got {made}")
    line = ("toy", "pass", False, [])
    for cases, faults in (([line], 2), ([line, ("toy", "wedge", False, ["-DMUT_WAITS", "-DMUT_ASSERTS"])], 0),
                          ([line, ("toy", "wedge", False, ["-DMUT_WAITS", "-DMUT_ASSERTS", "-DMUT_TYPO"])], 1),
                          ([("toy", "wedge", False, ["-DMUT_WAITS", "-DMUT_ASSERTS"])], 1)):
        found = table_faults("toy", TOY, cases)
        if len(found) != faults:
            failures.append(f"expected {faults} faults in the table, found {found}")
    try:
        read_cases("toy passes\n")
        failures.append("a line that is no case was read")
    except ValueError:
        pass
    for failure in failures:
        print(failure)
    print(f"self-test: {len(failures)} failures")
    return 1 if failures else 0


def main():
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 2
    if shutil.which("spin") is None:
        print("spin is not installed: tools/setup/install_packages")
        return 77
    if arguments == ["--self-test"]:
        return self_test()
    return run_cases(arguments[0], arguments[1:] == ["--long"])


if __name__ == "__main__":
    sys.exit(main())
