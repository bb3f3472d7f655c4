#!/usr/bin/env python3
"""Compares the names of the steps of moving, draining and releasing in the models of this folder with the sources.

usage: check_steps.py              every move.*, drain.* and release.* of a .pml is the name of a checkpoint, or stands in a
                                   comment, in some .h or .cc of producer/ or engine/; and every such checkpoint stands
                                   in a model
       check_steps.py --self-test  shows that the check itself can fail
Exit code 1 if a name is on one side only.
"""

import os
import re
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FOLDERS = ("producer", "engine")
STEP = re.compile(r"\b(?:move|drain|release)\.[a-z_]+\b(?!\()")
CHECKPOINT = re.compile(r'SUTRA_CHECKPOINT\("((?:move|drain|release)\.[a-z_]+)"\)')
SAID = re.compile(r'SUTRA_CHECKPOINT\("[^"]*"\)|//[^\n]*')


def texts(folder, endings):
    found = {}
    for where, _, names in os.walk(folder):
        for name in sorted(names):
            if name.endswith(endings):
                path = os.path.join(where, name)
                with open(path, encoding="utf-8") as file:
                    found[path] = file.read()
    return found


def compare(models, sources):
    """The faults: names on one side only, each with where it stands."""
    in_models, said, checkpoints = {}, set(), {}
    for path, text in models.items():
        for step in STEP.findall(text):
            in_models.setdefault(step, os.path.basename(path))
    for path, text in sources.items():
        for part in SAID.findall(text):
            said.update(STEP.findall(part))
        for step in CHECKPOINT.findall(text):
            checkpoints.setdefault(step, path)
    faults = [f"{where}: {step} is no checkpoint and in no comment" for step, where in in_models.items() if step not in said]
    faults += [f"{where}: checkpoint {step} is in no model" for step, where in checkpoints.items() if step not in in_models]
    if not in_models:
        faults.append("no model names a step")
    return sorted(faults)


def check():
    sources = {}
    for folder in FOLDERS:
        sources.update(texts(os.path.join(ROOT, folder), (".h", ".cc")))
    faults = compare(texts(HERE, (".pml",)), {os.path.relpath(path, ROOT): text for path, text in sources.items()})
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults; looked in {len(sources)} files (.h, .cc) of {', '.join(FOLDERS)}")
    return 1 if faults else 0


def self_test():
    model = {"toy.pml": "gone = true; /* move.gone */\nx = 1 /* drain.closed */"}
    point, comment = {"a.cc": '(void)SUTRA_CHECKPOINT("move.gone");'}, {"b.h": "// drain.closed: under the mutex"}
    failures = []
    for sources, expected in (({**point, **comment}, 0), (point, 1), ({}, 2), ({**comment, "a.cc": "move.gone();"}, 1),
                              ({**point, **comment, "c.cc": 'SUTRA_CHECKPOINT("move.forgotten")'}, 1)):
        found = compare(model, sources)
        if len(found) != expected:
            failures.append(f"expected {expected} faults, found {found}")
    if not compare({}, point):
        failures.append("no model, no fault")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "x.pml"), "w", encoding="utf-8") as file:
            file.write("move.gone")
        if list(texts(folder, (".pml",)).values()) != ["move.gone"] or texts(folder, (".cc",)):
            failures.append("did not read the folder")
    for failure in failures:
        print(failure)
    print(f"self-test: {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(self_test() if sys.argv[1:] == ["--self-test"] else check())
