// The module pass_loader._cuda, a library of its own. torch's memory is passed as addresses, its streams as handles.
#include <cstring>
#include <mutex>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings_gil.h"
#include "bindings_gpu.h"
#include "cuda/gpu.h"
#include "cuda/render.h"
#include "error.h"

namespace py = pybind11;
using namespace pybind11::literals;
using namespace pass_loader;

namespace {

void translate(const Error& error) {
  PyErr_SetString(error.fault() == Fault::argument ? PyExc_ValueError : PyExc_RuntimeError, error.what());
}

cuda::Options options_of(int device, int element_bytes, bool channels_last, const Array<uint32_t>& table,
                         size_t workspace_limit) {
  PL_CHECK(table.ndim() == 2 && table.shape(0) == 3 && table.shape(1) == 256, Fault::argument,
           "want a normalisation table of shape (3, 256)");
  cuda::Options options{device, {element_bytes, channels_last}, {}, workspace_limit};
  std::memcpy(options.normalize_table.data(), table.data(), sizeof options.normalize_table);
  return options;
}

std::vector<cuda::Picture> pictures_of(const Array<int64_t>& rows) {
  PL_CHECK(rows.ndim() == 2 && rows.shape(1) == 5, Fault::argument,
           "want pictures of shape (N, 5): address, height, width, bytes a row, bytes a plane");
  std::vector<cuda::Picture> pictures;
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    const int64_t* row = rows.data(i, 0);
    pictures.push_back({reinterpret_cast<const uint8_t*>(row[0]), row[1], row[2], row[3], row[4]});
  }
  return pictures;
}

// plans: (views,) rows of _C.view_plan_dtype. They are read as bytes, because the dtype is registered in the other
// module.
std::vector<cuda::Job> jobs_of(const py::array& plans, const Array<int32_t>& picture_of, const Array<int64_t>& outs) {
  PL_CHECK(plans.ndim() == 1 && plans.itemsize() == sizeof(ViewPlan) && (plans.flags() & py::array::c_style) != 0,
           Fault::argument, "want plans as a contiguous column of view_plan_dtype");
  PL_CHECK(
      picture_of.ndim() == 1 && outs.ndim() == 1 && picture_of.size() == plans.size() && outs.size() == plans.size(),
      Fault::argument, "want one picture and one output address a plan");
  std::vector<cuda::Job> jobs(static_cast<size_t>(plans.size()));
  for (size_t i = 0; i < jobs.size(); ++i) {
    std::memcpy(&jobs[i].plan, static_cast<const uint8_t*>(plans.data()) + i * sizeof(ViewPlan), sizeof(ViewPlan));
    jobs[i].picture = picture_of.data()[i];
    jobs[i].out = reinterpret_cast<void*>(outs.data()[i]);
  }
  return jobs;
}

// Several threads take turns.
struct PyRenderer {
  explicit PyRenderer(const cuda::Options& options) : renderer(options) {}
  template <typename Value>
  Value get(Value (cuda::Renderer::*what)() const) {
    WithoutGil without_gil;
    std::lock_guard lock(mutex);
    return (renderer.*what)();
  }
  std::mutex mutex;
  cuda::Renderer renderer;
};

size_t pack(PyRenderer& self, const Array<int64_t>& pictures, const py::array& plans, const Array<int32_t>& picture_of,
            const Array<int64_t>& outs) {
  const std::vector<cuda::Picture> borrowed = pictures_of(pictures);
  const std::vector<cuda::Job> jobs = jobs_of(plans, picture_of, outs);
  WithoutGil without_gil;
  std::lock_guard lock(self.mutex);
  return self.renderer.pack(borrowed, jobs);
}

void launch(PyRenderer& self, uintptr_t workspace, size_t bytes, uintptr_t stream) {
  WithoutGil without_gil;
  std::lock_guard lock(self.mutex);
  self.renderer.launch(reinterpret_cast<void*>(workspace), bytes, reinterpret_cast<void*>(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  m.doc() = "Views rendered on a GPU. Importing this calls nothing of CUDA.";
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      translate(error);
    }
  });
  m.attr("view_plan_bytes") = sizeof(ViewPlan);
  m.def("unavailable", &cuda::unavailable);
  m.def("let_others_capture", &cuda::let_others_capture);
  py::class_<PyRenderer>(m, "Renderer")
      .def(py::init([](int device, int element_bytes, bool channels_last, const Array<uint32_t>& table, size_t limit) {
             return std::make_unique<PyRenderer>(options_of(device, element_bytes, channels_last, table, limit));
           }),
           "device"_a, "element_bytes"_a, "channels_last"_a, "table"_a, "workspace_limit"_a = size_t{512} << 20)
      .def("pack", &pack, "pictures"_a, "plans"_a, "picture_of"_a, "outs"_a)
      .def("launch", &launch, "workspace"_a, "bytes"_a, "stream"_a)
      .def_property_readonly("workspace_bytes",
                             [](PyRenderer& self) { return self.get(&cuda::Renderer::workspace_bytes); })
      .def_property_readonly("device_bytes", [](PyRenderer& self) { return self.get(&cuda::Renderer::device_bytes); })
      .def_property_readonly("allocations", [](PyRenderer& self) { return self.get(&cuda::Renderer::allocations); });
  const auto make = [](const py::object& device) { return cuda::make_gpu(device.cast<int>()); };
  bind_nvjpeg(m, make);
  bind_exact(m, make);
}
