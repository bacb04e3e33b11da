#include "cuda/render.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cuda/kernels.h"
#include "cuda/runtime.cuh"

namespace pass_loader::cuda {
namespace {

// Pinned memory for tables, and the event after the copy from it.
struct Slot {
  void* memory = nullptr;
  size_t bytes = 0;
  cudaEvent_t copied = nullptr;
};

size_t with_room(size_t bytes) { return (bytes + bytes / 4 + 0xFFFFF) & ~size_t{0xFFFFF}; }

void check_options(const Options& options) {
  const int32_t bytes = options.form.element_bytes;
  PL_CHECK(bytes == 1 || bytes == 2 || bytes == 4, Fault::argument, "elements of %d bytes: want 1, 2 or 4", bytes);
  const std::string reason = unavailable();
  PL_CHECK(reason.empty(), Fault::device, "%s", reason.c_str());
  int devices = 0, major = 0;
  check(cudaGetDeviceCount(&devices), "counting devices");
  const int device = options.device;
  PL_CHECK(device >= 0 && device < devices, Fault::argument, "device %d: there are %d", device, devices);
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking for the device's kind");
  PL_CHECK(major >= 8, Fault::device, "device %d has compute capability %d.x; 8.0 (Ampere) or later is needed", device,
           major);
}

}  // namespace

struct Renderer::Impl {
  explicit Impl(const Options& chosen) : options(chosen) {}

  // Not done by the constructor, so that after a failure the destructor frees what was made.
  void open() {
    check_options(options);
    const Current current(options.device);
    check(cudaEventCreateWithFlags(&done, kEventFlags), "making an event");
    for (Slot& slot : slots) check(cudaEventCreateWithFlags(&slot.copied, kEventFlags), "making an event");
    check(cudaMalloc(&table, sizeof options.normalize_table), "allocating the normalisation table");
    check(cudaMemcpy(table, options.normalize_table.data(), sizeof options.normalize_table, cudaMemcpyHostToDevice),
          "copying the normalisation table");
  }

  // Ignores errors: at the end of the process CUDA may be gone.
  ~Impl() {
    int before = 0;
    if (cudaGetDevice(&before) != cudaSuccess) return;
    if (before != options.device && cudaSetDevice(options.device) != cudaSuccess) return;
    if (done != nullptr) cudaEventSynchronize(done), cudaEventDestroy(done);
    for (Slot& slot : slots) {
      if (slot.copied != nullptr) cudaEventDestroy(slot.copied);
      cudaFreeHost(slot.memory);
    }
    cudaFree(table);
    if (before != options.device) cudaSetDevice(before);
  }

  // Returns a slot with so much room whose last copy is done.
  Slot& need_slot(size_t bytes) {
    Slot& slot = slots[next_slot];
    next_slot = (next_slot + 1) % kSlots;
    check(cudaEventSynchronize(slot.copied), "waiting for an earlier batch to begin");
    if (bytes <= slot.bytes) return slot;
    check(cudaFreeHost(std::exchange(slot.memory, nullptr)), "freeing pinned memory");
    slot.bytes = 0;
    check(cudaHostAlloc(&slot.memory, with_room(bytes), cudaHostAllocPortable), "allocating pinned memory");
    slot.bytes = with_room(bytes);
    ++allocations;
    return slot;
  }

  size_t need() const { return packing.table_bytes() + packing.workspace_bytes(); }

  // The stream first waits for the batch before, which may be on another stream. So will the next batch for this one,
  // also where this one fails midway: what is queued by then uses the workspace.
  void launch(uint8_t* workspace, cudaStream_t stream) {
    Slot& slot = need_slot(packing.table_bytes());
    packing.write(slot.memory);
    check(cudaStreamWaitEvent(stream, done, 0), "ordering batches");
    try {
      queue(slot, workspace, stream);
    } catch (const Error&) {
      cudaEventRecord(slot.copied, stream);
      cudaEventRecord(done, stream);
      cudaGetLastError();
      throw;
    }
  }

  void queue(Slot& slot, uint8_t* workspace, cudaStream_t stream) {
    const size_t tables = packing.table_bytes();
    check(cudaMemcpyAsync(workspace, slot.memory, tables, cudaMemcpyHostToDevice, stream), "copying tables");
    check(cudaEventRecord(slot.copied, stream), "recording an event");
    const Batch batch = packing.batch(workspace, workspace + tables, table);
    launch_all(batch, [&](const auto& kernel, int32_t blocks) { launch_kernel(kernel, blocks, stream); });
    check(cudaEventRecord(done, stream), "recording an event");
  }

  Options options;
  Packing packing;
  cudaEvent_t done = nullptr;  // the last batch has been rendered
  Slot slots[kSlots];
  int next_slot = 0;
  uint32_t* table = nullptr;
  uint64_t allocations = 0;
};

void let_others_capture() {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check(cudaThreadExchangeStreamCaptureMode(&mode), "choosing what captures of other threads forbid");
}

std::string unavailable() {
  int driver = 0, devices = 0;
  char text[256];
  cudaError_t error = cudaDriverGetVersion(&driver);
  if (error == cudaSuccess && driver == 0) return "no NVIDIA driver was found on this machine";
  if (error == cudaSuccess && driver / 1000 < CUDART_VERSION / 1000) {
    const char* remedy_13 = CUDART_VERSION / 1000 == 13 ? ": driver 580 or later" : "";
    std::snprintf(text, sizeof text, "the NVIDIA driver supports CUDA %d.%d, this build needs CUDA %d.0%s",
                  driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, remedy_13);
    return text;
  }
  if (error == cudaSuccess) error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices > 0) return "";
  if (error == cudaSuccess) error = cudaErrorNoDevice;
  cudaGetLastError();
  return std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + "): " + remedy(error);
}

Renderer::Renderer(const Options& options) : impl_(std::make_unique<Impl>(options)) { impl_->open(); }
Renderer::~Renderer() = default;

// The packing's budget is for the workspace alone: where the tables exceed the limit, it packs again for less.
size_t Renderer::pack(std::span<const Picture> pictures, std::span<const Job> jobs) {
  const size_t limit = impl_->options.workspace_limit;
  size_t budget = limit;
  while (true) {
    const size_t taken = impl_->packing.pack(pictures, jobs, impl_->options.form, budget), need = impl_->need();
    if (taken <= 1 || need <= limit) return taken;
    budget -= std::min(budget, need - limit);
  }
}

size_t Renderer::workspace_bytes() const { return impl_->need(); }

void Renderer::launch(void* workspace, size_t bytes, void* stream) {
  PL_CHECK(bytes >= impl_->need() && reinterpret_cast<uintptr_t>(workspace) % Packing::kAlign == 0, Fault::argument,
           "a workspace of %zu bytes: want %zu at a multiple of %zu", bytes, impl_->need(), Packing::kAlign);
  const Current current(impl_->options.device);
  impl_->launch(static_cast<uint8_t*>(workspace), static_cast<cudaStream_t>(stream));
}

size_t Renderer::device_bytes() const { return sizeof impl_->options.normalize_table; }
uint64_t Renderer::allocations() const { return impl_->allocations; }
const Options& Renderer::options() const { return impl_->options; }

}  // namespace pass_loader::cuda
