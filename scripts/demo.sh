#!/usr/bin/env bash
# From nothing to a trained, judged and exported MLPF. Usage: scripts/demo.sh [DIR]
# Every step keeps what is finished, so an interrupted demo continues when started again.
set -euo pipefail
cd "$(dirname "$0")/.."

DIR=${1:-demo}
WORKERS=${WORKERS:-2}
CONFIG=${CONFIG:-parameters/clic-demo.yaml}
TTBAR_EVENTS=${TTBAR_EVENTS:-6000}
QQ_EVENTS=${QQ_EVENTS:-2000}
SEED=${SEED:-1}
START=$SECONDS

step() { printf '\n=== %s  [%d s]\n' "$1" $((SECONDS - START)); }

mkdir -p "$DIR"
for sample in ttbar qq; do
    case $sample in ttbar) events=$TTBAR_EVENTS ;; qq) events=$QQ_EVENTS ;; esac
    step "simulate $events $sample events"
    mlpf simulate "$sample" -n "$events" --events-per-file 50 --seed "$SEED" -j "$WORKERS" -o "$DIR/root/$sample"
    step "postprocess $sample"
    mlpf postprocess "$DIR/root/$sample" -j "$WORKERS" -o "$DIR/parquet/$sample"
    step "build clic_edm4hep/$sample"
    mlpf build "clic_edm4hep/$sample" --data-dir "$DIR/tensorflow_datasets" -i "$DIR/parquet/$sample" \
        --split-fractions 0.83,0.05,0.12 --split-seed 4 -j "$WORKERS"
done

step "train"
if [ -e "$DIR/run/checkpoints/latest.json" ]; then
    mlpf train --resume "$DIR/run" --data-dir "$DIR/tensorflow_datasets"
else
    rm -rf "$DIR/run"
    mlpf train -c "$CONFIG" -o "$DIR/run" --data-dir "$DIR/tensorflow_datasets" --seed "$SEED"
fi

step "export"
mlpf export -t "$DIR/run"
step "evaluate"
mlpf evaluate -t "$DIR/run" --data-dir "$DIR/tensorflow_datasets"
step "plots"
mlpf plots -t "$DIR/run"
printf "\nDemo finished in %d s. Open %s\n" $((SECONDS - START)) "$(realpath "$DIR")/run/report.html"
