#!/usr/bin/env bash
# What is to be run on a GPU, in stages for one that is borrowed for minutes:
#
#   benchmarks/on_gpu.sh STAGE [--dry] [--seconds N] [--kit FOLDER] [OUT]
#
#   A  correctness: kernels, decoding, streams, the loader, some under compute-sanitizer     345 s at most
#   B  nvJPEG: what it does, and our decoder on it                                           165 s
#   C  rendering, the ways of the first pass, training steps, settings of the loader         345 s
#   D  decoding and loading from shards, beside other libraries                              345 s
#
# Each call stands for itself: the machine may be a fresh one, without network. Extensions and packages come from the kit
# (`make kit`; FOLDER: build/gpu-kit) where it lies there, else they are built. A step ends at its limit; one that
# fails or hangs does not stop the others. --seconds: of the whole stage, limits shrink alike. What steps print goes to
# STAGE.log in OUT (else $OUT, else build/on_gpu/out), figures to STAGE-*.json, and a line a step to STAGE.txt and here.
# --dry: everything tiny, without a GPU; figures mean nothing. PYTHON: python3 unless set.
set -u
cd "$(dirname "$0")/.." || exit 2

usage() {
  sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

stage='' dry='' seconds='' kit=build/gpu-kit out=${OUT:-build/on_gpu/out}
while (($#)); do
  case $1 in
    A | B | C | D) [ -z "$stage" ] || usage; stage=$1 ;;
    --dry) dry=--dry ;;
    --seconds) seconds=${2:-}; shift ;;
    --kit) kit=${2:-}; shift ;;
    -*) usage ;;
    *) out=$1 ;;
  esac
  shift
done
declare -A whole=([A]=345 [B]=165 [C]=345 [D]=345)
[ -n "$stage" ] || usage
: "${seconds:=${whole[$stage]}}"
[[ $seconds =~ ^[1-9][0-9]*$ ]] || usage

python=${PYTHON:-python3} work=build/on_gpu
mkdir -p "$out" "$work" || exit 2
out=$(cd "$out" && pwd)
log=$out/$stage.log summary=$out/$stage.txt failed=0
: >"$log"
: >"$summary"

share() { echo $(($1 * seconds / whole[$stage])); }  # SECONDS of the whole stage, of a shorter one
grace=$(share 10)
((grace > 0)) || grace=1

# step NAME LIMIT COMMAND...: LIMIT as of the whole stage, less where less is left.
step() {
  local name=$1 limit left result code began=$SECONDS
  limit=$(share "$2") left=$((seconds - SECONDS))
  shift 2
  ((limit > left)) && limit=$left
  if ((limit < 1)); then
    result='left out: no time' code=1
  else
    printf '\n== %s, at most %s s: %s\n' "$name" "$limit" "$*" >>"$log"
    timeout --kill-after="$grace" "$limit" "$@" >>"$log" 2>&1 </dev/null
    code=$?
    case $code in
      0) result=ok ;;
      124 | 137) result='timed out' ;;
      *) result="failed ($code)" ;;
    esac
  fi
  ((code == 0)) || failed=$((failed + 1))
  printf '%s  %-14s %-18s %4s s   %s\n' "$stage" "$name" "$result" $((SECONDS - began)) \
    "$([ "$limit" -lt 1 ] || tail -n 1 "$log" | cut -c 1-110)" | tee -a "$summary"
}

# tests NAME LIMIT ARGUMENTS OF PYTEST...: what hangs shows where.
tests() {
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "${under[@]}" "$python" -m pytest -v -p no:cacheprovider --durations=8 \
    -o faulthandler_timeout=25 "$@"
}
under=()

benchmark() {  # NAME LIMIT SECTIONS...
  local name=$1 limit=$2
  shift 2
  step "$name" "$limit" "$python" -m benchmarks.gpu.bench_cuda --only "$@" --seconds "$(share $((limit - 10)))" \
    --pack "$work/pack${dry#-}" --json "$out/$stage-$name.json" $dry
}

step prepare 150 "$python" -m benchmarks.gpu.kit use "$kit" --work "$work" $dry
export PYTHONPATH=$PWD:$PWD/$work/site LD_LIBRARY_PATH=$PWD/$work/site/nvidia/cu13/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
step machine 25 "$python" -m benchmarks.machine

case $stage$dry in
  A)
    tests kernels 90 -m cuda tests/native/test_cuda_kernels.py
    tests decode 60 -m cuda tests/native/test_cuda_decode.py
    tests streams 60 -m cuda tests/gpu/test_cuda.py
    tests loader 110 -m cuda tests/gpu/test_cuda_loader.py -k 'not nvjpeg'
    under=(compute-sanitizer --tool memcheck --error-exitcode 1)
    tests memcheck 90 -m cuda tests/native/test_cuda_kernels.py tests/native/test_cuda_decode.py \
      -k 'window_and_via or in_parts or longest_sides or rows_by_hand or with_entry_points'
    ;;
  A--dry)
    tests kernels 90 tests/native/test_cuda_kernels.py -k 'window_and_via or ways_of_the'
    tests decode 90 tests/native/test_cuda_decode.py -k 'rows_by_hand or with_entry_points'
    tests streams 200 tests/gpu/test_standin_runtime.py
    tests loader 110 tests/gpu/test_batches.py -k 'elements or budget or static'
    command -v compute-sanitizer >/dev/null && under=(compute-sanitizer --tool memcheck --error-exitcode 1)
    tests memcheck 90 tests/native/test_cuda_kernels.py -k 'refused'
    ;;
  B*)
    step probe 100 "$python" -m benchmarks.gpu.probe_nvjpeg --seconds 0.5 --json "$out/B-probe.json" $dry
    if [ -n "$dry" ]; then
      tests decoder 55 tests/gpu/test_nvjpeg.py -k 'benchmarks_calls or without_a_gpu'
    else
      tests decoder 55 -m cuda tests/gpu/test_cuda_loader.py -k nvjpeg
    fi
    ;;
  C*)
    benchmark rendering 95 rendering
    step first_pass 45 "$python" -m benchmarks.gpu.first_pass --seconds "$(share 20)" \
      --json "$out/C-first_pass.json" $dry
    benchmark training 120 training
    benchmark choices 70 choices
    ;;
  D*)
    benchmark decoding 90 decoding
    benchmark shards 245 shards
    ;;
esac

printf '%s  %s s, %s\n' "$stage" $SECONDS "$([ $failed = 0 ] && echo 'all steps ok' || echo "$failed steps not ok")" |
  tee -a "$summary"
exit $((failed > 0))
