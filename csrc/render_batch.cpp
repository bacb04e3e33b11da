#include "render_batch.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "cpu/erase.h"
#include "cpu/jitter.h"
#include "cpu/nearest.h"
#include "cpu/normalize.h"
#include "cpu/render.h"
#include "error.h"
#include "shard.h"

namespace pass_loader {
namespace {

void check_deep(const Setup& setup) {
  pass_loader::check_deep(setup.recipe, setup.steps);
  PL_CHECK(setup.form().element != cpu::Element::uint8, Fault::argument,
           "uint8 output would cut a gray picture of 16 bits to 8: ask for float32, float16 or bfloat16");
}

// Widens the window by a plan's crop box.
Window with(const Window& window, const ViewPlan& plan) {
  return {std::min(window.top, plan.crop_y), std::max(window.bottom, plan.crop_y + plan.crop_height),
          std::min(window.left, plan.crop_x), std::max(window.right, plan.crop_x + plan.crop_width)};
}

}  // namespace

RenderBatch::RenderBatch(const Engine& engine, RenderRequest request)
    : Batch(request.samples.size()), engine_(engine), setup_(engine.setup()), request_(std::move(request)) {}

void RenderBatch::make(int64_t slot, size_t worker) {
  engine_.worker(worker).run(
      [&](WorkingMemory& memory, StageClock& clock) { return render_sample(slot, memory, clock); });
}

void RenderBatch::clear(int64_t slot) {
  const size_t views = setup_.views();
  for (size_t view = 0; view < views; ++view) {
    const ViewSpec& spec = setup_.recipe[view];
    const size_t pixels = static_cast<size_t>(spec.out_height) * static_cast<size_t>(spec.out_width);
    const cpu::OutputForm& form = setup_.form();
    std::memset(request_.views[view].slot(slot), 0,
                pixels * static_cast<size_t>(form.channels) * cpu::bytes_of(form.element));
    if (!request_.heatmaps.empty()) std::memset(request_.heatmaps[view].slot(slot), 0, pixels * sizeof(float));
  }
  if (request_.plans.memory != nullptr) request_.plans.clear(slot * views, views);
}

int64_t RenderBatch::render_sample(int64_t slot, WorkingMemory& memory, StageClock& clock) const {
  const size_t views = setup_.views();
  memory.plans.resize(views);
  memory.steps.resize(views * setup_.steps.count());
  int64_t pixels = 0;
  if (request_.companions.empty() || request_.companions[slot].view < 0) {
    pixels = render_original(slot, -1, memory, clock);
  } else {
    if (views > 1) pixels = render_original(slot, request_.companions[slot].view, memory, clock);
    pixels = std::max(pixels, render_companion(slot, memory, clock));
  }
  if (request_.plans.memory != nullptr)
    for (size_t view = 0; view < views; ++view)
      request_.plans.write(slot * views + view, memory.plans[view], steps_of(view, memory));
  return pixels;
}

// Renders all views but one; -1: all.
int64_t RenderBatch::render_original(int64_t slot, int32_t without_view, WorkingMemory& memory,
                                     StageClock& clock) const {
  const SampleKey& key = request_.samples[slot];
  const auto plan = [&](int32_t height, int32_t width) {
    plan_views(setup_.recipe, key, height, width, memory.plans);
    Window window{INT32_MAX, 0, INT32_MAX, 0};
    for (size_t view = 0; view < setup_.views(); ++view)
      if (static_cast<int32_t>(view) != without_view) window = with(window, memory.plans[view]);
    return window;
  };
  const ConstPlanes picture = decode(key.record, take(request_.announced.samples, slot), plan, memory, clock);
  for (size_t view = 0; view < setup_.views(); ++view)
    if (static_cast<int32_t>(view) != without_view) render_view(slot, view, picture, memory, clock);
  const int64_t pixels = int64_t{picture.height} * picture.width;
  if (!request_.heatmaps.empty()) {
    render_heatmaps(slot, picture.height, picture.width, memory);
    clock.charge(Stage::heatmap);
  }
  return pixels;
}

// Renders the one view. It is planned with the original's key for the companion's size, and normalised as the original.
int64_t RenderBatch::render_companion(int64_t slot, WorkingMemory& memory, StageClock& clock) const {
  const Companion& companion = request_.companions[slot];
  try {
    const auto view = static_cast<size_t>(companion.view);
    const auto plan = [&](int32_t height, int32_t width) {
      plan_view(setup_.recipe, view, request_.samples[slot], height, width, memory.plans);
      return with({INT32_MAX, 0, INT32_MAX, 0}, memory.plans[view]);
    };
    const ConstPlanes picture = decode(companion.record, take(request_.announced.others, slot), plan, memory, clock);
    render_view(slot, view, picture, memory, clock);
    return int64_t{picture.height} * picture.width;
  } catch (const Error& error) {
    fail(error.fault(), "its companion, record %lld: %s (in %s)", static_cast<long long>(companion.record),
         error.what(), setup_.reader->path_of(companion.record));
  }
}

// Returns the picture with as many channels as the views have. Of a proven one, what the crop boxes need.
template <typename Plan>
ConstPlanes RenderBatch::decode(int64_t record, const ReadAhead::Loan& ahead, const Plan& plan, WorkingMemory& memory,
                                StageClock& clock) const {
  const std::span<const uint8_t> bytes = ahead.read(*setup_.reader, record, memory.bytes);
  const Proof proof = setup_.reader->proof_of(record);
  clock.charge(Stage::read);
  ConstPlanes picture;
  if (proof.proven) {
    const PictureHeader header = read_header(bytes, setup_.limits);
    const Window crops = plan(header.height, header.width);
    const bool all = setup_.steps.before_crop();
    const Part part{all ? Window::whole(header.height, header.width) : crops, proof.points};
    clock.charge(Stage::plan);
    picture = memory.decoder.decode(bytes, setup_.limits, &part);
    clock.charge(Stage::decode);
  } else {
    picture = memory.decoder.decode(bytes, setup_.limits);
    clock.charge(Stage::decode);
    plan(picture.height, picture.width);
    clock.charge(Stage::plan);
  }
  if (setup_.form().channels == 1 && picture.channels != 1) {
    picture = cpu::to_gray(picture, memory.gray);
    clock.charge(Stage::grayscale);
  }
  if (picture.deep) check_deep(setup_);
  return picture;
}

std::span<StepPlan> RenderBatch::steps_of(size_t view, WorkingMemory& memory) const {
  return std::span(memory.steps).subspan(view * setup_.steps.count(), setup_.steps.count());
}

void RenderBatch::render_view(int64_t slot, size_t view, const ConstPlanes& picture, WorkingMemory& memory,
                              StageClock& clock) const {
  const std::span<StepPlan> steps = steps_of(view, memory);
  if (!steps.empty())
    setup_.steps.plan(setup_.recipe, view, request_.samples[slot], picture.height, picture.width, steps);
  const Planes pixels = cpu::render_view(picture, memory.plans[view], steps, memory.scratch, clock);
  const size_t source = request_.sources.empty() ? 0 : request_.sources[slot];
  cpu::normalize(pixels, setup_.normalization(source, view), request_.views[view].slot(slot));
  cpu::erase(steps, setup_.form(), pixels.height, pixels.width, request_.views[view].slot(slot));
  clock.charge(Stage::normalize);
}

// Uses the decoder again: the picture's own views are done.
void RenderBatch::render_heatmaps(int64_t slot, int32_t height, int32_t width, WorkingMemory& memory) const {
  const ReadAhead::Loan ahead = take(request_.announced.others, slot);
  const std::span<const uint8_t> bytes = ahead.read(*setup_.heatmaps, request_.heatmap_records[slot], memory.bytes);
  const ConstPlanes heatmap = cpu::to_gray(memory.decoder.decode(bytes, setup_.limits), memory.gray);
  PL_CHECK(heatmap.height == height && heatmap.width == width, Fault::record,
           "its heatmap is %d x %d (height x width), the picture %d x %d: they share a crop box", heatmap.height,
           heatmap.width, height, width);
  for (size_t view = 0; view < request_.heatmaps.size(); ++view)
    cpu::nearest(heatmap, memory.plans[view], memory.nearest,
                 reinterpret_cast<float*>(request_.heatmaps[view].slot(slot)));
}

}  // namespace pass_loader
