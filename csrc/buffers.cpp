#include "buffers.h"

#include <new>

#include "image.h"

namespace pass_loader {

void* BufferPool::take(size_t bytes) {
  {
    std::lock_guard lock(mutex_);
    for (size_t i = unused_.size(); i-- > 0;) {
      if (unused_[i].bytes != bytes) continue;
      void* memory = unused_[i].memory;
      unused_.erase(unused_.begin() + static_cast<std::ptrdiff_t>(i));
      return memory;
    }
    unused_.reserve(keep_ + 1);  // so that give_back allocates nothing
  }
  void* memory = std::aligned_alloc(kTile, round_up(bytes, kTile));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void BufferPool::give_back(void* memory, size_t bytes) noexcept {
  void* surplus = nullptr;
  {
    std::lock_guard lock(mutex_);
    unused_.push_back({memory, bytes});
    if (unused_.size() > keep_) {  // free the oldest, so that sizes nobody asks for any more leave first
      surplus = unused_.front().memory;
      unused_.erase(unused_.begin());
    }
  }
  std::free(surplus);
}

}  // namespace pass_loader
