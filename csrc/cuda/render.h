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

// Why no GPU can be used, with the remedy; empty: one can. Never throws; the first call asks the driver.
std::string unavailable();

struct Options {
  int device = 0;
  Form form{4, false};
  std::array<uint32_t, 3 * 256> normalize_table{};  // [channel][byte]: an element's bits
  size_t workspace_limit = size_t{512} << 20;       // bytes; a batch that needs more is rendered in parts
};

// Belongs to one thread at a time. Allocates on the device only when a batch needs more than all before it, within
// workspace_limit (a single view may exceed it); the steady state allocates nothing and waits for nothing, but for the
// oldest of kSlots batches when so many have not begun.
class Renderer {
 public:
  static constexpr int kSlots = 4;

  explicit Renderer(const Options& options);  // throws Error(argument) or Error(device)
  ~Renderer();
  Renderer(const Renderer&) = delete;

  // Queues the views on `stream` (a cudaStream_t of the renderer's device). Pictures must stay as they are, and outputs
  // be left alone, until the stream has come so far; jobs, and the array of pictures, are free on return. Jobs of one
  // picture should follow one another: its pixels then stay in the cache. Throws Error(argument), Error(device); views
  // of a call that fails may be rendered or not.
  void render(std::span<const Picture> pictures, std::span<const Job> jobs, void* stream);

  size_t device_bytes() const;   // held on the device
  uint64_t allocations() const;  // on the device and of pinned memory, since the start
  const Options& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pass_loader::cuda
