#!/usr/bin/env python3
"""Runs the ctest tests of several build folders as one: NAME=FOLDER ... become tests "NAME/test".

Prints the ten slowest tests, the skipped ones with their reasons, the failures with their output, and ends with ctest's
own summary. Exit code: ctest's; 1 also when there was no test at all.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

PREFIXED = {"DEPENDS", "FIXTURES_SETUP", "FIXTURES_REQUIRED", "FIXTURES_CLEANUP"}  # values that name tests or fixtures


def bracket(value):
    """A CMake bracket argument: no escapes, so any value passes unchanged."""
    level = 0
    while f"]{'=' * level}]" in value or value.endswith("]"):
        level += 1
        if level > 9:
            break
    return f"[{'=' * (level + 1)}[{value}]{'=' * (level + 1)}]"


def property_text(name, value, prefix):
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    values = value if isinstance(value, list) else [value]
    if name in PREFIXED:
        values = [prefix + str(v) for v in values]
    if name == "ENVIRONMENT_MODIFICATION" or all(not isinstance(v, (dict, list)) for v in values):
        return ";".join(str(v) for v in values)
    return None


def merged_file(builds):
    lines, count = [], 0
    for name, folder in builds:
        shown = subprocess.run(["ctest", "--test-dir", folder, "--show-only=json-v1"], check=True, text=True,
                               stdout=subprocess.PIPE).stdout
        for test in json.loads(shown)["tests"]:
            title = bracket(f"{name}/{test['name']}")
            command = test.get("command") or ["missing-test-program"]
            lines.append(f"add_test({title} {' '.join(bracket(part) for part in command)})")
            for entry in test.get("properties", []):
                text = property_text(entry["name"], entry["value"], name + "/")
                if text is not None:
                    lines.append(f"set_tests_properties({title} PROPERTIES {entry['name']} {bracket(text)})")
            count += 1
    return "\n".join(lines) + "\n", count


def skip_reason(case):
    output = case.findtext("system-out") or ""
    found = re.search(r": Skipped\n(.*?)(?:\n\n|\n\[)", output, re.S)
    return " ".join(found.group(1).split()) if found else case.find("skipped").get("message", "no reason given")


def report(junit):
    try:
        cases = ElementTree.parse(junit).getroot().findall("testcase")
    except (OSError, ElementTree.ParseError):
        return
    slow = sorted(cases, key=lambda case: float(case.get("time", "0")), reverse=True)[:10]
    print("\nTen slowest tests:")
    for case in slow:
        print(f"  {float(case.get('time', '0')):7.2f} s  {case.get('name')}")
    reasons = {}
    for case in cases:
        if case.find("skipped") is not None:
            reasons.setdefault(skip_reason(case), []).append(case.get("name"))
    if reasons:
        print("\nSKIPPED:")
        for reason, names in reasons.items():
            print(f"  {reason}")
            for test in names:
                print(f"    {test}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, help="where the merged test list and the reports go")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-R", dest="pattern", help="only tests whose name matches")
    parser.add_argument("builds", nargs="+", metavar="NAME=FOLDER")
    arguments = parser.parse_args()
    builds = [build.split("=", 1) for build in arguments.builds]

    os.makedirs(arguments.folder, exist_ok=True)
    text, count = merged_file(builds)
    with open(os.path.join(arguments.folder, "CTestTestfile.cmake"), "w") as file:
        file.write(text)
    if count == 0:
        print("run_tests: no tests found")
        return 1
    junit = os.path.join(arguments.folder, "junit.xml")
    command = ["ctest", "--test-dir", arguments.folder, "-j", str(arguments.jobs), "--output-on-failure",
               "--no-tests=error", "--output-junit", junit]
    if arguments.pattern:
        command += ["-R", arguments.pattern]
    summary = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          stdin=subprocess.DEVNULL) as process:
        for line in process.stdout:
            # The last part is kept back, so that the summary is what the run ends with.
            if summary or re.match(r"\d+% tests passed", line):
                summary.append(line)
            else:
                sys.stdout.write(line)
                sys.stdout.flush()
    report(junit)
    failed = [line for line in summary if re.match(r"\t\s*\d+ - .*\((?!Skipped|Disabled|Not Run \(Disabled)[^()]*\)$", line.rstrip())]
    if failed and process.returncode != 0:
        print("\nFAILED:\n" + "".join(failed), end="")
    total = [line for line in summary if line.startswith("Total Test time")]
    print("\n" + "".join(total) + (summary[0] if summary else "ctest printed no summary\n"), end="")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
