#!/usr/bin/env bash
# Installs everything into an empty prefix, as an administrator would, and runs it as another user: every library is
# found through $ORIGIN or the system's own folders, never in a home directory, a cache or the build.
#   install_test.sh BUILD_DIR CMAKE
set -euo pipefail
build=$1
cmake=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# foreign_paths FILE...: the run paths that are not relative to the file itself.
foreign_paths() {
  local file
  for file in "$@"; do
    # shellcheck disable=SC2016  # $ORIGIN is for the loader
    readelf -dW "$file" | sed -nE 's/.*\((RPATH|RUNPATH)\).*\[(.*)\]/\2/p' | tr ':' '\n' | grep -v '^\$ORIGIN' | sed "s|^|$file: |" || true
  done
}

as_other_user() {
  if ((EUID == 0)); then
    setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all env -u LD_LIBRARY_PATH HOME=/nonexistent "$@"
  else
    env -u LD_LIBRARY_PATH HOME=/nonexistent "$@"
  fi
}

for component in client engine tools; do
  (umask 022 && "$cmake" --install "$build" --prefix "$work/prefix" --component "$component") >"$work/log" ||
    { cat "$work/log"; fail "component $component does not install"; }
done
for program in sutra-engine sutra-stat sutra-embed sutra-casestudy; do
  [[ -x $work/prefix/bin/$program ]] || fail "$program is not installed"
done

mapfile -t elf_files < <(find "$work/prefix" -type f -exec sh -c 'head -c 4 "$1" | grep -q ELF' sh {} \; -print)
((${#elf_files[@]} >= 5)) || fail "only ${#elf_files[@]} programs and libraries are installed"
foreign=$(foreign_paths "${elf_files[@]}")
[[ -z $foreign ]] || fail "run paths that another user may not be able to follow:"$'\n'"$foreign"

# The engine starts without libtorch: what the plug-in needs is not looked up before it is loaded.
as_other_user "$work/prefix/bin/sutra-engine" --version >"$work/out" 2>&1 || fail "sutra-engine --version: $(cat "$work/out")"
grep -qE '[0-9]+\.[0-9]+\.[0-9]+' "$work/out" || fail "sutra-engine --version says: $(cat "$work/out")"
for program in sutra-stat sutra-embed sutra-casestudy; do
  as_other_user "$work/prefix/bin/$program" --help >"$work/out" 2>&1 || fail "$program --help: $(cat "$work/out")"
done

# The canary: a program that looks for its libraries in the build.
echo 'int main() { return 0; }' >"$work/canary.c"
cc -o "$work/canary" "$work/canary.c" "-Wl,-rpath,\$ORIGIN/../lib:$build/lib"
[[ $(foreign_paths "$work/canary") == *"$build/lib" ]] || fail "a run path into the build is not noticed"

echo "${#elf_files[@]} programs and libraries, $failures failures"
((failures == 0))
