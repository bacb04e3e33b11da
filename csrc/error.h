// The only way to fail: an Error has the kind of fault and a message that says what was found and what was wanted.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace pass_loader {

enum class Fault {
  argument,  // the caller's mistake: a plan that leaves the picture, a recipe with a negative range
  record,    // the bytes of one record are bad: broken JPEG, wrong checksum
  io,        // the storage failed: a shard is missing, shorter than its index says, unreadable
  device,    // the GPU: none, a driver too old, no memory
};

class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& message) : std::runtime_error(message), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

[[noreturn, gnu::format(printf, 2, 3), gnu::cold]] inline void fail(Fault fault, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  throw Error(fault, message);
}

}  // namespace pass_loader

// PL_CHECK(condition, fault, "found %d, want %d", ...)
#define PL_CHECK(condition, fault, ...)          \
  do {                                           \
    if (!(condition)) [[unlikely]]               \
      ::pass_loader::fail((fault), __VA_ARGS__); \
  } while (false)
