#!/usr/bin/env bash
#! Runs groups of the device check on the CPU, on a stand-in for the CUDA driver (`driver.cpp`).
#! Usage: driver.sh DEVICE_CHECK [GROUP..]
#!        driver.sh --libraries DIR      only makes the libraries, and leaves them there
#!   DEVICE_CHECK  the built example; it must find CUDA's libraries at their first use (Linux on x86-64)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$1
shift
keep=
if [ "$program" = --libraries ]; then keep=$1; fi
[ $# -gt 0 ] || set -- elementwise rows pool batch-norm pairwise moments distances characteristic cross-entropy newton-schulz optimizers conv-f32 conv-tf32 conv-bf16 network views uploads
work=$keep
if [ -z "$keep" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
c++ -std=c++20 -O1 -ffp-contract=off -fPIC -c -o "$work/driver.o" "$here/driver.cpp"
nm --defined-only "$work/driver.o" | awk '{print $3}' > "$work/have"
library() { # name in names.rs, soname, value that its functions return, more objects
    local name=$1 so=$2 value=$3
    shift 3
    sed -n "/^\/\/ $name\$/,/^]/p" "$here/../../src/lazy/names.rs" | grep -oE '\b(cu|nvrtc)[A-Za-z0-9_]+' | sort -u |
        { grep -vxFf "$work/have" || true; } | sed "s/.*/int &(void){return $value;}/" > "$work/$name.c"
    [ -s "$work/$name.c" ] || { echo "no functions of $name in names.rs"; exit 2; }
    cc -c -fPIC -o "$work/rest-of-$name.o" "$work/$name.c"
    c++ -shared -o "$work/$so" -Wl,-soname,"$so" "$work/rest-of-$name.o" "$@"
}
library driver libcuda.so.1 0 "$work/driver.o"
# Their own functions are in the driver, which is loaded first.
library cublas libcublas.so.13 0 -L"$work" -Wl,--no-as-needed -l:libcuda.so.1
library curand libcurand.so.10 0 -L"$work" -Wl,--no-as-needed -l:libcuda.so.1
library cudnn libcudnn.so.9 3000 -L"$work" -Wl,--no-as-needed -l:libcuda.so.1
if [ -n "$keep" ]; then
    library cublaslt libcublasLt.so.13 0
    library nvrtc libnvrtc.so.13 0
    library runtime libcudart.so.13 0
    exit 0
fi
for group in "$@"; do
    LD_LIBRARY_PATH=$work "$program" "$group" > "$work/log" 2>&1 || true
    grep -E '^FAILED|no kernel|panicked|behind the end|barrier' "$work/log" | sort | uniq -c | head -n "${SHOW:-10}" || true
    echo "$group: $(grep -E '^[0-9]+ passed' "$work/log" || tail -n 1 "$work/log")"
done
