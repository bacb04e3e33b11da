// System calls that Linux has, and what stands in for them elsewhere.
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace pass_loader {

#if defined(__linux__)
constexpr int kMaxCpus = CPU_SETSIZE;

// Lets a thread run on one CPU alone. Returns 0, or an error's number.
inline int run_on_cpu(pthread_t thread, int cpu) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  CPU_SET(cpu, &allowed);
  return pthread_setaffinity_np(thread, sizeof allowed, &allowed);
}

// Says if a byte of a file can be read without waiting. If not, errno says why: EAGAIN where it is not in memory.
inline bool readable_at_once(int descriptor, int64_t at) {
  uint8_t byte;
  iovec part{&byte, 1};
  return ::preadv2(descriptor, &part, 1, at, RWF_NOWAIT) >= 0;
}

// Names a thread, as debuggers, `top -H` and /proc show it: at most 15 characters.
inline void name_thread(pthread_t thread, const char* name) { (void)::pthread_setname_np(thread, name); }

// Asks for bytes to be read into memory, and does not wait.
inline void read_soon(int descriptor, int64_t offset, int64_t bytes) {
  (void)::posix_fadvise(descriptor, offset, bytes, POSIX_FADV_WILLNEED);
}

// Asks for large pages, which miss the TLB less often. Where that is refused, nothing is lost.
inline void prefer_large_pages(void* memory, size_t bytes) { (void)::madvise(memory, bytes, MADV_HUGEPAGE); }

// Puts the open file of one descriptor in the place of another's, in one step.
inline bool replace_file(int descriptor, int replaced) { return ::dup3(descriptor, replaced, O_CLOEXEC) >= 0; }
#else
constexpr int kMaxCpus = 1024;

inline int run_on_cpu(pthread_t, int) { return ENOTSUP; }

inline bool readable_at_once(int, int64_t) {
  errno = ENOTSUP;
  return false;
}

inline void name_thread(pthread_t, const char*) {}

inline void read_soon(int, int64_t, int64_t) {}

inline void prefer_large_pages(void*, size_t) {}

inline bool replace_file(int descriptor, int replaced) {
  return ::dup2(descriptor, replaced) >= 0 && ::fcntl(replaced, F_SETFD, FD_CLOEXEC) == 0;
}
#endif

}  // namespace pass_loader
