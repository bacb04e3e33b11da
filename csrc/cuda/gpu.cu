#include "cuda/gpu.h"

#include <vector>

#include "cuda/idct.h"
#include "cuda/render.h"
#include "cuda/runtime.cuh"

namespace pass_loader::cuda {
namespace {

class CudaGpu final : public Gpu {
 public:
  explicit CudaGpu(int device) : device_(device) {}
  ~CudaGpu() override {
    if (!enter()) return;
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
    leave();
  }

  bool enter() override { return cudaGetDevice(&before_) == cudaSuccess && choose(before_); }
  void leave() override {
    if (before_ != device_) cudaSetDevice(before_);
  }

  void* allocate(size_t bytes, bool pinned) override {
    choose_in_this_thread();
    void* memory = nullptr;
    const cudaError_t error =
        pinned ? cudaHostAlloc(&memory, bytes, cudaHostAllocPortable) : cudaMalloc(&memory, bytes);
    if (error == cudaSuccess) return memory;
    cudaGetLastError();
    return nullptr;
  }
  void release(void* memory, bool pinned) override {
    choose_in_this_thread();
    pinned ? cudaFreeHost(memory) : cudaFree(memory);
  }

  void copy(void* to, const void* from, size_t bytes, void* stream) override {
    const auto queue = static_cast<cudaStream_t>(stream);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, queue), "copying tables");
  }
  void convert(const Conversion& conversion, void* stream) override {
    launch_kernel(ToRgb{conversion}, conversion.tiles.count, static_cast<cudaStream_t>(stream));
  }

  void decode(const Decoding& decoding, void* stream) override {
    launch_decoding(decoding, [=](const auto& kernel, int32_t blocks) {
      launch_kernel(kernel, blocks, static_cast<cudaStream_t>(stream));
    });
  }

  int make_event() override {
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, kEventFlags), "making an event");
    events_.push_back(event);
    return static_cast<int>(events_.size()) - 1;
  }
  void record(int event, void* stream) override {
    const auto queue = static_cast<cudaStream_t>(stream);
    check(cudaEventRecord(events_[static_cast<size_t>(event)], queue), "recording an event");
  }
  void wait(int event) override {
    check(cudaEventSynchronize(events_[static_cast<size_t>(event)]), "waiting for an earlier decoding");
  }

 private:
  bool choose(int now) { return now == device_ || cudaSetDevice(device_) == cudaSuccess; }

  // A thread of nvJPEG's stays at the device: to restore another one would make a context there. Ours is there already.
  void choose_in_this_thread() {
    int now = 0;
    if (cudaGetDevice(&now) == cudaSuccess) choose(now);
  }

  const int device_;
  int before_ = 0;
  std::vector<cudaEvent_t> events_;
};

}  // namespace

std::unique_ptr<Gpu> make_gpu(int device) {
  const std::string reason = unavailable();
  PL_CHECK(reason.empty(), Fault::device, "%s", reason.c_str());
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "counting devices");
  PL_CHECK(device >= 0 && device < devices, Fault::argument, "device %d: there are %d", device, devices);
  return std::make_unique<CudaGpu>(device);
}

}  // namespace pass_loader::cuda
