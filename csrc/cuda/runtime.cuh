// What all .cu files share: error messages, the current device, launches. The only header that includes CUDA's.
#pragma once
#include <cuda_runtime_api.h>

#include "cuda/descriptors.h"
#include "error.h"

namespace pass_loader::cuda {

// How many blocks of a kernel shall have room on a multiprocessor; 1 where it does not say.
template <typename Kernel>
constexpr int least_blocks() {
  if constexpr (requires { Kernel::kBlocks; }) return Kernel::kBlocks;
  return 1;
}

template <typename Kernel>
__global__ void __launch_bounds__(kThreads, least_blocks<Kernel>()) run(const Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  PL_UNROLL
  for (int phase = 0; phase < Kernel::kPhases; ++phase) {
    if (phase > 0) __syncthreads();
    kernel.run(phase, static_cast<int32_t>(blockIdx.x), static_cast<int32_t>(threadIdx.x), shared);
  }
}

inline const char* remedy(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "the GPU has too little free memory: a smaller batch or workspace_limit, or other processes off this GPU";
    case cudaErrorInsufficientDriver:
      return "the driver is older than this build's CUDA runtime: install a newer driver";
    case cudaErrorNoDevice:
      return "no GPU is visible: look at CUDA_VISIBLE_DEVICES, and at the container's access to GPUs";
    case cudaErrorInvalidDevice:
      return "there is no such device: count them with torch.cuda.device_count()";
    case cudaErrorNoKernelImageForDevice:
      return "this build has no code for this GPU: compute capability 8.0 (Ampere) or later is needed";
    case cudaErrorUnsupportedPtxVersion:
      return "the driver is too old for this build's PTX: install a newer driver, or build for this GPU's own compute "
             "capability (PASS_LOADER_CUDA_ARCHITECTURES)";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
      return "a kernel, ours or one before it, has failed; run under compute-sanitizer, or with CUDA_LAUNCH_BLOCKING=1";
    default:
      return "see the CUDA runtime's description of this error";
  }
}

inline void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not report this error again
  fail(Fault::device, "CUDA, while %s: %s (%s): %s", doing, cudaGetErrorString(error), cudaGetErrorName(error),
       remedy(error));
}

// Of events that the host waits for: it sleeps, and their time is not asked for.
constexpr unsigned kEventFlags = cudaEventDisableTiming | cudaEventBlockingSync;

// Makes the device current as long as it lives, then restores the caller's. cudaSetDevice makes a context, so it is
// called only where the device is another one.
class Current {
 public:
  explicit Current(int device) : device_(device) {
    check(cudaGetDevice(&before_), "asking for the current device");
    if (before_ != device_) check(cudaSetDevice(device_), "choosing the device");
  }
  ~Current() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  Current(const Current&) = delete;

 private:
  const int device_;
  int before_ = 0;
};

template <typename Kernel>
void launch_kernel(const Kernel& kernel, int32_t blocks, cudaStream_t stream) {
  run<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(kernel);
  check(cudaGetLastError(), "launching a kernel");
}

}  // namespace pass_loader::cuda
