// A library to be preloaded: counts the calls of glibc's malloc family while counting is on, by the shared object that
// asked, which is the innermost one on the stack that is not the C or C++ run-time library.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <link.h>
#include <unwind.h>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
}

namespace {

struct Object {
  char name[256];
  uintptr_t begin, end;  // its addresses
  bool runtime;
  std::atomic<long> calls;
};

constexpr int kObjects = 512;
Object objects[kObjects];
int known = 0;
std::atomic<bool> counting = false;
thread_local bool inside = false;  // whatever is allocated in order to count is not counted

const char* const kRuntime[] = {"/libc.so", "/libstdc++.so", "/libgcc_s.so", "/ld-linux", "count_allocations"};

int remember(dl_phdr_info* info, size_t, void*) {
  if (known == kObjects) return 1;
  Object& object = objects[known++];
  std::strncpy(object.name, *info->dlpi_name != '\0' ? info->dlpi_name : "the program", sizeof object.name - 1);
  object.begin = UINTPTR_MAX, object.end = 0, object.runtime = false, object.calls = 0;
  for (const char* part : kRuntime) object.runtime |= std::strstr(object.name, part) != nullptr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t begin = info->dlpi_addr + segment.p_vaddr, end = begin + segment.p_memsz;
    if (begin < object.begin) object.begin = begin;
    if (end > object.end) object.end = end;
  }
  return 0;
}

// Called frame by frame, outwards; ends at the first frame of an object that is not the run time's.
_Unwind_Reason_Code look_at(_Unwind_Context* frame, void*) {
  const uintptr_t place = _Unwind_GetIP(frame);
  for (int i = 0; i < known; ++i) {
    if (place < objects[i].begin || place >= objects[i].end || objects[i].runtime) continue;
    ++objects[i].calls;
    return _URC_END_OF_STACK;
  }
  return _URC_NO_REASON;
}

void count() {
  if (!counting || inside) return;
  inside = true;
  _Unwind_Backtrace(look_at, nullptr);
  inside = false;
}

}  // namespace

extern "C" {

void* malloc(size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
void* calloc(size_t number, size_t bytes) {
  count();
  return __libc_calloc(number, bytes);
}
void* realloc(void* memory, size_t bytes) {
  count();
  return __libc_realloc(memory, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  count();
  *memory = __libc_memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}

// Objects that are loaded later are not seen.
void start_counting() {
  known = 0;
  dl_iterate_phdr(remember, nullptr);
  counting = true;
}
void stop_counting() { counting = false; }
int objects_known() { return known; }
const char* object_name(int i) { return objects[i].name; }
long object_calls(int i) { return objects[i].calls; }
}
