#include "cuda/descriptors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "filters.h"

namespace pass_loader::cuda {
namespace {

constexpr int64_t kRowAlign = 16;  // bytes: our rows are whole words, with whole groups of pixels
constexpr int32_t kMaxSide = 65535;

int64_t up_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

int32_t parts_of(int64_t n, int64_t part) { return static_cast<int32_t>((n + part - 1) / part); }

void add_tiles(std::vector<Tile>& tiles, size_t item, int32_t parts) {
  for (int32_t part = 0; part < parts; ++part) tiles.push_back({static_cast<int32_t>(item), part});
}

Axis axis_of(int32_t in_size, int32_t resize_size, int32_t offset, int32_t out_size, uint8_t interpolation, bool flip) {
  return {0, in_size, resize_size, offset, out_size, interpolation, flip};
}

struct Range {
  int32_t begin, end;
};

// Returns the inputs that any output uses. Both ends of an output's inputs grow with its number.
Range inputs_of(const Axis& axis) {
  const Scaling s = scaling_of(axis.in_size, axis.resize_size, axis.interpolation);
  return {first_tap(s, centre_of(s, axis.offset)),
          end_tap(s, centre_of(s, axis.offset + axis.out_size - 1), axis.in_size)};
}

int64_t words_of(const Axis& axis) {
  const Scaling s = scaling_of(axis.in_size, axis.resize_size, axis.interpolation);
  const int64_t taps = std::min<int64_t>(static_cast<int64_t>(std::ceil(s.support)) * 2 + 1, axis.in_size);
  return axis.out_size * (2 + taps);
}

int64_t words_of(const Resize& resize) { return words_of(resize.horizontal) + words_of(resize.vertical); }

int64_t between_bytes(const Resize& resize) { return int64_t{3} * resize.between_height * resize.between_row; }
int64_t out_bytes(const Resize& resize) { return int64_t{3} * resize.vertical.out_size * resize.out_row; }

// Includes the guard after each of its two pieces.
int64_t pixels_of(const Resize& resize, int64_t guard) { return between_bytes(resize) + out_bytes(resize) + 2 * guard; }

void check_job(std::span<const Picture> pictures, const Job& job, const Form& form) {
  PL_CHECK(job.picture >= 0 && static_cast<size_t>(job.picture) < pictures.size(), Fault::argument,
           "a view's picture is number %d, and there are %zu pictures", job.picture, pictures.size());
  const Picture& picture = pictures[job.picture];
  PL_CHECK(picture.height >= 1 && picture.width >= 1 && picture.height <= kMaxSide && picture.width <= kMaxSide,
           Fault::argument, "picture %d is %lld x %lld, want sides in [1, %d]", job.picture,
           static_cast<long long>(picture.height), static_cast<long long>(picture.width), kMaxSide);
  PL_CHECK(picture.pixels != nullptr && picture.row_stride >= picture.width &&
               picture.plane_stride >= (picture.height - 1) * picture.row_stride + picture.width,
           Fault::argument,
           "picture %d: want three planes of pixels, rows at least a width apart, planes not overlapping", job.picture);
  check_plan(job.plan, static_cast<int32_t>(picture.height), static_cast<int32_t>(picture.width));
  PL_CHECK((job.plan.interpolation == 2 || job.plan.interpolation == 3) && job.plan.padding == Padding::none,
           Fault::argument,
           "interpolation is %d and padding %d: a GPU has bilinear (2) and bicubic (3) views without padding (0)",
           job.plan.interpolation, static_cast<int>(job.plan.padding));
  PL_CHECK(job.out != nullptr && reinterpret_cast<uintptr_t>(job.out) % static_cast<size_t>(form.element_bytes) == 0,
           Fault::argument, "a view's output is no place for elements of %d bytes", form.element_bytes);
}

View view_of(const ViewPlan& plan, const Resize& resize, const Job& job, const Form& form) {
  View view{};
  view.pixels = resize.out, view.row = resize.out_row;
  view.out = job.out;
  view.height = plan.out_height, view.width = plan.out_width;
  view.factor[0] = plan.brightness, view.factor[1] = plan.contrast, view.factor[2] = plan.saturation;
  for (int8_t step : plan.jitter_order)
    if (step >= 0) view.steps[view.step_count++] = step;
  const int8_t* end = view.steps + view.step_count;
  const int8_t* begin = view.steps;
  view.contrast_at = static_cast<int8_t>(std::find(begin, end, int8_t{1}) - begin);
  view.hue_shift = static_cast<uint8_t>(static_cast<int>(static_cast<double>(plan.hue) * 255.0));
  view.grayscale = plan.grayscale;
  view.solarize_threshold = plan.solarize_threshold < 0 ? int16_t{256} : plan.solarize_threshold;
  view.aligned = plan.out_width % kGroup == 0 &&
                 reinterpret_cast<uintptr_t>(job.out) % (static_cast<size_t>(kGroup) * form.element_bytes) == 0;
  return view;
}

// A resize of a crop: the view's own, or the first of two (via).
struct Request {
  int32_t crop_height, crop_width, resize_height, resize_width, offset_y, offset_x, out_height, out_width;
  bool flip;
};

Resize resize_of(const ViewPlan& plan, const Request& r) {
  Resize resize{};
  resize.horizontal = axis_of(r.crop_width, r.resize_width, r.offset_x, r.out_width, plan.interpolation, r.flip);
  resize.vertical = axis_of(r.crop_height, r.resize_height, r.offset_y, r.out_height, plan.interpolation, false);
  resize.vertical_first =
      vertical_first(plan.resize_order, r.crop_height, r.crop_width, r.resize_height, r.resize_width);
  const Range kept = inputs_of(resize.vertical_first ? resize.horizontal : resize.vertical);
  resize.begin = kept.begin;
  resize.between_height = resize.vertical_first ? r.out_height : kept.end - kept.begin;
  resize.between_width = resize.vertical_first ? kept.end - kept.begin : r.out_width;
  resize.between_row = static_cast<int32_t>(up_to(resize.between_width, kRowAlign));
  resize.out_row = static_cast<int32_t>(up_to(r.out_width, kRowAlign));
  return resize;
}

// Fills the resizes without their places. Returns true if `via` is used.
bool plan_resizes(const Picture& picture, const ViewPlan& p, Resize& via, Resize& last) {
  const bool on_the_way = p.via_height != 0;
  const int32_t height = on_the_way ? p.via_height : p.crop_height, width = on_the_way ? p.via_width : p.crop_width;
  if (on_the_way) via = resize_of(p, {p.crop_height, p.crop_width, height, width, 0, 0, height, width, false});
  last = resize_of(
      p, {height, width, p.resize_height, p.resize_width, p.offset_y, p.offset_x, p.out_height, p.out_width, p.flip});
  Resize& reader = on_the_way ? via : last;
  reader.source = picture.pixels + p.crop_y * picture.row_stride + p.crop_x;
  reader.source_row = picture.row_stride, reader.source_plane = picture.plane_stride;
  return on_the_way;
}

}  // namespace

void Packing::place(Resize& resize) {
  resize.between = pixels_ + guard_;
  resize.out = resize.between + between_bytes(resize) + guard_;
  pixels_ = resize.out + out_bytes(resize);
  resize.horizontal.table = words_;
  resize.vertical.table = words_ + words_of(resize.horizontal);
  words_ += words_of(resize);
}

void Packing::add_blur(const ViewPlan& plan, View& view, int32_t item) {
  if (!(plan.blur_sigma > 0.0f)) return;
  if (plan.blur_kernel != 0) {
    view.blur = Blur::kernel;
    view.taps = plan.blur_kernel, view.taps_at = static_cast<int32_t>(taps_.size());
    taps_.resize(taps_.size() + plan.blur_kernel);
    gaussian_taps(plan.blur_kernel, plan.blur_sigma, &taps_[view.taps_at]);
    add_tiles(kernel_, item, parts_of(int64_t{view.height} * parts_of(view.width, kGroup), kGroupsPerTile));
    return;
  }
  view.blur = Blur::box;
  view.box = box_of(plan.blur_sigma);
  const int64_t lines = int64_t{3} * view.height;
  const int32_t blocks = parts_of(lines, kLineBytes / view.row);
  view.across_lines = parts_of(lines, blocks);  // equal shares
  add_tiles(across_, item, parts_of(lines, view.across_lines));
  view.down_columns = 32;
  while (view.down_columns * view.height > kLineBytes) view.down_columns /= 2;
  add_tiles(down_, item, 3 * parts_of(view.width, view.down_columns));
}

void Packing::add(const Job& job, Resize& last, Resize* via) {
  auto add_resize = [&](const Resize& r, size_t item, std::vector<Tile>& weights, std::vector<Tile>& first,
                        std::vector<Tile>& second) {
    add_tiles(weights, item, parts_of(int64_t{r.horizontal.out_size} + r.vertical.out_size, kOutputsPerTile));
    add_tiles(first, item, parts_of(int64_t{3} * r.between_height, kLinesPerTile));
    const int64_t groups = int64_t{r.vertical.out_size} * parts_of(r.horizontal.out_size, kGroup);
    add_tiles(second, item, parts_of(groups, kGroupsPerTile));
  };
  if (via != nullptr) {
    place(*via);
    last.source_at = via->out;
    last.source_row = via->out_row, last.source_plane = int64_t{via->out_row} * via->vertical.out_size;
    add_resize(*via, vias_.size(), via_weights_, via_first_, via_second_);
    vias_.push_back(*via);
  }
  place(last);
  add_resize(last, views_.size(), weights_, first_, second_);
  resizes_.push_back(last);
  View view = view_of(job.plan, last, job, form_);
  add_blur(job.plan, view, static_cast<int32_t>(views_.size()));
  views_.push_back(view);
}

size_t Packing::pack(std::span<const Picture> pictures, std::span<const Job> jobs, const Form& form, size_t budget,
                     size_t guard) {
  form_ = form, guard_ = static_cast<int64_t>(guard), pixels_ = words_ = 0;
  resizes_.clear(), vias_.clear(), views_.clear(), taps_.clear();
  for (auto* tiles :
       {&weights_, &via_weights_, &via_first_, &via_second_, &first_, &second_, &across_, &down_, &kernel_})
    tiles->clear();
  size_t taken = 0;
  for (; taken < jobs.size(); ++taken) {
    const Job& job = jobs[taken];
    check_job(pictures, job, form);
    const ViewPlan& p = job.plan;
    Resize via{}, last{};
    const bool on_the_way = plan_resizes(pictures[job.picture], p, via, last);
    int64_t pixels = pixels_of(last, guard_), words = words_of(last);
    if (on_the_way) pixels += pixels_of(via, guard_), words += words_of(via);
    const auto grown = static_cast<size_t>(pixels_ + pixels + 4 * (words_ + words));
    if (taken > 0 && grown > budget) break;
    add(job, last, on_the_way ? &via : nullptr);
  }
  const auto views = static_cast<int32_t>(views_.size());
  for (auto* tiles : {&via_weights_, &via_first_, &via_second_})
    for (Tile& tile : *tiles) tile.item += views;
  weights_.insert(weights_.end(), via_weights_.begin(), via_weights_.end());
  return taken;
}

namespace {

size_t aligned(size_t bytes) { return (bytes + Packing::kAlign - 1) / Packing::kAlign * Packing::kAlign; }

template <typename T>
size_t bytes_of(const std::vector<T>& values) {
  return aligned(values.size() * sizeof(T));
}

// Copies values to tables + at and moves `at` past them.
template <typename T>
void put(uint8_t* tables, size_t& at, const std::vector<T>& values) {
  if (!values.empty()) std::memcpy(tables + at, values.data(), values.size() * sizeof(T));
  at += bytes_of(values);
}

template <typename T>
const T* found(const void* tables, size_t& at, const std::vector<T>& values) {
  const auto* here = reinterpret_cast<const T*>(static_cast<const uint8_t*>(tables) + at);
  at += bytes_of(values);
  return here;
}

}  // namespace

// Writes the tables in the order of `batch`.
void Packing::write(void* to) const {
  auto* tables = static_cast<uint8_t*>(to);
  size_t at = 0;
  put(tables, at, views_);
  put(tables, at, taps_);
  for (const auto* tiles : {&weights_, &via_first_, &via_second_, &first_, &second_, &across_, &down_, &kernel_})
    put(tables, at, *tiles);
  if (!resizes_.empty()) std::memcpy(tables + at, resizes_.data(), resizes_.size() * sizeof(Resize));
  at += resizes_.size() * sizeof(Resize);
  if (!vias_.empty()) std::memcpy(tables + at, vias_.data(), vias_.size() * sizeof(Resize));
}

size_t Packing::table_bytes() const {
  size_t bytes = bytes_of(views_) + bytes_of(taps_);
  for (const auto* tiles : {&weights_, &via_first_, &via_second_, &first_, &second_, &across_, &down_, &kernel_})
    bytes += bytes_of(*tiles);
  return bytes + aligned((resizes_.size() + vias_.size()) * sizeof(Resize));
}

size_t Packing::workspace_bytes() const {
  return aligned(static_cast<size_t>(pixels_ + guard_)) + aligned(static_cast<size_t>(words_) * 4) +
         aligned(views_.size() * 8);
}

Batch Packing::batch(const void* tables, void* workspace, const uint32_t* normalize_table) const {
  Batch b{};
  size_t at = 0;
  b.view_count = static_cast<int32_t>(views_.size());
  b.form = form_;
  b.normalize_table = normalize_table;
  b.views = found(tables, at, views_);
  b.taps = found(tables, at, taps_);
  const std::vector<Tile>* lists[] = {&weights_, &via_first_, &via_second_, &first_,
                                      &second_,  &across_,    &down_,       &kernel_};
  Tiles* into[] = {&b.weights, &b.via_first, &b.via_second, &b.first, &b.second, &b.across, &b.down, &b.kernel};
  for (size_t i = 0; i < std::size(lists); ++i)
    *into[i] = {found(tables, at, *lists[i]), static_cast<int32_t>(lists[i]->size())};
  b.resizes = found(tables, at, resizes_);
  auto* place = static_cast<uint8_t*>(workspace);
  b.pixels = place;
  place += aligned(static_cast<size_t>(pixels_ + guard_));
  b.tables = reinterpret_cast<int32_t*>(place);
  place += aligned(static_cast<size_t>(words_) * 4);
  b.luma_sums = reinterpret_cast<unsigned long long*>(place);
  return b;
}

}  // namespace pass_loader::cuda
