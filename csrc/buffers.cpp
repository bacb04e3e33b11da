#include "buffers.h"

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
  return take_memory(bytes);
}

void BufferPool::give_back(void* memory, size_t bytes) noexcept {
  Buffer surplus{nullptr, 0};
  {
    std::lock_guard lock(mutex_);
    unused_.push_back({memory, bytes});
    if (unused_.size() > keep_) {  // free the oldest, so that sizes nobody asks for any more leave first
      surplus = unused_.front();
      unused_.erase(unused_.begin());
    }
  }
  give_memory_back(surplus.memory, surplus.bytes);
}

}  // namespace pass_loader
