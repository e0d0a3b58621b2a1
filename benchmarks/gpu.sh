#!/usr/bin/env bash
# The figures of docs/benchmarks.md that need a GPU, in about seven minutes:
#
#     bash benchmarks/gpu.sh FOLDER
#
# FOLDER gets a log and a JSON file for each part. Every part has a limit of its own [s], so that one that fails or hangs
# costs no other. To try it without a GPU: DEVICE=cpu ENCODER=tu-mobilenetv3_small_050 BATCH=2 CHIPS=16 PREDICTED=8
set -u
OUT=$(mkdir -p "$1" && cd "$1" && pwd)
DEVICE=${DEVICE:-cuda} ENCODER=${ENCODER:-tu-resnest50d} BATCH=${BATCH:-32} CHIPS=${CHIPS:-264} PREDICTED=${PREDICTED:-4096}
WORKERS=${WORKERS:-10}
cd "$(dirname "$0")/.." || exit 1

part() { # name, limit [s], command
    local name=$1 limit=$2
    shift 2
    timeout --kill-after=3 "$limit" "$@" >"$OUT/$name.log" 2>&1
    echo "== $name: exit status $?"
    tail -n 14 "$OUT/$name.log"
}

on=(--device "$DEVICE")
net=("${on[@]}" --encoder "$ENCODER" --batch "$BATCH")
part tests 90 python -m pytest -q tests/unit/losses/test_losses.py tests/unit/train/test_train.py tests/unit/predict/test_predict.py -k "sorting or gpu or compiled"
part loss 40 python benchmarks/loss.py "${on[@]}" --chips "$BATCH" --quick --json "$OUT/loss.json"
part step_compiled 150 python benchmarks/step.py "${net[@]}" --chips "$CHIPS" --epochs 3 --compile --ways train no_input \
    --json "$OUT/step_compiled.json"
part inference 120 python benchmarks/inference.py "${net[@]}" --chips "$PREDICTED" --workers "$WORKERS" --rounds 1 \
    --json "$OUT/inference.json"
part step 70 python benchmarks/step.py "${net[@]}" --chips "$CHIPS" --epochs 3 --workers "$WORKERS" --json "$OUT/step.json"
part profile_compiled 60 python benchmarks/profiles.py "${net[@]}" --rounds 2 --compile --out "$OUT/profiles"
part profile 40 python benchmarks/profiles.py "${net[@]}" --rounds 2 --out "$OUT/profiles"
