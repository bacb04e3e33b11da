// A real GPU for nvjpeg.h to decode on.
#pragma once
#include <memory>

#include "cuda/nvjpeg.h"

namespace pass_loader::cuda {

// device: its index. Throws Error(device) with unavailable()'s message, or Error(argument) if there is no such device.
std::unique_ptr<Gpu> make_gpu(int device);

}  // namespace pass_loader::cuda
