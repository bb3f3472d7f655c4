#!/bin/sh
# Installs the client into an empty prefix, moves that, and builds the example outside of this tree: by pkg-config with a
# plain C compiler, shared and static, and by find_package. All run, without further help, against a socket where nothing listens and must say so.
#   install_smoke.sh BUILD_DIR SOURCE_DIR CMAKE
set -eu
build=$1
source=$2
cmake=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Moved after it was installed, as a tree that is unpacked somewhere is.
"$cmake" --install "$build" --prefix "$work/first" --component client > "$work/install.log"
mv "$work/first" "$work/prefix"
library_dir=$(dirname "$(find "$work/prefix" -name 'libsutra_embed.so')")
PKG_CONFIG_PATH=$library_dir/pkgconfig
export PKG_CONFIG_PATH
unset LD_LIBRARY_PATH

expect_engine_gone() {
  if "$@" "$work/no-socket" > "$work/out" 2>&1; then
    echo "$1 succeeded without an engine" >&2
    exit 1
  fi
  grep -q "nothing listens" "$work/out" || { echo "unexpected output of $1:" >&2; cat "$work/out" >&2; exit 1; }
}

mkdir "$work/plain"
# shellcheck disable=SC2046
cc -std=c11 -pedantic-errors -Wall -Werror -o "$work/plain/example" "$source/producer/examples/embed_one.c" \
  $(pkg-config --cflags --libs sutra-embed)
expect_engine_gone "$work/plain/example"
needed=$(readelf -dW "$work/plain/example" | sed -n 's/.*(NEEDED).*\[\(libsutra.*\)\]/\1/p')
[ "$needed" = libsutra_embed.so.1 ] || { echo "the program needs '$needed', not the library's SONAME" >&2; exit 1; }
# shellcheck disable=SC2046
cc -std=c11 -static -o "$work/plain/example_static" "$source/producer/examples/embed_one.c" \
  $(pkg-config --cflags --libs --static sutra-embed)
expect_engine_gone "$work/plain/example_static"
if readelf -dW "$work/plain/example_static" | grep -q NEEDED; then echo "-static still needs libraries" >&2; exit 1; fi

# In a prefix where the loader looks by itself, a run path would only be in the way of a package.
DESTDIR="$work/staged" "$cmake" --install "$build" --prefix /usr --component client > "$work/install.log"
staged=$(find "$work/staged/usr" -name sutra-embed.pc)
if grep -q rpath "$staged"; then echo "a run path for /usr:" >&2; cat "$staged" >&2; exit 1; fi
# The canary: without the run path the program of a private prefix does not find its library.
# shellcheck disable=SC2046
cc -std=c11 -o "$work/plain/canary" "$source/producer/examples/embed_one.c" \
  $(pkg-config --cflags --libs sutra-embed | sed 's/-Wl,-rpath,[^ ]*//')
if "$work/plain/canary" "$work/no-socket" 2>&1 | grep -q "nothing listens"; then
  echo "the canary found a library of the system's: this test sees nothing" >&2
  exit 1
fi

mkdir "$work/cmake"
cat > "$work/cmake/CMakeLists.txt" << LISTS
cmake_minimum_required(VERSION 3.25)
project(outside LANGUAGES C CXX)
find_package(SutraEmbed 0.1 REQUIRED)
add_executable(example embed_one.c)
target_link_libraries(example PRIVATE sutra::client)
add_executable(example_static main.cc)
target_link_libraries(example_static PRIVATE sutra::client_static)
LISTS
cp "$source/producer/examples/embed_one.c" "$work/cmake/"
cat > "$work/cmake/main.cc" << 'MAIN'
#include <sutra/embed.hpp>
#include <cstdio>
int main(int, char** arguments) {
  sutra::embed::Client client;
  if (client.Attach(arguments[1]) == SUTRA_OK) return 0;
  std::puts(client.ErrorText());
  return 1;
}
MAIN
"$cmake" -S "$work/cmake" -B "$work/cmake/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_STANDARD=17 > "$work/configure.log" ||
  { cat "$work/configure.log" >&2; exit 1; }
"$cmake" --build "$work/cmake/build" > "$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
expect_engine_gone "$work/cmake/build/example"
expect_engine_gone "$work/cmake/build/example_static"
echo "ok: pkg-config and find_package"
