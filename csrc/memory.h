// Memory for pictures and batches. Large memory comes from the system and goes back to it: from the heap, memory of
// threads that come and go leaves holes that are never given back.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>

#include <sys/mman.h>

#include "system_calls.h"

namespace pass_loader {

constexpr size_t kMemoryAlign = 64;
#ifdef PASS_LOADER_ASAN  // which watches the heap
constexpr size_t kLargeMemory = static_cast<size_t>(-1);
#else
constexpr size_t kLargeMemory = size_t{1} << 20;  // bytes, from which on a mapping of its own costs little
#endif

// The contents are undefined. Throws std::bad_alloc.
inline void* take_memory(size_t bytes) {
  if (bytes < kLargeMemory) {
    void* memory = std::aligned_alloc(kMemoryAlign, (bytes + kMemoryAlign - 1) / kMemoryAlign * kMemoryAlign);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  prefer_large_pages(memory, bytes);
  return memory;
}

// bytes: as they were asked for. Null is allowed.
inline void give_memory_back(void* memory, size_t bytes) noexcept {
  if (memory == nullptr) return;
  if (bytes < kLargeMemory)
    std::free(memory);
  else
    ::munmap(memory, bytes);
}

}  // namespace pass_loader
