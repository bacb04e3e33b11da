// Memory for batches that is used again. A fresh batch of 134 MB costs a page fault every 4 kB, about 0.7 ms for each
// DINO sample; a pool pays that once. A buffer returns to it when the last tensor that borrows the buffer dies.
#pragma once
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "memory.h"

namespace pass_loader {

class BufferPool {
 public:
  // Keeps at most `keep` unused buffers and frees any others.
  explicit BufferPool(size_t keep) : keep_(keep) {}
  ~BufferPool() {
    for (const Buffer& buffer : unused_) give_memory_back(buffer.memory, buffer.bytes);
  }
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // The contents are undefined. Throws std::bad_alloc.
  void* take(size_t bytes);
  void give_back(void* memory, size_t bytes) noexcept;

 private:
  struct Buffer {
    void* memory;
    size_t bytes;
  };
  const size_t keep_;
  std::mutex mutex_;
  std::vector<Buffer> unused_;
};

}  // namespace pass_loader
