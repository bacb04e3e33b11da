// Renders batches of views on a GPU. The only door to CUDA: no header of CUDA is needed to include this.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "cuda/descriptors.h"

namespace pass_loader::cuda {

// Returns why no GPU can be used, and what to do; empty if one can. Never throws. The first call asks the driver.
std::string unavailable();

struct Options {
  int device = 0;
  Form form{4, false};
  std::array<uint32_t, 3 * 256> normalize_table{};  // [channel][byte]: an element's bits
  size_t workspace_limit = size_t{512} << 20;       // bytes; a batch that needs more is rendered in parts
};

// A renderer may be used by one thread at a time. It allocates on the device only if a batch needs more than all before
// it, up to workspace_limit (which a single view may exceed). The steady state allocates nothing. It waits only for the
// oldest of kSlots batches, and only if none of them has begun.
class Renderer {
 public:
  static constexpr int kSlots = 4;

  explicit Renderer(const Options& options);  // throws Error(argument) or Error(device)
  ~Renderer();
  Renderer(const Renderer&) = delete;

  // Queues the views on `stream`, a cudaStream_t of the renderer's device. Until the stream has reached this point,
  // pictures must not change and outputs must not be used; the arrays of jobs and pictures are free on return. Jobs of
  // one picture should follow one another, so that its pixels stay in the cache. Throws Error(argument) or
  // Error(device); then views may be rendered or not.
  void render(std::span<const Picture> pictures, std::span<const Job> jobs, void* stream);

  size_t device_bytes() const;   // on the device
  uint64_t allocations() const;  // on the device and of pinned memory, since the start
  const Options& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pass_loader::cuda
