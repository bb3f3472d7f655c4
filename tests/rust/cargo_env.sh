# shellcheck shell=sh disable=SC2154
# Sourced with cargo, source and build set: the tools beside this cargo, the client library and the engine of the build.
# Sets work, the folder for everything that is written.
[ -x "$cargo" ] || { echo "skipped: there is no cargo (tools/setup/install_packages brings it)"; exit 77; }
tools=$(dirname "$cargo")
for name in rustc rustdoc; do
  [ -x "$tools/$name" ] || { echo "skipped: there is no $name beside $cargo"; exit 77; }
done
work=$build/rust
mkdir -p "$work/home"
export RUSTC="$tools/rustc" RUSTDOC="$tools/rustdoc" CARGO_HOME="$work/home"
unset RUSTFLAGS RUSTDOCFLAGS CARGO_TARGET_DIR RUSTC_WRAPPER PKG_CONFIG_PATH
export SUTRA_EMBED_LIB_DIR="$build/lib" LD_LIBRARY_PATH="$build/lib" SUTRA_TEST_ENGINE="$build/bin/sutra-engine"
