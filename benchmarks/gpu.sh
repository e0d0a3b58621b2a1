#!/usr/bin/env bash
# The figures of docs/benchmarks.md that need a GPU, in at most ten minutes:
#
#     bash benchmarks/gpu.sh FOLDER
#
# FOLDER gets a log and a JSON file for each part. Every part has a limit of its own [s], so that one that fails or hangs
# costs no other. What runs eagerly comes first, then the search for what a compiled training fails on, then what is
# compiled; parts that no time is left for are skipped. To try it without a GPU:
# DEVICE=cpu ENCODER=tu-mobilenetv3_small_050 BATCH=2 CHIPS=16 PREDICTED=8
set -u
OUT=$(mkdir -p "$1" && cd "$1" && pwd)
DEVICE=${DEVICE:-cuda} ENCODER=${ENCODER:-tu-resnest50d} BATCH=${BATCH:-32} CHIPS=${CHIPS:-264} PREDICTED=${PREDICTED:-4096}
WORKERS=${WORKERS:-10} ALL=${ALL:-590}
cd "$(dirname "$0")/.." || exit 1

part() { # name, limit [s], command
    local name=$1 limit=$2
    shift 2
    ((limit = limit < ALL - SECONDS ? limit : ALL - SECONDS))
    if ((limit < 5)); then
        echo "== $name: skipped, the $ALL s are over"
        return
    fi
    timeout --kill-after=3 "$limit" "$@" >"$OUT/$name.log" 2>&1
    echo "== $name: exit status $?"
    tail -n 14 "$OUT/$name.log"
}

on=(--device "$DEVICE")
net=("${on[@]}" --encoder "$ENCODER" --batch "$BATCH")
compiled=("${net[@]}" --limit 75 --out "$OUT/compiled")
export TORCHINDUCTOR_CACHE_DIR="$OUT/inductor"
part tests 90 python -m pytest -q tests/unit -k "sorting or gpu"
part loss 40 python benchmarks/loss.py "${on[@]}" --chips "$BATCH" --quick --json "$OUT/loss.json"
part step 70 python benchmarks/step.py "${net[@]}" --chips "$CHIPS" --epochs 3 --workers "$WORKERS" --json "$OUT/step.json"
part profile 40 python benchmarks/profiles.py "${net[@]}" --rounds 2 --out "$OUT/profiles"
part inference 60 python benchmarks/inference.py "${net[@]}" --chips "$PREDICTED" --workers "$WORKERS" --rounds 1 \
    --ways torch-bf16 --json "$OUT/inference.json"
part bisection 190 python benchmarks/compiled.py "${compiled[@]}" --json "$OUT/compiled.json" \
    --variants train plain border_outside eager_order not_deterministic library_upsampling no_border blocking contiguous
part inference_compiled 90 python benchmarks/inference.py "${net[@]}" --chips "$PREDICTED" --workers "$WORKERS" --rounds 1 \
    --ways torch-bf16-compiled --json "$OUT/inference_compiled.json"
part step_compiled 120 python benchmarks/step.py "${net[@]}" --chips "$CHIPS" --epochs 3 --compile --ways train \
    --json "$OUT/step_compiled.json"
