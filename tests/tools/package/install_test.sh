#!/usr/bin/env bash
# Installs everything into an empty prefix, as an administrator would, and runs it as another user: every library is
# found through $ORIGIN or the system's own folders, never in a home directory, a cache or the build.
#   install_test.sh BUILD_DIR CMAKE
set -euo pipefail
build=$1
cmake=$2
work=$(mktemp -d)
engine=
trap '[[ -z $engine ]] || kill -KILL "$engine" 2>/dev/null; rm -rf "$work"' EXIT
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

# A command and not a function, so that what runs in the background is the program itself.
as_other_user=(env -u LD_LIBRARY_PATH HOME=/nonexistent)
((EUID == 0)) && as_other_user=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "${as_other_user[@]}")

(umask 022 && "$cmake" --install "$build" --prefix "$work/prefix") >"$work/log" || { cat "$work/log"; fail "it does not install"; }
for file in include/sutra/embed.h include/sutra/embed.hpp lib/libsutra_embed.a lib/libsutra_embed.so.1; do
  find "$work/prefix" -path "*/$(basename "$(dirname "$file")")*/$(basename "$file")" | grep -q . || fail "$file is not installed"
done
for program in sutra-engine sutra-stat sutra-embed sutra-cache sutra-casestudy; do
  [[ -x $work/prefix/bin/$program ]] || fail "$program is not installed"
done

mapfile -t elf_files < <(find "$work/prefix" -type f -exec sh -c 'head -c 4 "$1" | grep -q ELF' sh {} \; -print)
((${#elf_files[@]} >= 5)) || fail "only ${#elf_files[@]} programs and libraries are installed"
foreign=$(foreign_paths "${elf_files[@]}")
[[ -z $foreign ]] || fail "run paths that another user may not be able to follow:"$'\n'"$foreign"

# The engine starts without libtorch: what the plug-in needs is not looked up before it is loaded.
"${as_other_user[@]}" "$work/prefix/bin/sutra-engine" --version >"$work/out" 2>&1 || fail "sutra-engine --version: $(cat "$work/out")"
grep -qE '[0-9]+\.[0-9]+\.[0-9]+' "$work/out" || fail "sutra-engine --version says: $(cat "$work/out")"
for program in sutra-stat sutra-embed sutra-cache sutra-casestudy; do
  "${as_other_user[@]}" "$work/prefix/bin/$program" --help >"$work/out" 2>&1 || fail "$program --help: $(cat "$work/out")"
done

# It serves, and the installed tools use it: all of them as the other user.
mkdir "$work/run"
((EUID == 0)) && chown 65534:65534 "$work/run"
"${as_other_user[@]}" "$work/prefix/bin/sutra-engine" --backend fake --socket "$work/run/sock" --data "$work/run/data" \
  >"$work/engine.log" 2>&1 &
engine=$!
for ((i = 0; i < 300; i++)); do
  grep -q "serving fake" "$work/engine.log" && break
  kill -0 "$engine" 2>/dev/null || break
  sleep 0.1
done
printf 'one\ntwo\nthree\n' >"$work/texts"
"${as_other_user[@]}" "$work/prefix/bin/sutra-embed" --socket "$work/run/sock" <"$work/texts" >"$work/vectors" 2>"$work/out" ||
  fail "sutra-embed: $(cat "$work/out" "$work/engine.log")"
[[ $(wc -l <"$work/vectors") == 3 ]] || fail "three texts, $(wc -l <"$work/vectors") vectors"
"${as_other_user[@]}" "$work/prefix/bin/sutra-stat" --socket "$work/run/sock" >"$work/out" 2>&1 || fail "sutra-stat: $(cat "$work/out")"
"${as_other_user[@]}" "$work/prefix/bin/sutra-cache" stats --socket "$work/run/sock" >"$work/out" 2>&1 || fail "sutra-cache: $(cat "$work/out")"
kill -TERM "$engine" 2>/dev/null || true
wait "$engine" || fail "the engine ended with $?: $(cat "$work/engine.log")"
engine=
"${as_other_user[@]}" "$work/prefix/bin/sutra-stat" --remove --socket "$work/run/sock" >/dev/null 2>&1 || true

# The canary: a program that looks for its libraries in the build.
echo 'int main() { return 0; }' >"$work/canary.c"
cc -o "$work/canary" "$work/canary.c" "-Wl,-rpath,\$ORIGIN/../lib:$build/lib"
[[ $(foreign_paths "$work/canary") == *"$build/lib" ]] || fail "a run path into the build is not noticed"

echo "${#elf_files[@]} programs and libraries, $failures failures"
((failures == 0))
