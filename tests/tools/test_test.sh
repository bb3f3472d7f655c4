#!/usr/bin/env bash
# tools/test on made-up build folders: all of them as one list, failures noticed, `long` apart, the summary last.
set -euo pipefail
repo=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# in_tools_test COMMAND...: a function of tools/test in a shell of its own, which ends at the first error as tools/test does;
# bash ignores set -e on the left of ||.
in_tools_test() { bash -c 'source "$1/tools/test"; shift; "$@"' bash "$repo" "$@"; }

# build NAME [TITLE COMMAND PROPERTIES]...: a folder as CMake would leave it.
build() {
  local file=$work/$1/CTestTestfile.cmake
  mkdir -p "$work/$1"
  : >"$file"
  shift
  while (($# > 0)); do
    printf 'add_test([=[%s]=] "/bin/sh" "-c" [=[%s]=])\n' "$1" "$2" >>"$file"
    printf 'set_tests_properties([=[%s]=] PROPERTIES LABELS "%s" SKIP_RETURN_CODE 77)\n' "$1" "$3" >>"$file"
    shift 3
  done
}

# expect CODE DESCRIPTION RUN_TESTS_ARGUMENT...: leaves the output in $output.
expect() {
  local expected=$1 what=$2 code=0
  shift 2
  output=$(in_tools_test run_tests "$work/all" "$@") || code=$?
  ((code == 0)) && code=ok || code=failed
  [[ $code == "$expected" ]] || fail "$what: $code, expected $expected"$'\n'"$output"
}
says() { grep -qE "$1" <<<"$output" || fail "the output lacks: $1"$'\n'"$output"; }

build one one/A.Right true "" one/A.Slow true long
build 'two with a space' two/A.Right true ""
build bad bad/A.Wrong 'echo because; false' ""
build skips skips/A.Skips 'echo "x_test.cc:7: Skipped"; echo "no foo here"; exit 77' ""
build empty
normal=(-LE '^long$')

expect ok "two good builds" "${normal[@]}" -- "$work/one" "$work/two with a space"
says 'one/A\.Right'
says 'two/A\.Right'
says ' s  (one|two)/A\.Right'
[[ $(tail -n 3 <<<"$output" | grep -cE '^100% tests passed, 0 tests failed out of 2$|^Total Test time') == 2 ]] || fail "the summary is not last"
if grep -q A.Slow <<<"$output"; then fail "a long test runs with the others"; fi

expect ok "--long" -L '^long$' -- "$work/one" "$work/two with a space"
says 'one/A\.Slow'
says 'out of 1$'

expect failed "one failure" "${normal[@]}" -- "$work/one" "$work/bad"
says 'because'
says 'bad/A\.Wrong \(Failed\)'
says '^50% tests passed, 1 tests failed out of 2'

expect ok "a skip" "${normal[@]}" -- "$work/one" "$work/skips"
says ' 1 x no foo here'
says 'skips/A\.Skips \(Skipped\)'

expect failed "a build without tests" "${normal[@]}" -- "$work/empty"
expect failed "a pattern that no name matches" -R Nothing -- "$work/one"
expect failed "a folder that is not there" "${normal[@]}" -- "$work/no-such-build"

# A list longer than a pipe holds: nothing that comes before the summary may end the run.
awk 'BEGIN { for (i = 0; i < 20000; ++i) printf "1/2 Test: many/A.Number%d\nTest time = %d.00 sec\n", i, i }' >"$work/many.log"
output=$(echo "100% tests passed, 0 failed" | in_tools_test with_report "$work/many.log") || fail "a long list ends the run"
says '19999\.00 s  many/A\.Number19999'
says '^100% tests passed'

echo "$failures failures"
((failures == 0))
