// The GPU that nvjpeg.h decodes on.
#pragma once
#include <memory>

#include "cuda/nvjpeg.h"

namespace pass_loader::cuda {

// device: its index. Throws Error(device) with unavailable()'s words, Error(argument) where there is no such device.
std::unique_ptr<Gpu> make_gpu(int device);

}  // namespace pass_loader::cuda
