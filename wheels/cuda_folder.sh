#!/usr/bin/env bash
# Lays CUDA's packages from PyPI out as nvcc expects a toolkit: $1 is their common folder.
set -euo pipefail
case $(uname -m) in
  x86_64) target=x86_64-linux ;;
  aarch64) target=sbsa-linux ;;
esac
mkdir -p "$1/targets/$target"
ln -sfn ../../include "$1/targets/$target/include"
ln -sfn ../../lib "$1/targets/$target/lib"
