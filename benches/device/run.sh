#!/usr/bin/env bash
#! Runs the device check and its PyTorch peer on a machine with a CUDA card, and prints the table last.
#!
#! `cargo xtask device-bundle` puts it beside `infomax-device-check`, the program `infomax` and `cuda_step.py`.
#! Needed there: python3 with a CUDA 13 PyTorch, whose libraries are used. Takes at most about six minutes.
#! Logs go to $OUT, or beside the script. Each group runs in its own process: one that hangs, crashes or breaks the
#! context of the card is one failure, and the next one runs.
#! Usage: run.sh [--quick | --sanitize]
#!   --quick     leaves out the compiled rows of PyTorch
#!   --sanitize  only runs the own kernels under compute-sanitizer (memcheck, then racecheck), with their checks
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/out}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
began=$(date +%s)
limit=${LIMIT_S:-350}
left() { echo $((limit - ($(date +%s) - began))); }

cp "$here/infomax-device-check" "$work/device_check" && chmod +x "$work/device_check" || exit 2
wheels=$(python3 -c "import glob,os,nvidia;print(':'.join(sorted(glob.glob(os.path.join(list(nvidia.__path__)[0],'*','lib')))))" 2> /dev/null)
[ -n "$wheels" ] && export LD_LIBRARY_PATH=$wheels${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export RUST_BACKTRACE=0 CUDA_CACHE_PATH=$work/cache CUDA_CACHE_MAXSIZE=2147483648
ln -s "$here/golden" "$work/golden"
# CUDA's libraries are loaded at their first use; without them, or without a driver, there is nothing to check.
chmod +x "$here/infomax"
"$here/infomax" doctor --device cuda:0 > "$out/doctor.txt" 2>&1
if [ $? != 0 ]; then
    cat "$out/doctor.txt"
    echo "NOTHING WAS CHECKED: this machine has no card that the programs can use; the lines above say why"
    echo "0 passed, 0 failed, 1 machine without a card"
    exit 3
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | tee "$out/card.txt"

if [ "${1:-}" = --sanitize ]; then
    bad=0
    for tool in memcheck racecheck; do
        for group in pool elementwise batch-norm rows pairwise moments distances characteristic cross-entropy newton-schulz optimizers views; do
            rest=$(left)
            [ "$rest" -lt 10 ] && { echo "$tool $group: no time was left"; bad=$((bad + 1)); continue; }
            [ "$rest" -gt 60 ] && rest=60
            timeout -k 5 "$rest" compute-sanitizer --tool "$tool" --error-exitcode 9 "$work/device_check" "$group" > "$out/$tool-$group.log" 2>&1
            code=$?
            [ "$code" = 0 ] || bad=$((bad + 1))
            echo "$tool $group: exit code $code; $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/$tool-$group.log" | tail -n 1); $(grep -E '^[0-9]+ passed' "$out/$tool-$group.log")"
        done
    done
    echo "$bad of 24 runs under compute-sanitizer were not clean; logs in $out"
    exit 0
fi

log=$out/check.log
: > "$log"
run() { # group, seconds, more arguments
    local group=$1 most=$2 rest code again
    shift 2
    rest=$(left)
    [ "$rest" -lt 10 ] && { echo "FAILED group $group: no time was left for it" >> "$log"; return; }
    [ "$most" -gt "$rest" ] && most=$rest
    timeout -k 5 "$most" "$work/device_check" "$group" "$@" > "$out/$group.log" 2>&1
    code=$?
    grep -vE '^[0-9]+ passed, [0-9]+ failed$' "$out/$group.log" >> "$log"
    # 3: a row broke the context of the card; the rest runs in a new process.
    again=$(sed -n 's/^RESUME //p' "$out/$group.log")
    if [ "$code" = 3 ] && [ -n "$again" ]; then
        mv "$out/$group.log" "$out/$group.before-$again.log"
        run "$group" "$most" --skip "$again"
        return
    fi
    # 0: all held; 1: some rows failed, and said so; anything else is a failure of the group.
    if [ "$code" -gt 1 ] || ! grep -qE '^[0-9]+ passed, [0-9]+ failed$' "$out/$group.log"; then
        echo "FAILED group $group: exit code $code after at most $most s: $(tail -n 1 "$out/$group.log" | cut -c1-300)" >> "$log"
    fi
}
for group in elementwise rows pool batch-norm pairwise moments distances characteristic cross-entropy newton-schulz optimizers; do
    run "$group" 30
done
for group in conv-f32 conv-tf32 conv-bf16; do run "$group" 45; done
run network 30
run memory 40
run objectives 60
run golden 20
run views 30
run uploads 20
run kernels 30
run training 60
run training-memory 40
run times-views 20
run times-moments 30
run times-steps 75
run times-kernels 75
# The program itself, where time is left: what it finds, and a minute of training at most.
rest=$(left)
if [ "$rest" -gt 60 ]; then
    began_training=$(date +%s)
    if (cd "$work" && timeout -k 5 60 "$here/infomax" pretrain --device cuda:0 --epochs 2 --quiet --json > "$out/pretrain.json" 2> "$out/pretrain.err"); then
        echo "ok pretrain --device cuda:0, two epochs of the embedded data: $(($(date +%s) - began_training)) s, $(grep -o '"images_per_s": [0-9.]*' "$out/pretrain.json")" >> "$log"
    else
        echo "FAILED pretrain --device cuda:0: $(tail -n 1 "$out/pretrain.err" | cut -c1-200)" >> "$log"
    fi
fi
checked=$(($(date +%s) - began))
rest=$(left)
peer=$out/torch.log
: > "$peer"
if [ "$rest" -gt 25 ]; then
    extra=()
    [ "${1:-}" = --quick ] && extra=(--no-compile)
    timeout -k 5 "$rest" python3 "$here/cuda_step.py" --seconds $((rest * 6 / 10)) ${extra[@]+"${extra[@]}"} > "$peer" 2> "$out/torch.err"
else
    echo "TORCH SKIPPED: no time left" > "$peer"
fi

echo "== the machine"
cat "$out/doctor.txt"
echo "== failures"
grep '^FAILED' "$log" | cut -c1-200 | head -n 25
echo "== groups"
for group in $("$work/device_check" --list); do
    [ -f "$out/$group.log" ] && echo "$group: $(grep -c '^ok' "$out/$group.log") ok, $(grep -c '^FAILED' "$out/$group.log") failed, $(grep -oE 'took [0-9.]+ s' "$out/$group.log" | tail -n 1)"
done
grep -E '^memory ' "$log"
echo "== times of infomax-cuda"
grep '^TIME' "$log" | cut -c6-
echo "== times of PyTorch"
grep '^TORCH' "$peer" | cut -c7-
echo "checks took $checked s, all $(($(date +%s) - began)) s; logs in $out"
echo "$(grep -c '^ok' "$log") passed, $(grep -c '^FAILED' "$log") failed"
