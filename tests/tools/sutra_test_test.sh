#!/bin/sh
# The function sutra_test in a project of its own: tests get their prefix, an executable without tests fails the build.
#   sutra_test_test.sh SOURCE_DIR CMAKE
set -eu
source=$1
cmake=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/CMakeLists.txt" << LISTS
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES CXX)
enable_testing()
find_package(GTest REQUIRED)
include(GoogleTest)
include($source/tests/sutra_test.cmake)
add_library(sutra_options INTERFACE)
set(SUTRA_TEST_PREFIX here/)
sutra_test(one_test SOURCES one.cc LABELS long)
sutra_test(empty_test SOURCES empty.cc)
sutra_test(waits_test SOURCES waits.cc WAITING Waits.* *.Also*)
sutra_test(gone_test SOURCES waits.cc WAITING Waits.* WAITING_UNLESS_TSAN Gone.*)
sutra_script_test(Script.Skips COMMAND sh -c "exit 77" LABELS long)
LISTS
printf '#include <gtest/gtest.h>\nTEST(Suite, One) {}\n' > "$work/one.cc"
printf '#include <gtest/gtest.h>\nTEST(Waits, One) {}\nTEST(Suite, AlsoWaits) {}\nTEST(Suite, Computes) {}\n' > "$work/waits.cc"
: > "$work/empty.cc"
"$cmake" -S "$work" -B "$work/build" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

"$cmake" --build "$work/build" --target one_test > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
ctest --test-dir "$work/build" -L '^long$' > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
grep -q 'here/Suite.One .*Passed' "$work/log" || { echo "here/Suite.One did not run:" >&2; cat "$work/log" >&2; exit 1; }
grep -q 'here/Script.Skips .*Skipped' "$work/log" || { echo "exit 77 did not skip:" >&2; cat "$work/log" >&2; exit 1; }

"$cmake" --build "$work/build" --target waits_test > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
# Two tests that wait run beside one that computes.
ctest --test-dir "$work/build" --show-only=json-v1 | python3 -c '
import json, sys
cores = {test["name"]: {p["name"]: p["value"] for p in test["properties"]}.get("PROCESSORS", 1) for test in json.load(sys.stdin)["tests"]
         if "NOT_BUILT" not in test["name"]}
sys.exit(cores != {"here/Waits.One": 1, "here/Suite.AlsoWaits": 1, "here/Suite.Computes": 2, "here/Suite.One": 2,
                   "here/Script.Skips": 2} and f"other half cores than expected: {cores}")'

if "$cmake" --build "$work/build" --target empty_test > "$work/log" 2>&1; then
  echo "an executable without tests was built" >&2
  exit 1
fi
grep -q 'empty_test lists no tests' "$work/log" || { echo "another error was expected:" >&2; cat "$work/log" >&2; exit 1; }
if "$cmake" --build "$work/build" --target gone_test > "$work/log" 2>&1; then
  echo "an executable was built whose pattern matches no test" >&2
  exit 1
fi
grep -q 'gone_test lists no tests for Gone' "$work/log" || { echo "another error was expected:" >&2; cat "$work/log" >&2; exit 1; }
echo ok
