#!/bin/sh
# The shared client library needs libc only, stays loaded, and exports exactly what exports.txt lists.
#   library_check.sh libsutra_embed.so exports.txt
set -eu
library=$1
expected=$2

needed=$(readelf -dW "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
if [ "$needed" != "libc.so.6" ]; then
  echo "NEEDED entries are not libc.so.6 alone: $needed" >&2
  exit 1
fi

if ! readelf -dW "$library" | grep -q NODELETE; then
  echo "the library can be unloaded under its helper thread: link it with -z nodelete" >&2
  exit 1
fi

exports=$(nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort)
if [ "$exports" != "$(cat "$expected")" ]; then
  echo "exports differ from $expected:" >&2
  echo "$exports" | diff "$expected" - >&2 || true
  exit 1
fi
others=$(nm -D --defined-only "$library" | awk '$2 != "T" && $2 != "A"')
if [ -n "$others" ]; then
  echo "exports other than functions: $others" >&2
  exit 1
fi
echo "ok: $(echo "$exports" | wc -l) functions, needs $needed"
