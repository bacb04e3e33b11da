// All kernels of a batch in their order. A kernel is an object with
//   kPhases                                what lies between two barriers of a block
//   Shared                                 a block's shared memory
//   run(phase, block, thread, shared)      one thread's part of a phase; only Shared is kept from phase to phase
// so that a GPU (render.cu) and a loop on the CPU (tests/native/cuda/emulate.cpp) run the same code.
#pragma once
#include "cuda/blur.h"
#include "cuda/kernel_blur.h"
#include "cuda/resample.h"
#include "cuda/weights.h"

namespace pass_loader::cuda {

// launch(kernel, blocks), blocks >= 1: five to seven calls for a batch, and two more if a view is resized twice.
template <typename Launch>
void launch_all(const Batch& batch, const Launch& launch) {
  auto with = [&](const auto& kernel, const Tiles& tiles, int32_t parts = 1) {
    if (tiles.count > 0) launch(kernel, tiles.count * parts);
  };
  with(Weights{batch}, batch.weights);
  with(FirstPass{batch, batch.via_first}, batch.via_first, FirstPass::kParts);
  with(SecondPass{batch, batch.via_second}, batch.via_second);
  with(FirstPass{batch, batch.first}, batch.first, FirstPass::kParts);
  with(SecondPass{batch, batch.second}, batch.second);
  with(Finish{batch}, batch.second);
  with(BlurAcross{batch}, batch.across);
  with(BlurDown{batch}, batch.down);
  with(KernelBlur{batch}, batch.kernel);
}

}  // namespace pass_loader::cuda
