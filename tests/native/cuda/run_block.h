// A block of a CUDA kernel on the CPU, phase by phase, thread by thread.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>

#include "cuda/descriptors.h"

namespace pass_loader {

template <typename Kernel>
void run_block(const Kernel& kernel, int32_t block, bool backwards) {
  struct alignas(16) Room {
    unsigned char bytes[sizeof(typename Kernel::Shared)];
  };
  const auto room = std::make_unique<Room>();
  std::memset(room.get(), 0xA5, sizeof(Room));  // shared memory begins as anything
  auto& shared = *reinterpret_cast<typename Kernel::Shared*>(room.get());
  for (int phase = 0; phase < Kernel::kPhases; ++phase)
    for (int32_t i = 0; i < cuda::kThreads; ++i)
      kernel.run(phase, block, backwards ? cuda::kThreads - 1 - i : i, shared);
}

// All blocks. Blocks and threads run from the last to the first where backwards.
template <typename Kernel>
void run_blocks(const Kernel& kernel, int32_t blocks, bool backwards) {
  for (int32_t i = 0; i < blocks; ++i) run_block(kernel, backwards ? blocks - 1 - i : i, backwards);
}

}  // namespace pass_loader
