#!/usr/bin/env bash
# Everything that wants a CUDA GPU, in pieces of at most nine minutes.
#
#   bash benchmarks/gpu.sh --list             the pieces, which are done, and what each runs
#   bash benchmarks/gpu.sh                    all that are not done; again after an interruption
#   bash benchmarks/gpu.sh throughput macro   some of them
#
# A piece that is done has left $OUT/PIECE.json and is skipped; one that was cut off goes on from its
# checkpoints in $OUT (long ones are cut into slices: give the same command again). $OUT is runs/gpu
# by default. Needs this checkout, python with torch for CUDA, and in the ignored folder carry/:
#
#   carry/data/cifar10/train.npz, val.npz           for cifar10 and macro
#   carry/data/nas_bench_macro/cifar10.json         for macro
#   carry/site/                                     what python lacks there, as installed by
#       pip install --target carry/site --no-deps ofa==0.1.0.post202307202001, and what else is asked for:
#       onnxruntime-gpu (latency-cuda), tensorrt (latency-tensorrt, tensorrt)
#   carry/out/                                      what an earlier machine left in $OUT
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/gpu}
CARRY=${CARRY:-carry}
LIMIT=${LIMIT:-540} # seconds
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH="$PWD:$PWD/$CARRY/site${PYTHONPATH:+:$PYTHONPATH}"
export HWNAS_DATA="${HWNAS_DATA:-$PWD/$CARRY/data}"

PIECES="throughput latency-cuda latency-tensorrt tensorrt cifar10 macro"
hwnas="$PYTHON -m hwnas"
formats='export=[{name: onnx}, {name: timm}, {name: fp16}, {name: tensorrt}, {name: tensorrt, precision: fp16}]'

# What a piece runs; it prints JSON.
command_of() {
  case $1 in
    throughput) # bf16 sandwich step against the same loop over ofa; aim: 2 x
      echo "$PYTHON benchmarks/supernet_throughput.py --device cuda --batch 64 --px 224 --rounds 10" ;;
    latency-cuda)
      echo "$hwnas profile cuda --space mobilenet_tiny --resolutions 32 --num-classes 10 --profile time_budget_s=300 --out $OUT/cuda_table.json --format json" ;;
    latency-tensorrt) # engines are kept: a second slice builds the rest
      echo "$hwnas profile tensorrt --space mobilenet_tiny --resolutions 32 --num-classes 10 --profile time_budget_s=120 --out $OUT/tensorrt_table.json --format json" ;;
    tensorrt) # engines built, run and compared with torch
      echo "$hwnas run quickstart --run $OUT/quickstart --report-only --set '$formats' >&2 && $hwnas verify $OUT/quickstart/bundles/main/local --format json" ;;
    cifar10) # the supernet, and labels of 400 subnets, which are checkpointed and journaled
      echo "$hwnas train $OUT/cifar10 --config cifar10_gpu --set accelerator=cuda --set train.precision=bf16 --set train.checkpoint_every=100 >&2 && $hwnas label $OUT/cifar10 --format json" ;;
    macro) # NAS-Bench-Macro: the supernet's ranking against the truth; aim: tau 0.80
      echo "$PYTHON benchmarks/nasbench_macro.py --data $HWNAS_DATA --work $OUT/macro --epochs 60 --archs 1000 --images 5000 --device cuda" ;;
    *) echo "no piece $1; there are: $PIECES" >&2; return 1 ;;
  esac
}

# Python modules and files that a piece needs.
needs_of() {
  case $1 in
    throughput) echo "ofa" ;;
    latency-cuda) echo "onnxruntime" ;;
    latency-tensorrt | tensorrt) echo "tensorrt" ;;
    cifar10) echo "$HWNAS_DATA/cifar10/train.npz" ;;
    macro) echo "$HWNAS_DATA/cifar10/train.npz $HWNAS_DATA/nas_bench_macro/cifar10.json" ;;
  esac
}

missing_of() {
  for need in $(needs_of "$1"); do
    case $need in
      /*) [ -e "$need" ] || echo "$need" ;;
      *) "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$need') is None)" || echo "the Python module $need" ;;
    esac
  done
}

list() {
  for piece in $chosen; do
    [ -e "$OUT/$piece.json" ] && state=done || state=todo
    printf '%-17s %s  %s\n' "$piece" "$state" "$(command_of "$piece")"
  done
}

run() {
  local piece=$1 begin=$SECONDS missing status
  [ -e "$OUT/$piece.json" ] && { echo "$piece: done already, $OUT/$piece.json" >&2; return 0; }
  missing=$(missing_of "$piece")
  [ -n "$missing" ] && { echo "$piece: skipped, lacks $missing (see the head of this script)" >&2; return 1; }
  echo "$piece: starts" >&2
  timeout -s INT -k 20 "$LIMIT" bash -c "$(command_of "$piece")" > "$OUT/$piece.part" 2> "$OUT/$piece.log"
  status=$?
  # 3: it ran, and a check fell short, which the JSON says.
  if { [ $status = 0 ] || [ $status = 3 ]; } && "$PYTHON" -m json.tool "$OUT/$piece.part" > /dev/null; then
    mv "$OUT/$piece.part" "$OUT/$piece.json"
    echo "$piece: done in $((SECONDS - begin)) s, $OUT/$piece.json" >&2
  elif [ $status = 124 ] || [ $status = 75 ]; then
    echo "$piece: $((SECONDS - begin)) s are over; the same command goes on" >&2
    return 1
  else
    echo "$piece: failed with status $status, see $OUT/$piece.log" >&2
    tail -n 5 "$OUT/$piece.log" >&2
    return 1
  fi
}

only_list=false
[ "${1:-}" = --list ] && { only_list=true; shift; }
chosen=${*:-$PIECES}
for piece in $chosen; do command_of "$piece" > /dev/null || exit 2; done
if $only_list; then list; exit; fi
if ! "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
  echo "no CUDA GPU: torch.cuda.is_available() is false with $PYTHON; nothing was run (--list shows what would be)" >&2
  exit 1
fi
mkdir -p "$OUT"
[ -d "$CARRY/out" ] && cp -rn "$CARRY/out/." "$OUT/"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader > "$OUT/gpu.txt" 2> /dev/null
failed=0
for piece in $chosen; do run "$piece" || failed=1; done
exit $failed
