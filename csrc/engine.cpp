#include "engine.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <system_error>
#include <thread>

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "decode.h"

namespace pass_loader {

// What rendering one sample needs; all of it is reused.
struct Engine::WorkingMemory {
  Scratch<uint8_t> bytes;
  Decoder decoder;
  std::vector<ViewPlan> plans;
  Scratch<uint8_t> gray;
  cpu::RenderScratch scratch;
  cpu::NearestScratch nearest;
};

// A thread, or the caller of an engine without threads.
struct Engine::Worker {
  StageTimes times;
  std::unique_ptr<WorkingMemory> memory;  // made by the thread itself
};

struct Engine::State {
  State(std::shared_ptr<const ShardReader> r, std::shared_ptr<const ShardReader> maps, std::vector<ViewSpec> views,
        uint64_t s, std::vector<cpu::Normalization> n, int threads)
      : reader(std::move(r)),
        heatmaps(std::move(maps)),
        recipe(std::move(views)),
        seed(s),
        normalizations(std::move(n)),
        workers(std::max(threads, 1)) {}

  std::shared_ptr<const ShardReader> reader, heatmaps;
  std::vector<ViewSpec> recipe;
  uint64_t seed;
  std::vector<cpu::Normalization> normalizations;  // one a source
  pid_t owner = ::getpid();

  std::mutex mutex;
  std::condition_variable work;
  std::deque<std::shared_ptr<Batch>> queue;
  std::atomic<bool> stopping = false;
  std::vector<std::thread> threads;
  std::vector<Worker> workers;  // one a thread; without threads the caller's
  std::mutex caller_mutex;      // several Python threads may wait on an engine without threads
};

namespace {
constexpr int64_t kLargePicturePx = int64_t{1} << 24;  // scratch grown for one larger than this is not kept
constexpr size_t kPlaceAlign = 256;                    // bytes: of a picture in an arena
constexpr size_t kRowAlign = 16;                       // and of its rows

// Where a picture of this size, or its file of so many bytes (0: its pixels), would go; offset -1: there is no room. A
// smaller one may find some yet.
ArenaPicture place_in(std::atomic<size_t>& used, size_t arena_bytes, int32_t height, int32_t width, size_t file) {
  const size_t row = round_up(static_cast<size_t>(width), kRowAlign), plane = row * static_cast<size_t>(height);
  ArenaPicture place{-1, height, width, static_cast<int64_t>(row), static_cast<int64_t>(plane)};
  const size_t wanted = round_up(file > 0 ? file : 3 * plane, kPlaceAlign);
  size_t begin = used;
  do {
    if (wanted > arena_bytes || begin > arena_bytes - wanted) return place;
  } while (!used.compare_exchange_weak(begin, begin + wanted));
  place.offset = static_cast<int64_t>(begin);
  return place;
}

// A gray picture becomes three equal planes: what renders them knows RGB alone.
void copy_planes(const ConstPlanes& picture, const ArenaPicture& place, uint8_t* arena) {
  for (int c = 0; c < 3; ++c) {
    uint8_t* to = arena + place.offset + c * place.plane_stride;
    const int from = picture.channels == 1 ? 0 : c;
    for (int32_t y = 0; y < picture.height; ++y, to += place.row_stride)
      std::memcpy(to, picture.row(from, y), static_cast<size_t>(picture.width));
  }
}

void check_deep(std::span<const ViewSpec> recipe, const cpu::OutputForm& form) {
  pass_loader::check_deep(recipe);
  PL_CHECK(form.element != cpu::Element::uint8, Fault::argument,
           "uint8 output would cut a gray picture of 16 bits to 8: ask for float32, float16 or bfloat16");
}
}  // namespace

Engine::Engine(std::shared_ptr<const ShardReader> reader, std::vector<ViewSpec> recipe, uint64_t seed,
               std::vector<cpu::Normalization> normalizations, int threads, const std::vector<int>& cpus,
               std::shared_ptr<const ShardReader> heatmaps) {
  PL_CHECK(!normalizations.empty(), Fault::argument, "want at least one normalisation");
  PL_CHECK(threads >= 0 && threads <= 1024, Fault::argument, "%d threads, want [0, 1024]", threads);
  for (int cpu : cpus)
    PL_CHECK(cpu >= 0 && cpu < CPU_SETSIZE, Fault::argument, "CPU %d, want [0, %d)", cpu, CPU_SETSIZE);
  state_ = std::make_unique<State>(std::move(reader), std::move(heatmaps), std::move(recipe), seed,
                                   std::move(normalizations), threads);
  check_recipe(state_->recipe);
  start(threads, cpus);
}

void Engine::start(int threads, const std::vector<int>& cpus) {
  state_->threads.reserve(static_cast<size_t>(threads));
  try {
    for (int i = 0; i < threads; ++i) {
      std::thread& thread = state_->threads.emplace_back([this, i] { run(state_->workers[i]); });
      if (cpus.empty()) continue;
      cpu_set_t allowed;
      CPU_ZERO(&allowed);
      CPU_SET(cpus[i % cpus.size()], &allowed);
      const int error = pthread_setaffinity_np(thread.native_handle(), sizeof allowed, &allowed);
      PL_CHECK(error == 0, Fault::argument, "cannot run a thread on CPU %d: %s", cpus[i % cpus.size()],
               std::strerror(error));
    }
  } catch (const std::system_error& error) {
    stop();
    fail(Fault::io, "cannot start thread %zu of %d: %s", state_->threads.size() + 1, threads, error.what());
  } catch (const Error&) {
    stop();
    throw;
  }
}

void Engine::stop() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->work.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

Engine::~Engine() {
  if (!in_owner_process()) {  // a fork has no threads of ours to join, and their locks may be held for ever
    (void)state_.release();
    return;
  }
  stop();
}

const std::vector<ViewSpec>& Engine::recipe() const { return state_->recipe; }
const cpu::OutputForm& Engine::form() const { return state_->normalizations.front().form; }
size_t Engine::sources() const { return state_->normalizations.size(); }
bool Engine::has_heatmaps() const { return state_->heatmaps != nullptr; }
bool Engine::in_owner_process() const { return ::getpid() == state_->owner; }

void Engine::check_owner() const {
  PL_CHECK(in_owner_process(), Fault::argument,
           "this loader's threads live in the process that forked this one: make an iterator here");
}

void Engine::submit(std::shared_ptr<Batch> batch) {
  check_owner();
  if (state_->threads.empty()) return;  // rendered by wait
  {
    std::lock_guard lock(state_->mutex);
    state_->queue.push_back(std::move(batch));
  }
  state_->work.notify_all();
}

bool Engine::wait(Batch& batch, std::chrono::milliseconds timeout) {
  check_owner();
  const int64_t count = static_cast<int64_t>(batch.records.size());
  if (state_->threads.empty()) {
    auto deadline = std::chrono::steady_clock::now() + timeout;
    std::lock_guard lock(state_->caller_mutex);
    while (batch.done < count) {
      render(batch, batch.next++, state_->workers[0]);
      finish(batch, 1);
      if (std::chrono::steady_clock::now() > deadline) break;
    }
    return batch.done >= count;
  }
  std::unique_lock lock(batch.mutex);
  return batch.finished.wait_for(lock, timeout, [&] { return batch.done >= count; });
}

bool Engine::is_done(const Batch& batch) { return batch.done >= static_cast<int64_t>(batch.records.size()); }

void Engine::cancel(Batch& batch) {
  if (!in_owner_process()) return;
  const int64_t count = static_cast<int64_t>(batch.records.size());
  int64_t handed_out = std::min(batch.next.exchange(count), count);
  finish(batch, count - handed_out);
  if (state_->threads.empty()) return;
  std::unique_lock lock(batch.mutex);
  batch.finished.wait(lock, [&] { return batch.done >= count; });
}

size_t Engine::sample_bytes(size_t view) const {
  const ViewSpec& spec = state_->recipe[view];
  return static_cast<size_t>(form().channels) * spec.out_height * spec.out_width * cpu::bytes_of(form().element);
}

size_t Engine::heatmap_bytes(size_t view) const {
  const ViewSpec& spec = state_->recipe[view];
  return sizeof(float) * static_cast<size_t>(spec.out_height) * spec.out_width;
}

void Engine::finish(Batch& batch, int64_t samples) {
  const int64_t count = static_cast<int64_t>(batch.records.size());
  if (batch.done.fetch_add(samples) + samples < count) return;
  std::lock_guard lock(batch.mutex);  // so that the waiter is either before its test or inside its wait
  batch.finished.notify_all();
}

StageTotals Engine::stage_times() const {
  StageTotals totals;
  for (const Worker& worker : state_->workers) worker.times.sum_into(totals);
  return totals;
}

// No lock in the sample path: a thread takes the next sample of the front batch by one atomic addition, and the lock
// only when that batch has none left.
void Engine::run(Worker& worker) {
  std::shared_ptr<Batch> batch;
  while (true) {
    if (!batch) {
      std::unique_lock lock(state_->mutex);
      state_->work.wait(lock, [&] { return state_->stopping || !state_->queue.empty(); });
      if (state_->stopping) return;
      batch = state_->queue.front();
    }
    int64_t slot = batch->next++;
    if (slot < static_cast<int64_t>(batch->records.size())) {
      render(*batch, slot, worker);
      finish(*batch, 1);
    } else {
      std::lock_guard lock(state_->mutex);
      if (!state_->queue.empty() && state_->queue.front() == batch) state_->queue.pop_front();
      batch.reset();
    }
    if (state_->stopping) return;
  }
}

// One sample or one Failure; never an exception, never a slot with somebody else's pixels.
void Engine::render(Batch& batch, int64_t slot, Worker& worker) const {
  auto failed = [&](Fault fault, const char* message) {
    for (size_t view = 0; view < batch.views.size(); ++view) {
      std::memset(batch.views[view].memory + batch.views[view].stride * slot, 0, sample_bytes(view));
    }
    for (size_t view = 0; view < batch.heatmaps.size(); ++view)
      std::memset(batch.heatmaps[view].memory + batch.heatmaps[view].stride * slot, 0, heatmap_bytes(view));
    if (batch.pictures != nullptr) batch.pictures[slot] = {};
    if (batch.files != nullptr) batch.files[slot] = 0;
    if (batch.plans != nullptr)
      std::fill_n(batch.plans + slot * state_->recipe.size(), state_->recipe.size(), ViewPlan{});
    std::lock_guard lock(batch.mutex);
    batch.failures.push_back({slot, fault, message});
  };
  try {
    if (!worker.memory) worker.memory = std::make_unique<WorkingMemory>();
    const auto run = batch.arena == nullptr ? &Engine::render_sample : &Engine::decode_sample;
    if ((this->*run)(batch, slot, worker) > kLargePicturePx) worker.memory.reset();
  } catch (const Error& error) {
    failed(error.fault(), error.what());
  } catch (const std::bad_alloc&) {
    failed(Fault::record, "out of memory for this picture");
    worker.memory.reset();
  } catch (const std::exception& error) {
    failed(Fault::record, error.what());
    worker.memory.reset();
  }
}

int64_t Engine::render_sample(Batch& batch, int64_t slot, Worker& worker) const {
  const size_t views = state_->recipe.size();
  worker.memory->plans.resize(views);
  StageClock clock(worker.times);
  int64_t pixels = 0;
  if (batch.companions.empty() || batch.companions[slot].view < 0) {
    pixels = render_original(batch, slot, worker, -1, clock);
  } else {
    const Companion& companion = batch.companions[slot];
    if (views > 1) pixels = render_original(batch, slot, worker, companion.view, clock);
    pixels = std::max(pixels, render_companion(batch, slot, worker, companion, clock));
  }
  if (batch.plans != nullptr)
    std::copy(worker.memory->plans.begin(), worker.memory->plans.end(), batch.plans + slot * views);
  worker.times.add_sample();
  return pixels;
}

// Into the batch's arena. The header says whether there is room before anything is decoded.
int64_t Engine::decode_sample(Batch& batch, int64_t slot, Worker& worker) const {
  const State& s = *state_;
  WorkingMemory& memory = *worker.memory;
  StageClock clock(worker.times);
  const std::span<const uint8_t> bytes = s.reader->read(batch.records[slot], memory.bytes);
  clock.charge(Stage::read);
  const PictureHeader header = read_header(bytes);
  PL_CHECK(header.bits == 8, Fault::argument, "gray of 16 bits is rendered on the CPU alone: take device=\"cpu\"");
  const bool may_stay = batch.files != nullptr && batch.files[slot] != 0 && header.ends;
  const bool as_file = may_stay && memory.decoder.is_plain_jpeg(bytes);
  const size_t file = as_file ? bytes.size() : 0;
  if (batch.files != nullptr) batch.files[slot] = static_cast<int64_t>(file);
  const ArenaPicture place = place_in(batch.arena_used, batch.arena_bytes, header.height, header.width, file);
  batch.pictures[slot] = place;
  if (place.offset < 0) return 0;
  if (as_file) {
    std::memcpy(batch.arena + place.offset, bytes.data(), file);
  } else {
    const ConstPlanes picture = memory.decoder.decode(bytes);
    PL_CHECK(picture.height == header.height && picture.width == header.width && !picture.deep, Fault::record,
             "the header says %d x %d (height x width), the pixels are %d x %d", header.height, header.width,
             picture.height, picture.width);
    copy_planes(picture, place, batch.arena);
  }
  clock.charge(Stage::decode);
  const size_t views = s.recipe.size();
  plan_views(s.recipe, {s.seed, batch.epochs[slot], batch.records[slot], batch.draws[slot]}, header.height,
             header.width, {batch.plans + slot * views, views});
  clock.charge(Stage::plan);
  worker.times.add_sample();
  return int64_t{header.height} * header.width;
}

// Decoded, in the form that the views have.
ConstPlanes Engine::picture_of(int64_t record, WorkingMemory& memory, StageClock& clock) const {
  const State& s = *state_;
  const std::span<const uint8_t> bytes = s.reader->read(record, memory.bytes);
  clock.charge(Stage::read);
  ConstPlanes picture = memory.decoder.decode(bytes);
  clock.charge(Stage::decode);
  if (form().channels == 1 && picture.channels != 1) {
    picture = cpu::to_gray(picture, memory.gray);
    clock.charge(Stage::grayscale);
  }
  if (picture.deep) check_deep(s.recipe, form());
  return picture;
}

// All views but one; -1: all.
int64_t Engine::render_original(Batch& batch, int64_t slot, Worker& worker, int32_t but, StageClock& clock) const {
  const State& s = *state_;
  WorkingMemory& memory = *worker.memory;
  const ConstPlanes picture = picture_of(batch.records[slot], memory, clock);
  plan_views(s.recipe, {s.seed, batch.epochs[slot], batch.records[slot], batch.draws[slot]}, picture.height,
             picture.width, memory.plans);
  clock.charge(Stage::plan);
  for (size_t view = 0; view < s.recipe.size(); ++view)
    if (static_cast<int32_t>(view) != but) render_view(batch, slot, view, picture, memory, clock);
  const int64_t pixels = int64_t{picture.height} * picture.width;
  if (!batch.heatmaps.empty()) {
    render_heatmaps(batch, slot, worker, picture.height, picture.width);
    clock.charge(Stage::heatmap);
  }
  return pixels;
}

// The picture's views are done: the decoder is free.
void Engine::render_heatmaps(Batch& batch, int64_t slot, Worker& worker, int32_t height, int32_t width) const {
  WorkingMemory& memory = *worker.memory;
  const ConstPlanes decoded = memory.decoder.decode(state_->heatmaps->read(batch.heatmap_records[slot], memory.bytes));
  const ConstPlanes heatmap = cpu::to_gray(decoded, memory.gray);
  PL_CHECK(heatmap.height == height && heatmap.width == width, Fault::record,
           "its heatmap is %d x %d (height x width), the picture %d x %d: they share a crop box", heatmap.height,
           heatmap.width, height, width);
  for (size_t view = 0; view < batch.heatmaps.size(); ++view) {
    const Output& out = batch.heatmaps[view];
    cpu::nearest(heatmap, memory.plans[view], memory.nearest, reinterpret_cast<float*>(out.memory + out.stride * slot));
  }
}

// The one view, planned for the companion's size with the original's key, normalised as the original.
int64_t Engine::render_companion(Batch& batch, int64_t slot, Worker& worker, const Companion& from,
                                 StageClock& clock) const {
  const State& s = *state_;
  WorkingMemory& memory = *worker.memory;
  try {
    const ConstPlanes picture = picture_of(from.record, memory, clock);
    const auto view = static_cast<size_t>(from.view);
    plan_view(s.recipe, view, {s.seed, batch.epochs[slot], batch.records[slot], batch.draws[slot]}, picture.height,
              picture.width, memory.plans);
    clock.charge(Stage::plan);
    render_view(batch, slot, view, picture, memory, clock);
    return int64_t{picture.height} * picture.width;
  } catch (const Error& error) {
    fail(error.fault(), "its companion, record %lld: %s (in %s)", static_cast<long long>(from.record), error.what(),
         s.reader->path_of(from.record));
  }
}

void Engine::render_view(Batch& batch, int64_t slot, size_t view, const ConstPlanes& picture, WorkingMemory& memory,
                         StageClock& clock) const {
  Planes pixels = cpu::render_view(picture, memory.plans[view], memory.scratch, clock);
  const size_t source = batch.sources.empty() ? 0 : batch.sources[slot];
  cpu::normalize(pixels, state_->normalizations[source], batch.views[view].memory + batch.views[view].stride * slot);
  clock.charge(Stage::normalize);
}

}  // namespace pass_loader
