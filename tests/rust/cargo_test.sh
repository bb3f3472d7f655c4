#!/bin/sh
# Runs tests of a crate of producer/rust against the library and the engine of a build, offline, with everything that is
# written under BUILD_DIR/rust. Exit code 77, which skips the test, if the system has no cargo or lacks a package.
#   cargo_test.sh CARGO SOURCE_DIR BUILD_DIR CRATE [ARGUMENT_OF_CARGO_TEST...]
# CRATE is the folder under producer/rust, `.` for sutra-embed itself.
set -eu
cargo=$1 source=$2 build=$3 crate=$4
shift 4
# shellcheck source=tests/rust/cargo_env.sh
. "$source/tests/rust/cargo_env.sh"

folder=$source/producer/rust/$crate
locked=--locked
if grep -q '^tokio = ' "$folder/Cargo.toml"; then
  registry=/usr/share/cargo/registry
  ls -d "$registry"/tokio-1.* > /dev/null 2>&1 || { echo "skipped: no tokio in $registry (librust-tokio-dev)"; exit 77; }
  # Its lock file is made for the versions that are there.
  rm -rf "${work:?}/$crate"
  cp -pR "$folder" "$work/$crate"
  sed -i "s|path = \"\\.\\.\"|path = \"$source/producer/rust\"|" "$work/$crate/Cargo.toml"
  for file in "$work/$crate"/tests/*.rs; do
    sed -i "s|#\\[path = \"\\.\\./\\.\\./|#[path = \"$source/producer/rust/|" "$file"
  done
  folder=$work/$crate
  locked=
  set -- --config 'source.crates-io.replace-with="debian"' --config "source.debian.directory=\"$registry\"" "$@"
fi
cd "$folder"
exec "$cargo" test --offline $locked --target-dir "$work/target" "$@"
