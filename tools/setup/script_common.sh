# shellcheck shell=bash
# What quickstart, test and bench/run share: paths, progress with elapsed seconds, an engine of their own.
# Sourced, never run; the caller has set -euo pipefail.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034  # used by the scripts that source this
jobs=$(nproc)

say() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Runs a command quietly; shows its last lines only when it fails.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 40 "$log" >&2
    rm -f "$log"
    die "failed: $*"
  fi
  rm -f "$log"
}

# cpu_needs_torch CPUINFO: whether the engine's `auto` uses libtorch there: its own kernels are fast with AVX2 and FMA.
cpu_needs_torch() {
  (($(grep -owE 'avx2|fma' "$1" | sort -u | wc -l) < 2))
}

# prepare_host model [torch]: packages and the model; libtorch (0.5 GB) if asked for or if the engine needs it here.
# Sets SUTRA_DEPS_DIR, model_dir and with_torch.
prepare_host() {
  local fetch_deps=$repo/tools/setup/fetch_deps
  say "packages"
  "$repo/tools/setup/install_packages"
  SUTRA_DEPS_DIR=$("$fetch_deps" --print-dir)
  export SUTRA_DEPS_DIR
  model_dir=$SUTRA_DEPS_DIR/model/all-MiniLM-L6-v2
  say "model"
  "$fetch_deps" --quiet --model
  with_torch=ON
  if [[ ${2-} == torch ]] || cpu_needs_torch /proc/cpuinfo; then
    say "libtorch"
    "$fetch_deps" --quiet --torch
  elif ! "$fetch_deps" --quiet --check --torch 2>/dev/null; then
    with_torch=OFF
  fi
  # CMake reads the launcher from here. Objects are shared by all checkouts of this user: the folder of a build does
  # not matter.
  if command -v ccache >/dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$repo CCACHE_NOHASHDIR=1
  fi
}

# configure NAME BUILD_DIR: with the initial cache .ci/NAME.cmake.
configure() {
  quietly cmake -C "$repo/.ci/$1.cmake" -S "$repo" -B "$2" -G Ninja "-DSUTRA_DEPS_DIR=$SUTRA_DEPS_DIR" \
    "-DSUTRA_WITH_TORCH=$with_torch"
}

# start_engine BIN_DIR [engine options]: on a socket and a data directory of its own; sets engine_pid, engine_dir
# and engine_socket; returns when it serves.
start_engine() {
  local bin=$1
  shift
  engine_dir=$(mktemp -d "${TMPDIR:-/tmp}/sutra-XXXXXX")
  if ((${#engine_dir} > 80)); then  # a Unix socket's path has at most 107 bytes
    rmdir "$engine_dir"
    engine_dir=$(mktemp -d /tmp/sutra-XXXXXX)
  fi
  engine_bin=$bin
  engine_socket=$engine_dir/engine.sock
  setsid "$bin/sutra-engine" --model "$model_dir" --socket "$engine_socket" --data "$engine_dir/data" "$@" \
    >"$engine_dir/engine.log" 2>&1 </dev/null &
  engine_pid=$!
  local tries
  for ((tries = 0; tries < 1200; ++tries)); do
    if "$bin/sutra-stat" --socket "$engine_socket" --json 2>/dev/null | grep -q '"life":"alive"'; then return; fi
    if ! kill -0 "$engine_pid" 2>/dev/null; then
      cat "$engine_dir/engine.log" >&2
      die "the engine did not start; its log is above"
    fi
    sleep 0.05
  done
  tail -n 20 "$engine_dir/engine.log" >&2
  die "the engine does not serve after 60 s; its log is above"
}

# Stops the engine as an operator would; RETURNS its exit code.
stop_engine() {
  local pid=${engine_pid:-} code=0
  if [[ -z $pid ]]; then return 0; fi
  engine_pid=
  kill -TERM "$pid" 2>/dev/null || true
  wait "$pid" || code=$?
  return "$code"
}

# For a trap on EXIT: whatever happened, nothing is left running and nothing is left behind.
remove_engine() {
  if [[ -n ${engine_pid:-} ]]; then
    if ! kill -0 "$engine_pid" 2>/dev/null; then
      echo "$(basename "$0"): the engine exited by itself; the end of its log:" >&2
      tail -n 20 "$engine_dir/engine.log" >&2
    fi
    kill -KILL "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    engine_pid=
  fi
  if [[ -n ${engine_dir:-} && -d $engine_dir ]]; then
    "$engine_bin/sutra-stat" --socket "$engine_socket" --remove 2>/dev/null || true
    rm -rf "$engine_dir"
  fi
  engine_dir=
}
