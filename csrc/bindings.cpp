// The module pass_loader._C. Like all bindings_*.cpp, it checks arguments, releases the GIL and translates errors.
#include "bindings.h"

#include <algorithm>
#include <cstring>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu/render.h"
#include "isa.h"
#include "stages.h"

namespace py = pybind11;
using namespace pybind11::literals;
using namespace pass_loader;

namespace {

py::object bad_picture_error;  // lives as long as the process

void translate(const Error& error) {
  PyObject* type = error.fault() == Fault::argument ? PyExc_ValueError
                   : error.fault() == Fault::record ? bad_picture_error.ptr()
                                                    : PyExc_OSError;
  PyErr_SetString(type, error.what());
}

// Returns the type of a row of plans: a ViewPlan, and after it "steps", so many StepPlans.
py::dtype plan_dtype(size_t steps) {
  const auto plain = py::dtype::of<ViewPlan>();
  if (steps == 0) return plain;
  py::list names(plain.attr("names")), formats, offsets;
  const py::dict fields(plain.attr("fields").attr("items")());
  for (const py::handle& name : names) {
    const py::tuple field = fields[name];
    formats.append(field[0]);
    offsets.append(field[1]);
  }
  names.append("steps");
  formats.append(py::make_tuple(py::dtype::of<StepPlan>(), py::make_tuple(steps)));
  offsets.append(sizeof(ViewPlan));
  return {names, formats, offsets, static_cast<py::ssize_t>(PlanRows::bytes(steps))};
}

// Returns rows (views,) of plan_dtype.
py::array plan_views_of(const Array<ViewSpec>& recipe, uint64_t seed, uint32_t epoch, int64_t record, uint32_t draw,
                        int32_t height, int32_t width, const py::object& step_rows) {
  std::vector<ViewSpec> specs = recipe_of(recipe);
  const StepRecipe further = steps_of(step_rows, specs);
  PL_CHECK(height >= 1 && width >= 1, Fault::argument, "size is %d x %d, want at least 1 x 1", height, width);
  PL_CHECK(record >= 0 && record < int64_t{1} << 40 && draw < kMaxDraws, Fault::argument,
           "record %lld, draw %u: want record in [0, 2^40), draw in [0, %u)", static_cast<long long>(record), draw,
           kMaxDraws);
  const SampleKey key{seed, epoch, record, draw};
  std::vector<ViewPlan> plans(view_count(specs));
  std::memset(static_cast<void*>(plans.data()), 0, plans.size() * sizeof(ViewPlan));
  plan_views(specs, key, height, width, plans);
  std::vector<StepPlan> steps(further.count());
  py::array found(plan_dtype(further.count()), static_cast<py::ssize_t>(plans.size()));
  const PlanRows rows{static_cast<uint8_t*>(found.mutable_data()), further.count()};
  for (size_t view = 0; view < plans.size(); ++view) {
    if (!steps.empty()) further.plan(specs, view, key, height, width, steps);
    rows.write(view, plans[view], steps);
  }
  return found;
}

// Returns (views, companions) for N samples: the view that takes a companion's pixels, (N,) int32, or -1 if none does;
// and the number of that companion, (N,) int64. companions: how many each sample has.
py::tuple draw_companions(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                          const Array<uint32_t>& epochs, const Array<int64_t>& companions, uint32_t views,
                          double probability) {
  const std::vector<SampleKey> keys = keys_of(seed, records, draws, epochs);
  const std::span<const int64_t> counts = column(companions);
  PL_CHECK(counts.size() == keys.size(), Fault::argument, "want one number of companions a record");
  PL_CHECK(views >= 1 && views <= kMaxViews && probability >= 0.0 && probability <= 1.0, Fault::argument,
           "%u views, probability %g: want [1, %d] and [0, 1]", views, probability, kMaxViews);
  const auto n = static_cast<py::ssize_t>(keys.size());
  Array<int32_t> chosen(n);
  Array<int64_t> which(n);
  for (size_t i = 0; i < keys.size(); ++i) {
    const int64_t count = counts[i];
    PL_CHECK(count >= 0 && count < int64_t{1} << 31, Fault::argument, "a negative number of companions, or too many");
    const CompanionDraw drawn = draw_companion(keys[i], views, static_cast<uint32_t>(count), probability);
    chosen.mutable_data()[i] = drawn.view;
    which.mutable_data()[i] = drawn.companion;
  }
  return py::make_tuple(chosen, which);
}

// Returns (N, views) int32: which of each view's alternatives decides it, counted from 1; 0: its own row.
py::array_t<int32_t> drawn_alternatives(const Array<ViewSpec>& recipe, uint64_t seed, const Array<int64_t>& records,
                                        const Array<uint32_t>& draws, const Array<uint32_t>& epochs) {
  const std::vector<ViewSpec> specs = recipe_of(recipe);
  const std::vector<SampleKey> keys = keys_of(seed, records, draws, epochs);
  const size_t views = view_count(specs);
  py::array_t<int32_t> found({static_cast<py::ssize_t>(keys.size()), static_cast<py::ssize_t>(views)});
  int32_t* out = found.mutable_data();
  for (const SampleKey& key : keys)
    for (size_t view = 0; view < views; ++view) {
      const size_t row = drawn_row(specs, view, key);
      size_t first = row;
      while (first > views && specs[first - 1].instead_of == specs[row].instead_of) --first;
      *out++ = row < views ? 0 : static_cast<int32_t>(row - first) + 1;
    }
  return found;
}

// A copy of plans, because the caller's may change without the GIL.
struct Plans {
  explicit Plans(const py::array& rows) {
    const auto bytes = static_cast<size_t>(rows.itemsize());
    const size_t extra = bytes < sizeof(ViewPlan) ? 0 : bytes - sizeof(ViewPlan);
    count = extra / sizeof(StepPlan);
    PL_CHECK(rows.ndim() == 1 && (rows.flags() & py::array::c_style) != 0 && rows.dtype().equal(plan_dtype(count)),
             Fault::argument, "want plans as a contiguous column of plan_dtype, as plan() gives them");
    const auto n = static_cast<size_t>(rows.shape(0));
    views.resize(n);
    steps.resize(n * count);
    for (size_t i = 0; i < n; ++i) {
      const uint8_t* row = static_cast<const uint8_t*>(rows.data()) + i * bytes;
      std::memcpy(static_cast<void*>(&views[i]), row, sizeof(ViewPlan));
      if (count > 0) std::memcpy(static_cast<void*>(&steps[i * count]), row + sizeof(ViewPlan), extra);
    }
  }
  std::span<const StepPlan> steps_of(size_t view) const { return std::span(steps).subspan(view * count, count); }

  size_t count;  // steps of each view
  std::vector<ViewPlan> views;
  std::vector<StepPlan> steps;
};

// Sample is uint8_t, or uint16_t for gray of 16 bits.
template <typename Sample>
py::list render_plan(const Array<Sample>& pixels, const py::array& plans) {
  constexpr bool deep = sizeof(Sample) == 2;
  PL_CHECK(
      pixels.ndim() == 3 && ((pixels.shape(2) == 3 && !deep) || pixels.shape(2) == 1) && pixels.shape(0) >= 1 &&
          pixels.shape(1) >= 1 && pixels.shape(0) <= 65535 && pixels.shape(1) <= 65535,
      Fault::argument,
      "want pixels of shape (height, width, 3), or (height, width, 1) for gray and for 16 bits, sides in [1, 65535]");
  const int32_t height = static_cast<int32_t>(pixels.shape(0)), width = static_cast<int32_t>(pixels.shape(1));
  const int channels = static_cast<int>(pixels.shape(2));
  const Plans rows(plans);
  for (size_t i = 0; i < rows.views.size(); ++i) {
    check_plan(rows.views[i], height, width);
    check_steps(rows.steps_of(i), rows.views[i], height, width, channels);
    if (deep) check_deep(rows.views[i], rows.steps_of(i));
  }
  Scratch<uint8_t> memory;
  const size_t row_stride = round_up(width * sizeof(Sample), kTile), plane_stride = row_stride * height;
  Planes picture{memory.need(channels * plane_stride), height, width, row_stride, plane_stride, channels, deep};
  const Sample* in = pixels.data();
  for (int32_t y = 0; y < height; ++y)
    for (int32_t x = 0; x < width; ++x, in += channels)
      for (int c = 0; c < channels; ++c) reinterpret_cast<Sample*>(picture.row(c, y))[x] = in[c];
  cpu::RenderScratch scratch;
  StageTimes unread;
  StageClock clock(unread);
  py::list views;
  for (size_t i = 0; i < rows.views.size(); ++i) {
    Planes view;
    {
      WithoutGil without_gil;
      view = cpu::render_view(picture, rows.views[i], rows.steps_of(i), scratch, clock);
    }
    views.append(interleaved(view, channels));
  }
  return views;
}

void bind_plans(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(ViewSpec, out_height, out_width, scale_min, scale_max, ratio_min, ratio_max, flip_probability,
                       jitter_probability, brightness_min, brightness_max, contrast_min, contrast_max, saturation_min,
                       saturation_max, hue_min, hue_max, grayscale_probability, blur_probability, blur_sigma_min,
                       blur_sigma_max, solarize_probability, solarize_threshold, interpolation, blur_kernel,
                       resize_order, place, padding, pad_if_needed, resize_short, via_height, via_width, box_of,
                       resize_height, resize_width, pad_left, pad_top, pad_right, pad_bottom, instead_of, decided_with,
                       instead_below);
  PYBIND11_NUMPY_DTYPE(ViewPlan, crop_x, crop_y, crop_width, crop_height, resize_height, resize_width, offset_x,
                       offset_y, out_height, out_width, via_height, via_width, brightness, contrast, saturation, hue,
                       blur_sigma, solarize_threshold, jitter_order, interpolation, blur_kernel, resize_order, flip,
                       grayscale, padding);
  PYBIND11_NUMPY_DTYPE(StepSpec, view, group, option, count, group_probability, option_below, probability, values, taps,
                       op, kind, whole, sign, resample, fill, before);
  PYBIND11_NUMPY_DTYPE(StepPlan, matrix, factor, level, op, resample, fill, before);
  m.attr("view_spec_dtype") = py::dtype::of<ViewSpec>();
  m.attr("step_spec_dtype") = py::dtype::of<StepSpec>();
  m.attr("step_plan_dtype") = py::dtype::of<StepPlan>();
  m.def("plan_dtype", &plan_dtype, "steps"_a);
  m.attr("view_plan_dtype") = py::dtype::of<ViewPlan>();
  m.attr("step_values") = kStepValues;
  m.attr("plan_version") = kPlanVersion;
  m.attr("max_draws") = kMaxDraws;
  m.def(
      "check_recipe",
      [](const Array<ViewSpec>& recipe, const py::object& steps) { return steps_of(steps, recipe_of(recipe)).count(); },
      "recipe"_a, "steps"_a = py::none());
  m.def("plan_views", &plan_views_of, "recipe"_a, py::kw_only(), "seed"_a, "epoch"_a, "record"_a, "draw"_a = 0,
        "height"_a, "width"_a, "steps"_a = py::none());
  m.def("drawn_alternatives", &drawn_alternatives, "recipe"_a, "seed"_a, "records"_a, "draws"_a, "epochs"_a);
  m.def("draw_companions", &draw_companions, "seed"_a, "records"_a, "draws"_a, "epochs"_a, "companions"_a, "views"_a,
        "probability"_a);
  m.def("render_plan", &render_plan<uint8_t>, "pixels"_a.noconvert(), "plans"_a);
  m.def("render_plan", &render_plan<uint16_t>, "pixels"_a.noconvert(), "plans"_a);
}

}  // namespace

std::vector<SampleKey> pass_loader::keys_of(uint64_t seed, const Array<int64_t>& records, const Array<uint32_t>& draws,
                                            const Array<uint32_t>& epochs) {
  const std::span<const int64_t> of = column(records);
  const std::span<const uint32_t> draw = column(draws), epoch = column(epochs);
  PL_CHECK(draw.size() == of.size() && epoch.size() == of.size(), Fault::argument, "want one draw and epoch a record");
  std::vector<SampleKey> keys;
  keys.reserve(of.size());
  for (size_t i = 0; i < of.size(); ++i) {
    keys.push_back({seed, epoch[i], of[i], draw[i]});
    PL_CHECK(keys.back().draw < kMaxDraws, Fault::argument, "draw %u: want [0, %u)", keys.back().draw, kMaxDraws);
  }
  return keys;
}

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "The native half of pass_loader: decode, plan, render, read, thread.";
  auto base = py::reinterpret_steal<py::object>(PyErr_NewExceptionWithDoc(
      "pass_loader.PassLoaderError", "The base class of pass_loader's own errors.", PyExc_Exception, nullptr));
  const py::tuple bases = py::make_tuple(base, py::reinterpret_borrow<py::object>(PyExc_ValueError));
  bad_picture_error = py::reinterpret_steal<py::object>(PyErr_NewExceptionWithDoc(
      "pass_loader.BadPictureError", "The bytes of one picture cannot be decoded, or are not those that were packed.",
      bases.ptr(), nullptr));
  m.attr("PassLoaderError") = base;
  m.attr("BadPictureError") = bad_picture_error;
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      translate(error);
    }
  });
  GilGate::close_at_exit();
  struct Section {};
  py::class_<Section>(m, "Section", "A context in which a thread is when it calls torch: the exit waits for its end.")
      .def(py::init<>())
      .def("__enter__", [](const Section&) { GilGate::enter_section(); })
      .def("__exit__", [](const Section&, const py::args&) { GilGate::leave_section(); });
  current_isa();  // a PASS_LOADER_ISA that this machine lacks must fail the import, not the first batch
  bind_pictures(m);
  bind_plans(m);
  bind_loading(m);
  bind_masks(m);
  m.def("isa", [] { return isa_name(current_isa()); }, "The instruction-set level in force.");
  m.def("set_isa", &set_isa, "name"_a, "Force a level (\"base\", \"avx2\", \"avx512\"), or \"best\".");
  m.def("supported_isas", &supported_isas, "The levels this machine can run, lowest first.");
}
