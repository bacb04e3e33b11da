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

// Lets this thread call what a capture of a graph by another thread forbids (cudaThreadExchangeStreamCaptureMode).
void let_others_capture();

struct Options {
  int device = 0;
  Form form{4, false};
  std::array<uint32_t, 3 * 256> normalize_table{};  // [channel][byte]: an element's bits
  size_t workspace_limit = size_t{512} << 20;       // bytes of tables and workspace; see Renderer::pack
};

// A renderer may be used by one thread at a time. It holds a table on the device and pinned memory, which it allocates
// only if a batch needs more than all before it; the workspace is the caller's. The steady state allocates nothing. It
// waits only for the oldest of kSlots batches, and only if none of them has begun; the host sleeps meanwhile.
class Renderer {
 public:
  static constexpr int kSlots = 4;

  explicit Renderer(const Options& options);  // throws Error(argument) or Error(device)
  ~Renderer();
  Renderer(const Renderer&) = delete;

  // Takes jobs from the front, as many as have room in workspace_limit, but always one. Returns how many; the arrays of
  // jobs and pictures are free then. Jobs of one picture should follow one another, so that its pixels stay in the
  // cache. Throws Error(argument).
  size_t pack(std::span<const Picture> pictures, std::span<const Job> jobs);
  size_t workspace_bytes() const;  // which `launch` needs for what is packed

  // Queues the packed views on `stream`, a cudaStream_t of the renderer's device. workspace: device memory, a multiple
  // of Packing::kAlign; batches may share it, on whatever stream: each waits for the one before. Until the stream has
  // reached this point, pictures must not change, and outputs and the workspace must not be used. Throws
  // Error(argument) or Error(device); then views may be rendered or not.
  void launch(void* workspace, size_t bytes, void* stream);

  size_t device_bytes() const;   // held on the device
  uint64_t allocations() const;  // of pinned memory, since the start
  const Options& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pass_loader::cuda
