#!/usr/bin/env bash
# Every shell script parses, explains itself and refuses what it does not know, without touching the host.
set -euo pipefail
repo=$1
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

scripts=()
while IFS= read -r file; do
  if head -n 1 "$file" | grep -q '^#!.*bash' || [[ $file == *.sh ]]; then scripts+=("$file"); fi
done < <(find "$repo/tools" "$repo/bench" "$repo/.ci" "$repo/tests" -maxdepth 3 -type f \( -name '*.sh' -o ! -name '*.*' \))
((${#scripts[@]} >= 10)) || fail "only ${#scripts[@]} scripts found"

for script in "${scripts[@]}"; do
  bash -n "$script" || fail "$script does not parse"
  grep -q 'set -euo pipefail' "$script" || [[ $script == *.sh ]] || fail "$script lacks set -euo pipefail"
done
if command -v shellcheck >/dev/null; then
  (cd "$repo" && shellcheck -x "${scripts[@]}") || fail "shellcheck has findings"
fi
# The canary: the same check finds a broken script.
if bash -n <(echo 'if true; then') 2>/dev/null; then fail "bash -n accepts a broken script"; fi

for script in quickstart test setup/install_packages setup/fetch_deps ../tests/aarch64/run; do
  grep -qi 'usage' <<<"$("$repo/tools/$script" --help)" || fail "$script --help says no usage"
done
for script in quickstart test ../tests/aarch64/run; do
  if "$repo/tools/$script" --no-such-option >/dev/null 2>&1; then fail "$script accepts --no-such-option"; fi
done
packages=$("$repo/tools/setup/install_packages" --print)
for package in libboost-dev clang clang-format; do
  grep -qx "$package" <<<"$packages" || fail "install_packages --print lacks $package"
done
grep -qx redis-server <<<"$packages" && fail "install_packages takes a package that only a benchmark needs"
grep -qx redis-server <<<"$("$repo/tools/setup/install_packages" --print redis-server)" ||
  fail "install_packages does not take a package that is named"

# libtorch is fetched for a CPU without AVX2 or FMA only.
# shellcheck source=tools/setup/script_common.sh
source "$repo/tools/setup/script_common.sh"
if cpu_needs_torch <(echo "flags : fpu fma avx2 avx512f"); then
  fail "a CPU with AVX2 and FMA needs libtorch"
fi
cpu_needs_torch <(echo "flags : fpu avx avx2 fma4") || fail "a CPU without FMA needs no libtorch"

# Without a package source the tests of aarch64 are skipped, with the reason; nothing half done is left to be used.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
printf '#!/bin/sh\necho "no network" >&2\nexit 100\n' >"$work/bin/apt-get"
printf '#!/bin/sh\necho install ok installed\n' >"$work/bin/dpkg-query"
printf '#!/bin/sh\necho 12\n' >"$work/bin/aarch64-linux-gnu-g++"
chmod +x "$work/bin/"*
for attempt in first second; do
  code=0
  said=$(PATH=$work/bin:$PATH SUTRA_AARCH64_DIR=$work/libraries "$repo/tests/aarch64/run" --build) || code=$?
  ((code == 77)) || fail "aarch64/run without packages, $attempt time: exit code $code, not 77"
  for text in "no network" "skipped: Debian's arm64 libraries cannot be downloaded"; do
    grep -qF "$text" <<<"$said" || fail "aarch64/run without packages does not say '$text': $said"
  done
done

echo "${#scripts[@]} scripts, $failures failures"
((failures == 0))
