#!/usr/bin/env bash
#! Runs `nccl_check` on the CPU: one and several processes of this host, on a stand-in for NCCL (`nccl.cpp`) and for the CUDA
#! driver (that of `infomax-cuda`), joined over TCP. It builds the example first, with CARGO_TARGET_DIR.
#! Usage: run.sh
#! Needs a C++ compiler and what the build scripts of CUDA ask for: `cargo xtask ci --only cuda-check` has a stand-in for nvcc.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work" /dev/shm/nccl-stand-in-*' EXIT
bash "$root/crates/infomax-cuda/tests/emulated/driver.sh" --libraries "$work"
c++ -std=c++20 -O1 -mf16c -shared -fPIC -Wl,-soname,libnccl.so.2 -o "$work/libnccl.so.2" "$here/nccl.cpp"
for library in "$work"/lib*.so.*; do ln -sf "$library" "${library%%.so.*}.so"; done
${CARGO:-cargo} rustc --manifest-path "$root/Cargo.toml" -p infomax-ranks --features nccl --example nccl_check -- -L native="$work"
program=${CARGO_TARGET_DIR:-$root/target}/debug/examples/nccl_check
export LD_LIBRARY_PATH=$work

port=$((20000 + RANDOM % 20000))
several() { # ranks, what must be in the output (an extended regular expression), whether it must pass; the rest are arguments
    local size=$1 said=$2 passes=$3 passed=yes rank pids=()
    shift 3
    port=$((port + 1))
    for ((rank = 0; rank < size; ++rank)); do
        RANK=$rank WORLD_SIZE=$size LOCAL_RANK=$rank MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
            "$program" "$@" > "$work/out-$rank" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || passed=no
        # A stopped process sees the end of the others where a launcher ends it with them.
        [ "$passed" = yes ] || [ -z "${STOPPED:-}" ] || kill -KILL "${pids[$STOPPED]}" 2> /dev/null || true
    done
    cat "$work"/out-* > "$work/all"
    if [ "$passed" != "$passes" ] || ! grep -Eq "$said" "$work/all"; then
        echo "FAILED: $* on $size ranks (passed: $passed), without: $said"
        cat "$work/all"
        exit 1
    fi
    echo "$* on $size ranks: $(grep -Em1 "$said" "$work/all")"
    rm -f "$work"/out-*
}
"$program" values | grep 'values: 1 ranks passed'
for size in 2 3 4; do several $size "values: $size ranks passed" yes values; done
several 3 'mismatch: 3 ranks passed' yes mismatch
NCCL_STAND_IN='fail 1 4' several 3 'rank 1 .*another rank ended, or the network to it' no values
STOPPED=1 NCCL_STAND_IN='stop 1 4' several 3 'waited . s in `sum` .* for rank 1 ' no values 2
echo passed
