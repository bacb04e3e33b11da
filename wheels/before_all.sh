#!/usr/bin/env bash
# In a manylinux container, for .github/workflows/release.yml: GCC 12, CUDA's compiler, and the four libraries from the
# sources in build/wheels/sources.
set -euo pipefail
dnf install -y gcc-toolset-12-gcc-c++ nasm
/opt/python/cp312-cp312/bin/python -m venv /opt/build
/opt/build/bin/pip install -q "cmake>=3.28" "pybind11>=3" wheel
/opt/build/bin/pip install -q --no-deps --target /opt/cuda_packages "nvidia-cuda-nvcc==13.0.*" "nvidia-cuda-crt==13.0.*" \
  "nvidia-nvvm==13.0.*" "nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cccl==13.0.*"
bash wheels/cuda_folder.sh /opt/cuda_packages/nvidia/cu13
ln -s /opt/cuda_packages/nvidia/cu13 /opt/cuda
PATH=/opt/rh/gcc-toolset-12/root/usr/bin:$PATH /opt/build/bin/python -m wheels.third_party build/wheels/sources /opt
