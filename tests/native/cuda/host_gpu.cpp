// The module host_gpu: JpegDecoder and ExactDecoder on a GPU whose queue is a Python list of the test's lane
// (cpu_lane.py), executed by the CPU as late as the test wants. Device memory is the host's.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>

#include "bindings_gpu.h"
#include "cuda/idct.h"
#include "error.h"
#include "host_stream.h"
#include "run_block.h"

namespace py = pybind11;
using namespace pass_loader;

namespace {

long held = 0;  // pieces of memory that were allocated and not released

// Called without the interpreter's lock. Garbage that is collected at once may lose its lane first.
class HostGpu final : public cuda::Gpu {
 public:
  explicit HostGpu(const py::handle& lane) : lane_(lane) {}
  ~HostGpu() override {
    const py::gil_scoped_acquire lock;
    lane_.release().dec_ref();
  }

  bool enter() override { return true; }
  void leave() override {}
  void* allocate(size_t bytes, bool) override {
    void* memory = std::malloc(bytes);
    std::memset(memory, 0xA5, bytes);
    ++held;
    return memory;
  }
  void release(void* memory, bool) override {
    std::memset(memory, 0x5A, 1);
    std::free(memory);
    --held;
  }
  void copy(void* to, const void* from, size_t bytes, void*) override {
    enqueue([=] { std::memcpy(to, from, bytes); });
  }
  void convert(const cuda::Conversion& conversion, void*) override {
    enqueue([=] { run_blocks(cuda::ToRgb{conversion}, conversion.tiles.count, false); });
  }
  void decode(const cuda::Decoding& decoding, void*) override {
    cuda::launch_decoding(
        decoding, [&](const auto& kernel, int32_t blocks) { enqueue([=] { run_blocks(kernel, blocks, false); }); });
  }
  int make_event() override {
    places_.push_back(0);
    return static_cast<int>(places_.size()) - 1;
  }
  void record(int event, void*) override {
    const py::gil_scoped_acquire lock;
    places_[static_cast<size_t>(event)] = py::len(lane_().attr("queue"));
  }
  void wait(int event) override {
    const py::gil_scoped_acquire lock;
    const py::object lane = lane_();
    if (py::hasattr(lane, "queue")) lane.attr("run")(places_[static_cast<size_t>(event)]);  // else the lane is dying
  }

  void enqueue(std::function<void()> work) {
    const py::gil_scoped_acquire lock;
    lane_().attr("queue").attr("append")(py::cpp_function(std::move(work)));
  }

 private:
  py::weakref lane_;
  std::vector<size_t> places_;
};

}  // namespace

PYBIND11_MODULE(host_gpu, m) {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
  });
  const auto make = [](const py::object& lane) { return std::make_unique<HostGpu>(lane); };
  bind_nvjpeg(m, make);
  bind_exact(m, make);
  m.def("held", [] { return held; });
  m.def("stream", [](py::handle lane) {  // the address of a stream of this lane, which is never freed
    auto gpu = std::make_shared<HostGpu>(lane);
    auto* stream = new HostStream{[gpu](std::function<void()> work) { gpu->enqueue(std::move(work)); }};
    return reinterpret_cast<uintptr_t>(stream);
  });
}
