// Times the ways of the first pass on a batch of pictures and plans, and compares their bytes: first_pass.py compiles
// this by nvcc for a GPU, or by g++ for the CPU, and calls it.
#include "first_pass.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "error.h"
#if defined(__CUDACC__)
#include "cuda/runtime.cuh"
#endif

using namespace pass_loader;
using namespace pass_loader::cuda;

namespace {

// What a GPU does, or the CPU in its place.
#if defined(__CUDACC__)
struct Free {
  void operator()(uint8_t* memory) const { cudaFree(memory); }
};
uint8_t* allocate(size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "allocating");
  return static_cast<uint8_t*>(memory);
}
void copy(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "copying");
}
void fill(uint8_t* memory, size_t bytes) { check(cudaMemset(memory, 0xA5, bytes), "filling"); }

template <typename Kernel>
void start(const Kernel& kernel, int32_t blocks) {
  launch_kernel(kernel, blocks, nullptr);
}

// Between two events.
template <typename Work>
float milliseconds(const Work& work) {
  struct Event {
    Event() { check(cudaEventCreate(&event), "making an event"); }
    ~Event() { cudaEventDestroy(event); }
    cudaEvent_t event = nullptr;
  } begin, end;
  check(cudaEventRecord(begin.event), "recording an event");
  work();
  check(cudaEventRecord(end.event), "recording an event");
  check(cudaEventSynchronize(end.event), "waiting");
  float took = 0;
  check(cudaEventElapsedTime(&took, begin.event, end.event), "asking for the time");
  return took;
}

template <typename Kernel>
void resources_of(int32_t (&found)[4]) {
  cudaFuncAttributes about;
  int blocks = 0, most = 0, device = 0;
  check(cudaFuncGetAttributes(&about, run<Kernel>), "asking for a kernel's registers");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, run<Kernel>, kThreads, 0), "asking for the occupancy");
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxThreadsPerMultiProcessor, device), "asking for the device's kind");
  found[0] = about.numRegs, found[1] = static_cast<int32_t>(about.localSizeBytes);
  found[2] = blocks, found[3] = 100 * blocks * kThreads / most;
}
#else
struct Free {
  void operator()(uint8_t* memory) const { std::free(memory); }
};
uint8_t* allocate(size_t bytes) {
  return static_cast<uint8_t*>(std::aligned_alloc(Packing::kAlign, (bytes + 255) / 256 * 256));
}
void copy(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void fill(uint8_t* memory, size_t bytes) { std::memset(memory, 0xA5, bytes); }

template <typename Kernel>
void start(const Kernel& kernel, int32_t blocks) {
  typename Kernel::Shared shared;
  for (int32_t block = 0; block < blocks; ++block)
    for (int phase = 0; phase < Kernel::kPhases; ++phase)
      for (int32_t thread = 0; thread < kThreads; ++thread) kernel.run(phase, block, thread, shared);
}

template <typename Work>
float milliseconds(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<float, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

template <typename Kernel>
void resources_of(int32_t (&)[4]) {}
#endif

struct Bench {
  Bench(std::span<const Picture> pictures, std::span<const Job> jobs) {
    const size_t taken = packing.pack(pictures, jobs, {1, true}, size_t{1} << 40);
    PL_CHECK(taken == jobs.size(), Fault::argument, "only %zu of %zu views are packed", taken, jobs.size());
    const size_t tables = packing.table_bytes();
    memory.reset(allocate(tables + packing.workspace_bytes()));
    std::vector<uint8_t> written(tables);
    packing.write(written.data());
    copy(memory.get(), written.data(), tables);
    batch = packing.batch(memory.get(), memory.get() + tables, nullptr);
    PL_CHECK(batch.via_first.count == 0, Fault::argument,
             "a view is resized twice: the first pass alone is timed here");
    start(Weights{batch}, batch.weights.count);
    pixels = static_cast<size_t>(reinterpret_cast<uint8_t*>(batch.tables) - batch.pixels);
    want = made_by(FirstPass{batch, batch.first});
  }

  template <typename Kernel>
  void pass(const Kernel& kernel) const {
    start(kernel, batch.first.count * Kernel::kParts);
  }

  template <typename Kernel>
  std::vector<uint8_t> made_by(const Kernel& kernel) const {
    fill(batch.pixels, pixels);
    pass(kernel);
    std::vector<uint8_t> found(pixels);
    copy(found.data(), batch.pixels, pixels);
    return found;
  }

  Packing packing;
  std::unique_ptr<uint8_t, Free> memory;
  Batch batch{};
  size_t pixels = 0;
  std::vector<uint8_t> want;
};

constexpr size_t kWordsBytes = 512;

// Runs `work`; returns 0, or 1 and the reason.
template <typename Work>
int told(char* reason, const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(reason, kWordsBytes, "%s", error.what());
    return 1;
  }
}

}  // namespace

extern "C" {

int first_pass_ways() {
  int count = 0;
  each_way([&](int, auto) { ++count; });
  return count;
}

const char* first_pass_name(int way) {
  const char* found = "";
  each_way([&](int number, auto one) { found = number == way ? one.name : found; });
  return found;
}

// plans: one for each entry of picture_of. reason: kWordsBytes. Writes the bench, to be closed.
int first_pass_open(const Picture* pictures, int64_t count, const ViewPlan* plans, const int32_t* picture_of,
                    int64_t views, void** bench, char* reason) {
  return told(reason, [&] {
    std::vector<Job> jobs;
    for (int64_t i = 0; i < views; ++i)
      jobs.push_back({plans[i], picture_of[i], reinterpret_cast<void*>(Packing::kAlign)});  // nothing is written there
    *bench = new Bench({pictures, static_cast<size_t>(count)}, jobs);
  });
}

void first_pass_close(void* bench) { delete static_cast<Bench*>(bench); }

// Writes the milliseconds of each round; whether the bytes are those of way 0; registers, bytes of local memory, blocks
// on a multiprocessor and its occupancy in percent.
int first_pass_time(const void* opened, int way, int rounds, float* took, int32_t* equal, int32_t* resources,
                    char* reason) {
  return told(reason, [&] {
    const auto& bench = *static_cast<const Bench*>(opened);
    each_way([&]<typename Kernel>(int number, Way<Kernel>) {
      if (number != way) return;
      const Kernel kernel{bench.batch, bench.batch.first};
      *equal = bench.made_by(kernel) == bench.want;
      for (int i = 0; i < rounds; ++i) took[i] = milliseconds([&] { bench.pass(kernel); });
      int32_t found[4] = {};
      resources_of<Kernel>(found);
      std::copy_n(found, 4, resources);
    });
  });
}
}
