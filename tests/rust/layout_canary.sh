#!/bin/sh
# The canary of the layout test: a header with two fields exchanged, one number changed and one more function must fail
# three of its tests.
#   layout_canary.sh CARGO SOURCE_DIR BUILD_DIR
set -eu
cargo=$1 source=$2 build=$3
# shellcheck source=tests/rust/cargo_env.sh
. "$source/tests/rust/cargo_env.sh"
include=$work/canary/sutra
mkdir -p "$include"
sed -e 's/^\( *\)uint32_t token_count;/\1uint32_t truncated;/;t' -e 's/^\( *\)uint32_t truncated;/\1uint32_t token_count;/' \
  -e 's/^#define SUTRA_FULL 2u/#define SUTRA_FULL 22u/' \
  -e 's/^SUTRA_API uint32_t sutra_abi_version(void);/&\nSUTRA_API uint32_t sutra_canary(void);/' \
  "$source/producer/include/sutra/embed.h" > "$include/embed.h"
SUTRA_EMBED_INCLUDE_DIR=$work/canary
export SUTRA_EMBED_INCLUDE_DIR
if "$source/tests/rust/cargo_test.sh" "$cargo" "$source" "$build" . --test layout > "$work/canary.log" 2>&1; then
  echo "a wrong header passes"
  exit 1
fi
for test in structures_are_laid_out constants_have every_function; do
  grep -q "test ${test}.* FAILED" "$work/canary.log" || { echo "$test does not fail:"; cat "$work/canary.log"; exit 1; }
done
echo "ok: three tests fail on a header that differs"
