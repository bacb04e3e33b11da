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

Array<ViewPlan> plan_views_of(const Array<ViewSpec>& recipe, uint64_t seed, uint32_t epoch, int64_t record,
                              uint32_t draw, int32_t height, int32_t width) {
  std::vector<ViewSpec> specs = recipe_of(recipe);
  PL_CHECK(height >= 1 && width >= 1, Fault::argument, "size is %d x %d, want at least 1 x 1", height, width);
  PL_CHECK(record >= 0 && record < int64_t{1} << 40 && draw < kMaxDraws, Fault::argument,
           "record %lld, draw %u: want record in [0, 2^40), draw in [0, %u)", static_cast<long long>(record), draw,
           kMaxDraws);
  Array<ViewPlan> plans(static_cast<py::ssize_t>(specs.size()));
  std::memset(static_cast<void*>(plans.mutable_data()), 0, static_cast<size_t>(plans.nbytes()));
  plan_views(specs, {seed, epoch, record, draw}, height, width, {plans.mutable_data(), specs.size()});
  return plans;
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

// Sample is uint8_t, or uint16_t for gray of 16 bits.
template <typename Sample>
py::list render_plan(const Array<Sample>& pixels, const Array<ViewPlan>& plans) {
  constexpr bool deep = sizeof(Sample) == 2;
  PL_CHECK(
      pixels.ndim() == 3 && ((pixels.shape(2) == 3 && !deep) || pixels.shape(2) == 1) && pixels.shape(0) >= 1 &&
          pixels.shape(1) >= 1 && pixels.shape(0) <= 65535 && pixels.shape(1) <= 65535,
      Fault::argument,
      "want pixels of shape (height, width, 3), or (height, width, 1) for gray and for 16 bits, sides in [1, 65535]");
  const int32_t height = static_cast<int32_t>(pixels.shape(0)), width = static_cast<int32_t>(pixels.shape(1));
  const int channels = static_cast<int>(pixels.shape(2));
  std::span<const ViewPlan> borrowed = column(plans);
  std::vector<ViewPlan> rows(borrowed.begin(), borrowed.end());  // the caller's may change without the GIL
  for (const ViewPlan& plan : rows) {
    check_plan(plan, height, width);
    if (deep) check_deep(plan);
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
  for (const ViewPlan& plan : rows) {
    Planes view;
    {
      WithoutGil without_gil;
      view = cpu::render_view(picture, plan, scratch, clock);
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
                       resize_order, resize_short, via_height, via_width, box_of);
  PYBIND11_NUMPY_DTYPE(ViewPlan, crop_x, crop_y, crop_width, crop_height, resize_height, resize_width, offset_x,
                       offset_y, out_height, out_width, via_height, via_width, brightness, contrast, saturation, hue,
                       blur_sigma, solarize_threshold, jitter_order, interpolation, blur_kernel, resize_order, flip,
                       grayscale);
  m.attr("view_spec_dtype") = py::dtype::of<ViewSpec>();
  m.attr("view_plan_dtype") = py::dtype::of<ViewPlan>();
  m.attr("plan_version") = kPlanVersion;
  m.attr("max_draws") = kMaxDraws;
  m.def("check_recipe", [](const Array<ViewSpec>& recipe) { recipe_of(recipe); }, "recipe"_a);
  m.def("plan_views", &plan_views_of, "recipe"_a, py::kw_only(), "seed"_a, "epoch"_a, "record"_a, "draw"_a = 0,
        "height"_a, "width"_a);
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
