#!/usr/bin/env bash
# cpack makes one archive per component, and each holds its files and no other's. The same as Debian packages, where
# dpkg-shlibdeps can tell what they depend on.
#   cpack_test.sh BUILD_DIR CPACK
set -euo pipefail
build=$1
cpack=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

declare -A expected=(
  [client]='include/sutra/embed\.h|include/sutra/embed\.hpp|libsutra_embed\.so\.1|libsutra_embed\.a|SutraEmbedConfig\.cmake|sutra-embed\.pc'
  [engine]='bin/sutra-engine'
  [tools]='bin/sutra-stat|bin/sutra-embed|bin/sutra-cache|bin/sutra-casestudy'
)

[[ -f $build/lib/libsutra_torch.so ]] && expected[engine]+='|lib/sutra/libsutra_torch\.so'

# check_names COMPONENT FILE_LIST
check_names() {
  local component=$1 other name
  for name in $(tr '|' ' ' <<<"${expected[$component]}"); do
    grep -qE "$name\$" <<<"$2" || fail "the package $component lacks $name"
  done
  for other in "${!expected[@]}"; do
    [[ $other == "$component" ]] && continue
    if grep -qE "(${expected[$other]})\$" <<<"$2"; then fail "the package $component holds a file of $other"; fi
  done
}

run_cpack() {
  "$cpack" -G "$1" --config "$build/CPackConfig.cmake" -B "$work/$1" >"$work/log" 2>&1 ||
    { cat "$work/log"; fail "cpack -G $1"; }
}

run_cpack TGZ
for component in "${!expected[@]}"; do
  archive=$(find "$work/TGZ" -maxdepth 1 -name "sutra-*-$component.tar.gz")
  if [[ -f $archive ]]; then check_names "$component" "$(tar -tzf "$archive")"; else fail "no archive of $component"; fi
done
count=$(find "$work/TGZ" -maxdepth 1 -name '*.tar.gz' | wc -l)
((count == 3)) || fail "$count archives, not 3"

# The canary: the check notices a missing and a foreign file.
noticed=$(check_names tools $'x/bin/sutra-stat\nx/bin/sutra-embed\nx/bin/sutra-cache\nx/bin/sutra-engine' | grep -c FAILED)
((noticed == 2)) || fail "a missing and a foreign file gave $noticed findings"

if command -v dpkg-shlibdeps >/dev/null && command -v file >/dev/null; then
  run_cpack DEB
  for component in "${!expected[@]}"; do
    package=$(find "$work/DEB" -maxdepth 1 -name "sutra-${component}_*.deb")
    if [[ ! -f $package ]]; then fail "no Debian package of $component"; continue; fi
    check_names "$component" "$(dpkg-deb -c "$package" | awk '{ print $6 }')"
    [[ $(dpkg-deb -f "$package" Depends) == *libc6* ]] || fail "the package of $component does not depend on libc6"
  done
fi

echo "$failures failures"
((failures == 0))
