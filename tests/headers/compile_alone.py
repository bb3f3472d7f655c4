#!/usr/bin/env python3
"""Compiles each header alone, twice in one file: it must include what it uses, and bear being included again.

The files lie beside LIST, where ccache, if it is there, knows again what it has found good.

usage: compile_alone.py COMPILER ROOT LIST [FLAG...]        LIST holds lines like  #include "shm/layout.h"
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile


LAUNCHER = ["ccache"] if shutil.which("ccache") else []


def errors_of(compiler, root, header, folder, flags=()):
    """The first error of a file in `folder` that includes only `header`; empty if there is none."""
    path = os.path.join(folder, header.replace("/", "_") + ".cc")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'#include "{header}"\n' * 2)
    command = [*LAUNCHER, compiler, "-std=c++20", "-fsyntax-only", "-I", root, "-I",
               os.path.join(root, "producer/include"), *flags, path]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode == 0:
        return ""
    errors = [text for text in done.stderr.splitlines() if "error:" in text]
    return errors[0] if errors else done.stderr.strip() or f"exit code {done.returncode}"


def canary_failures(compiler):
    """A header without its include, and one without a guard, must fail; a whole one must not."""
    cases = {
        "whole.h": ("#pragma once\n#include <string>\ninline std::string F() { return {}; }\n", True),
        "lacks_include.h": ("#pragma once\ninline std::string F() { return {}; }\n", False),
        "lacks_guard.h": ("struct Twice {};\n", False),
    }
    failures = []
    with tempfile.TemporaryDirectory() as root:
        for name, (text, good) in cases.items():
            with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                file.write(text)
            if (errors_of(compiler, root, name, root) == "") != good:
                failures.append(f"canary {name} should {'' if good else 'not '}compile")
    return failures


def main():
    compiler, root, list_path, *flags = sys.argv[1:]
    with open(list_path, encoding="utf-8") as file:
        headers = re.findall(r'#include "([^"]+)"', file.read())
    folder = os.path.join(os.path.dirname(list_path), "alone")
    os.makedirs(folder, exist_ok=True)
    failures = canary_failures(compiler)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for header, error in zip(headers, pool.map(lambda h: errors_of(compiler, root, h, folder, flags), headers)):
            if error:
                failures.append(f"{header}: {error}")
    for failure in failures:
        print(failure)
    print(f"{len(headers)} headers, {len(failures)} failures")
    return 1 if failures or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
