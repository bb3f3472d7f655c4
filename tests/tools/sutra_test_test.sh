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
sutra_script_test(Script.Skips COMMAND sh -c "exit 77" LABELS long)
LISTS
printf '#include <gtest/gtest.h>\nTEST(Suite, One) {}\n' > "$work/one.cc"
: > "$work/empty.cc"
"$cmake" -S "$work" -B "$work/build" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

"$cmake" --build "$work/build" --target one_test > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
ctest --test-dir "$work/build" -L '^long$' > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
grep -q 'here/Suite.One .*Passed' "$work/log" || { echo "here/Suite.One did not run:" >&2; cat "$work/log" >&2; exit 1; }
grep -q 'here/Script.Skips .*Skipped' "$work/log" || { echo "exit 77 did not skip:" >&2; cat "$work/log" >&2; exit 1; }

if "$cmake" --build "$work/build" --target empty_test > "$work/log" 2>&1; then
  echo "an executable without tests was built" >&2
  exit 1
fi
grep -q 'empty_test lists no tests' "$work/log" || { echo "another error was expected:" >&2; cat "$work/log" >&2; exit 1; }
echo ok
