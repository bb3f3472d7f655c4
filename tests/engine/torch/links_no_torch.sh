#!/usr/bin/env bash
# Fails if an ELF file needs a library of torch.
set -euo pipefail
needed=$(readelf -d "$1" | grep NEEDED)
echo "$needed"
! grep -qE 'torch|c10' <<<"$needed"
