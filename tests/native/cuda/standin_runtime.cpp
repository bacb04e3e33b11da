// A library in the CUDA runtime's place, for nvcc's own host objects of csrc/cuda/*.cu:
// tests/helpers/standin_runtime.py. Streams are queues that the CPU executes as late as it may, or in an order drawn
// from a seed; kernels are executed by run_block.h. Device memory can be touched only while an operation of a stream
// runs. Calls are counted, and fail where the test says so. A mistake that CUDA leaves undefined ends the process with
// words.
#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include "cuda/idct.h"
#include "cuda/kernels.h"
#include "host_stream.h"
#include "run_block.h"

using namespace pass_loader;

namespace {

struct Stream;

struct Event {
  unsigned flags;
  long recorded = 0, reached = 0;  // how many times
  Stream* on = nullptr;            // where it was recorded last
};

struct Operation {
  std::function<void()> run;  // or, if empty: of an event,
  Event* event = nullptr;
  long number = 0;       // the record that is reached, or waited for
  Stream* on = nullptr;  // where that record is; null: this operation is the record
};

struct Stream : HostStream {  // whose address nvJPEG's stand-in takes
  std::deque<Operation> queue;
  bool sleeps = false;  // what is queued takes longer than that of other streams
};

using Lock = std::lock_guard<std::recursive_mutex>;
std::recursive_mutex mutex;
Stream legacy;
std::vector<Stream*> streams{&legacy};
std::map<char*, size_t> device, pinned;  // pieces of memory and their bytes
std::map<const void*, std::string> kernels;
std::map<std::string, long> counts, failures;  // failures: after so many further calls, counted down
size_t used = 0;                               // bytes of device memory
std::mt19937 order;
bool is_shuffled = false;
int running = 0;                                       // operations, one inside another
cudaError_t last = cudaSuccess, wanted = cudaSuccess;  // wanted: in place of a call's own
int driver = CUDART_VERSION;
constexpr int kDevices = 2;
constexpr size_t kMemoryBytes = size_t{1} << 33;
thread_local int current = 0;
bool contexts[kDevices] = {};
struct Launch {
  dim3 blocks, threads;
  size_t shared;
  cudaStream_t stream;
};
thread_local Launch configured;

[[noreturn, gnu::format(printf, 1, 2)]] void give_up(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fputs("the CUDA runtime's stand-in: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  std::abort();
}

constexpr size_t kPage = 4096, kAlign = 256;

size_t pages(size_t bytes) { return (bytes + kPage - 1) & ~(kPage - 1); }

char* page_of(char* memory) { return memory - reinterpret_cast<uintptr_t>(memory) % kPage; }

// A piece of memory ends where its last page does, as far as its alignment lets it. The pages before and behind it
// cannot be touched.
void protect(char* memory, size_t bytes, int protection) {
  if (mprotect(page_of(memory), pages(bytes), protection) != 0) give_up("mprotect: no memory");
}

void open_memory(bool open) {
  for (const auto& [memory, bytes] : device) protect(memory, bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

// While it lives, device memory can be touched. Held around many operations, as each piece of memory is a system call.
struct Running {
  Running() {
    if (running++ == 0) open_memory(true);
  }
  ~Running() {
    if (--running == 0) open_memory(false);
  }
};

void step(Stream& stream);

void reach(const Event& event, long number, Stream* on) {
  if (event.reached >= number) return;
  const Running open;
  while (event.reached < number) {
    if (on == nullptr || on->queue.empty()) give_up("a wait for what never comes");
    step(*on);
  }
}

void step(Stream& stream) {
  Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (operation.run) {
    const Running open;
    operation.run();
  } else if (operation.on != nullptr) {
    reach(*operation.event, operation.number, operation.on);
  } else {
    operation.event->reached = std::max(operation.event->reached, operation.number);
  }
}

void run_some() {  // streams are not bound to each other but by events
  if (!is_shuffled) return;
  for (int count = static_cast<int>(order() % 4); count > 0; --count) {
    Stream& stream = *streams[order() % streams.size()];
    if (!stream.queue.empty()) step(stream);
  }
}

void run_all() {
  std::optional<Running> open;
  if (std::any_of(streams.begin(), streams.end(), [](Stream* s) { return !s->queue.empty(); })) open.emplace();
  if (is_shuffled)  // one operation of any stream after another
    for (size_t left = 1; left > 0;) {
      std::vector<Stream*> waiting;
      std::copy_if(streams.begin(), streams.end(), std::back_inserter(waiting),
                   [](Stream* s) { return !s->queue.empty(); });
      left = waiting.size();
      if (left > 0) step(*waiting[order() % left]);
    }
  std::vector<Stream*> late(streams.rbegin(), streams.rend());  // the youngest first
  std::stable_partition(late.begin(), late.end(), [](Stream* s) { return !s->sleeps; });
  for (bool any = true; any;) {
    any = false;
    for (Stream* stream : late)
      while (!stream->queue.empty()) step(*stream), any = true;
  }
  for (Stream* stream : late) stream->sleeps = false;
}

Stream& stream_of(cudaStream_t handle) {
  if (handle == nullptr) return legacy;
  auto* stream = reinterpret_cast<Stream*>(handle);
  if (std::find(streams.begin(), streams.end(), stream) == streams.end()) give_up("no such stream");
  return *stream;
}

cudaError_t answer(cudaError_t error) {
  if (error != cudaSuccess && wanted != cudaSuccess) error = wanted;
  if (error != cudaSuccess) last = error;
  return error;
}

bool fails(const char* call) {
  const auto found = failures.find(call);
  return found != failures.end() && found->second-- == 0;
}

// Counts a call. Returns false if it shall fail.
bool enter(const char* call) {
  run_some();
  ++counts[call];
  return !fails(call);
}

void* map_memory(std::map<char*, size_t>& into, size_t bytes, int protection) {
  void* whole = mmap(nullptr, pages(bytes) + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) give_up("mmap: no memory");
  char* end = static_cast<char*>(whole) + kPage + pages(bytes);
  char* memory = end - (bytes + kAlign - 1) / kAlign * kAlign;
  protect(memory, bytes, PROT_READ | PROT_WRITE);
  std::memset(memory, 0xA5, static_cast<size_t>(end - memory));
  protect(memory, bytes, protection);
  into[memory] = bytes;
  return memory;
}

size_t unmap(std::map<char*, size_t>& from, void* memory) {
  run_all();  // as freeing waits for the device
  const auto found = from.find(static_cast<char*>(memory));
  if (found == from.end()) give_up("memory that is not there is freed");
  const size_t bytes = found->second;
  munmap(page_of(found->first) - kPage, pages(bytes) + 2 * kPage);
  from.erase(found);
  return bytes;
}

template <typename Kernel>
bool queue_if(const std::string& name, const char* wanted, void** arguments, dim3 blocks, Stream& stream) {
  if (name.find(wanted) == std::string::npos) return false;
  const Kernel kernel = *static_cast<const Kernel*>(arguments[0]);
  stream.queue.push_back({[=] { run_blocks(kernel, static_cast<int32_t>(blocks.x), false); }});
  return true;
}

}  // namespace

extern "C" {

// What nvcc's host code calls.
void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  kernels[function] = name;
}
unsigned __cudaPushCallConfiguration(dim3 blocks, dim3 threads, size_t shared, CUstream_st* stream) {
  configured = {blocks, threads, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* blocks, dim3* threads, size_t* shared, void* stream) {
  *blocks = configured.blocks, *threads = configured.threads, *shared = configured.shared;
  *static_cast<cudaStream_t*>(stream) = configured.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 blocks, dim3 threads, void** arguments, size_t,
                               cudaStream_t handle) {
  const Lock lock(mutex);
  if (!enter("launch")) return answer(cudaErrorLaunchOutOfResources);
  if (blocks.x < 1 || threads.x != cuda::kThreads) return answer(cudaErrorInvalidConfiguration);
  const std::string& name = kernels.at(kernel);
  Stream& stream = stream_of(handle);
#define PL_QUEUE(Kernel, mangled) queue_if<cuda::Kernel>(name, mangled, arguments, blocks, stream)
  if (PL_QUEUE(Weights, "7Weights") || PL_QUEUE(FirstPass, "9FirstPass") || PL_QUEUE(SecondPass, "10SecondPass") ||
      PL_QUEUE(Finish, "6Finish") || PL_QUEUE(BlurAcross, "10BlurAcross") || PL_QUEUE(BlurDown, "8BlurDown") ||
      PL_QUEUE(KernelBlur, "10KernelBlur") || PL_QUEUE(ToRgb, "5ToRgb") || PL_QUEUE(DctRows, "7DctRows") ||
      PL_QUEUE(Idct, "4Idct") || PL_QUEUE(Scans, "5Scans") || PL_QUEUE(ScanIdct, "8ScanIdct"))
    return cudaSuccess;
#undef PL_QUEUE
  give_up("no such kernel: %s", name.c_str());
}

cudaError_t cudaDriverGetVersion(int* version) { return *version = driver, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  const Lock lock(mutex);
  return fails("count") ? answer(cudaErrorNoDevice) : (*count = kDevices, cudaSuccess);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 9, cudaSuccess; }
cudaError_t cudaGetDevice(int* number) { return *number = current, cudaSuccess; }
cudaError_t cudaSetDevice(int number) {
  const Lock lock(mutex);
  current = number;
  contexts[number] = true;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error that the test wants";
}
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheTest"; }
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  const Lock lock(mutex);
  thread_local cudaStreamCaptureMode mine = cudaStreamCaptureModeGlobal;
  std::swap(mine, *mode);
  if (mine == cudaStreamCaptureModeRelaxed) ++counts["relaxed"];
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Lock lock(mutex);
  contexts[current] = true;
  if (!enter("malloc") || used + bytes > kMemoryBytes) return answer(cudaErrorMemoryAllocation);
  *memory = map_memory(device, bytes, running > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  used += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  const Lock lock(mutex);
  if (memory != nullptr) used -= unmap(device, memory);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  const Lock lock(mutex);
  if (!enter("host_alloc")) return answer(cudaErrorMemoryAllocation);
  *memory = map_memory(pinned, bytes, PROT_READ | PROT_WRITE);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(mutex);
  if (memory != nullptr) unmap(pinned, memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  const Lock lock(mutex);
  run_all();
  const Running open;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t handle) {
  const Lock lock(mutex);
  if (!enter("copy")) return answer(cudaErrorInvalidValue);
  stream_of(handle).queue.push_back({[=] { std::memcpy(to, from, bytes); }});
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t handle) {
  const Lock lock(mutex);
  if (!enter("copy")) return answer(cudaErrorInvalidValue);
  stream_of(handle).queue.push_back({[=] {
    for (size_t y = 0; y < height; ++y)
      std::memcpy(static_cast<char*>(to) + y * to_pitch, static_cast<const char*>(from) + y * from_pitch, width);
  }});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const Lock lock(mutex);
  *event = reinterpret_cast<cudaEvent_t>(new Event{flags});
  ++counts["events"];
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {  // its memory stays: what is queued may name it
  const Lock lock(mutex);
  --counts["events"];
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t on) {
  const Lock lock(mutex);
  if (!enter("record")) return answer(cudaErrorInvalidValue);
  auto& event = *reinterpret_cast<Event*>(handle);
  event.on = &stream_of(on);
  event.on->queue.push_back({{}, &event, ++event.recorded});
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t of, unsigned) {
  const Lock lock(mutex);
  if (!enter("wait")) return answer(cudaErrorInvalidValue);
  auto& event = *reinterpret_cast<Event*>(of);
  if (event.recorded > event.reached) stream_of(handle).queue.push_back({{}, &event, event.recorded, event.on});
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  const Lock lock(mutex);
  const auto& event = *reinterpret_cast<const Event*>(handle);
  if (event.reached < event.recorded) ++counts[event.flags & cudaEventBlockingSync ? "slept" : "spun"];
  reach(event, event.recorded, event.on);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const Lock lock(mutex);
  Stream& stream = stream_of(handle);
  std::optional<Running> open;
  if (!stream.queue.empty()) open.emplace();
  while (!stream.queue.empty()) step(stream);
  return cudaSuccess;
}

// What the tests call.
int standin_reached(cudaEvent_t handle) {
  const Lock lock(mutex);
  const auto& event = *reinterpret_cast<const Event*>(handle);
  return event.reached >= event.recorded;
}
void* standin_stream() {
  const Lock lock(mutex);
  auto* stream = new Stream;
  stream->enqueue = [stream](std::function<void()> work) {
    const Lock inside(mutex);
    stream->queue.push_back({std::move(work)});
  };
  streams.push_back(stream);
  return stream;
}
void standin_sleep(cudaStream_t handle) {
  const Lock lock(mutex);
  stream_of(handle).sleeps = true;
}
void standin_synchronize() {
  const Lock lock(mutex);
  run_all();
}
void standin_shuffle(int seed) {  // -1: as late as may be
  const Lock lock(mutex);
  is_shuffled = seed >= 0;
  order.seed(static_cast<unsigned>(seed));
}
// after: further calls that succeed; -1: none fails. error: what all that fail return; 0: each its own.
void standin_fail(const char* call, long after, int error) {
  const Lock lock(mutex);
  failures[call] = after;
  wanted = static_cast<cudaError_t>(error);
}
int standin_driver(int version) { return std::exchange(driver, version); }  // returns the one before
size_t standin_used() { return used; }
size_t standin_pieces() { return device.size() + pinned.size(); }
long standin_count(const char* call) {
  const Lock lock(mutex);
  return counts[call];
}
int standin_has_context(int number) { return contexts[number]; }
void standin_open(int open) {  // device memory, for a library that writes when it is called
  const Lock lock(mutex);
  static Running* running_now = nullptr;
  delete std::exchange(running_now, open ? new Running : nullptr);
}
void standin_read(void* to, const void* from, size_t bytes) {
  const Lock lock(mutex);
  const Running open;
  std::memcpy(to, from, bytes);
}
}
