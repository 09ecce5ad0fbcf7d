#!/usr/bin/env bash
#! Runs groups of the device check on the CPU, on a stand-in for the CUDA driver (`driver.cpp`).
#! Usage: driver.sh DEVICE_CHECK STUBS [GROUP..]
#!   DEVICE_CHECK  the built example
#!   STUBS         a folder with NAME.c (one `int f(void){..}` a line) for cuda, cublas, curand, cudnn, and libcudart.so.13
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$1 stubs=$2
shift 2
[ $# -gt 0 ] || set -- elementwise rows pool batch-norm pairwise optimizers conv-f32 conv-tf32 conv-bf16 network
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
c++ -std=c++20 -O1 -fPIC -c -o "$work/driver.o" "$here/driver.cpp"
nm --defined-only "$work/driver.o" | awk '{print $3}' > "$work/have"
library() { # name, soname, value that its functions return, more objects
    local name=$1 so=$2 value=$3
    shift 3
    grep -oE '[A-Za-z_][A-Za-z0-9_]*\(void\)' "$stubs/$name.c" | sed 's/(void)//' | sort -u | grep -vxFf "$work/have" |
        sed "s/.*/int &(void){return $value;}/" > "$work/$name.c"
    cc -c -fPIC -o "$work/$name.o" "$work/$name.c"
    c++ -shared -o "$work/$so" -Wl,-soname,"$so" "$work/$name.o" "$@"
}
library cuda libcuda.so.1 0 "$work/driver.o"
# Their own functions are in the driver, which is loaded first.
library cublas libcublas.so.13 0 -L"$work" -l:libcuda.so.1
library curand libcurand.so.10 0 -L"$work" -l:libcuda.so.1
library cudnn libcudnn.so.9 3000 -L"$work" -l:libcuda.so.1
cp "$stubs/libcudart.so.13" "$work/"
for group in "$@"; do
    LD_LIBRARY_PATH=$work "$program" "$group" > "$work/log" 2>&1 || true
    grep -E '^FAILED|no kernel|panicked|behind the end|barrier' "$work/log" | sort | uniq -c | head -n "${SHOW:-10}" || true
    echo "$group: $(grep -E '^[0-9]+ passed' "$work/log" || tail -n 1 "$work/log")"
done
