// What a stream is where a test's queue stands in for a GPU: the address of one of these.
#pragma once
#include <functional>

struct HostStream {
  std::function<void(std::function<void()>)> enqueue;
};
