#!/bin/sh
# How the crate finds the library: by SUTRA_EMBED_LIB_DIR, by pkg-config in a private prefix, dynamically and statically;
# and what it says where there is none. Each program is run: it must say that nothing listens.
#   build_script.sh CARGO SOURCE_DIR BUILD_DIR CMAKE
set -eu
cargo=$1 source=$2 build=$3 cmake=$4
# shellcheck source=tests/rust/cargo_env.sh
. "$source/tests/rust/cargo_env.sh"
unset LD_LIBRARY_PATH SUTRA_EMBED_LINK
prefix=$work/prefix
target=$work/target-build-script
rm -rf "$prefix"
"$cmake" --install "$build" --prefix "$prefix" --component client > "$work/install.log"
lib=$(dirname "$(find "$prefix" -name libsutra_embed.so)")
cd "$source/producer/rust"

build() {
  "$cargo" build --offline --locked --example cached --target-dir "$target" > "$work/build.log" 2>&1
}
built() { # LABEL NEEDS_THE_LIBRARY
  build || { echo "$1 does not build:"; cat "$work/build.log"; exit 1; }
  if "$target/debug/examples/cached" "$work/no-socket" > "$work/out" 2>&1; then
    echo "$1: it succeeded without an engine"
    exit 1
  fi
  grep -q "nothing listens" "$work/out" || { echo "$1 says:"; cat "$work/out"; exit 1; }
  if readelf -d "$target/debug/examples/cached" | grep -q 'NEEDED.*libsutra_embed'; then needs=yes; else needs=no; fi
  [ "$needs" = "$2" ] || { echo "$1: does it need libsutra_embed.so? $needs"; exit 1; }
}
refused() { # LABEL WORDS
  if build; then
    echo "$1: it builds"
    exit 1
  fi
  grep -q "$2" "$work/build.log" || { echo "$1 says:"; cat "$work/build.log"; exit 1; }
  grep -q "Build the client library" "$work/build.log" || { echo "$1 does not say what to do"; exit 1; }
}

export SUTRA_EMBED_LIB_DIR="$lib"
built "a directory" yes
SUTRA_EMBED_LINK=static && export SUTRA_EMBED_LINK
built "a directory, statically" no
SUTRA_EMBED_LINK=both
refused "an unknown kind" "dynamic or static, not 'both'"
unset SUTRA_EMBED_LINK
SUTRA_EMBED_LIB_DIR=$work/home
refused "an empty directory" "no libsutra_embed.so or .a in"
unset SUTRA_EMBED_LIB_DIR
refused "neither" "SUTRA_EMBED_LIB_DIR is not set"
export PKG_CONFIG_PATH="$lib/pkgconfig"
built "pkg-config" yes
echo "ok: found by directory and by pkg-config, linked dynamically and statically"
