#!/bin/sh
# Installs the client into an empty prefix and builds the example outside of this tree: once by pkg-config with a plain
# C compiler, once by find_package. Both run against a socket where nothing listens and must say so.
#   install_smoke.sh BUILD_DIR SOURCE_DIR CMAKE
set -eu
build=$1
source=$2
cmake=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/prefix" --component client > "$work/install.log"
library_dir=$(dirname "$(find "$work/prefix" -name 'libsutra_embed.so')")
PKG_CONFIG_PATH=$library_dir/pkgconfig
export PKG_CONFIG_PATH

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
  $(pkg-config --cflags --libs sutra-embed) -Wl,-rpath,"$library_dir"
expect_engine_gone "$work/plain/example"

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
