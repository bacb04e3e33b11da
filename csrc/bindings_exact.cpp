#include <algorithm>
#include <array>
#include <vector>

#include "bindings_gil.h"
#include "bindings_gpu.h"
#include "cuda/exact.h"
#include "error.h"

namespace pass_loader {

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

std::vector<cuda::CodedFile> files_of(const Rows& rows) {
  PL_CHECK(rows.ndim() == 2 && rows.shape(1) == 4, Fault::argument,
           "want records of shape (N, 4): addresses of the form on the host and on the device, bytes a row and a plane "
           "of RGB");
  std::vector<cuda::CodedFile> files;
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    std::array<int64_t, 4> row;
    std::copy_n(rows.data(i, 0), row.size(), row.begin());
    const auto* form = reinterpret_cast<const GpuForm*>(row[0]);
    PL_CHECK(row[0] % static_cast<int64_t>(GpuForm::kAlign) == 0 &&
                 row[1] % static_cast<int64_t>(GpuForm::kAlign) == 0 && row[2] >= form->width && row[2] % 16 == 0 &&
                 row[3] >= row[2] * form->height && row[3] % 16 == 0,
             Fault::argument, "record %zd: a bad place or size", i);
    files.push_back({form, reinterpret_cast<const uint8_t*>(row[1]), row[2], row[3]});
  }
  return files;
}

Rows sort(cuda::ExactDecoder& self, const Rows& rows) { return sorted(self, files_of(rows)); }

void decode(cuda::ExactDecoder& self, int32_t group, uintptr_t workspace, uintptr_t verdicts, uintptr_t stream) {
  WithoutGil without_gil;
  self.decode(group, reinterpret_cast<uint8_t*>(workspace), reinterpret_cast<int32_t*>(verdicts),
              reinterpret_cast<void*>(stream));
}

}  // namespace

void bind_exact(py::module_& m, MakeGpu make) {
  GilGate::close_at_exit();
  py::class_<cuda::ExactDecoder>(m, "ExactDecoder", py::module_local())
      .def(py::init([make = std::move(make)](const py::object& device, size_t group_bytes) {
             std::unique_ptr<cuda::Gpu> gpu = make(device);
             WithoutGil without_gil;
             return std::make_unique<cuda::ExactDecoder>(std::move(gpu), group_bytes);
           }),
           "device"_a, "group_bytes"_a)
      .def("sort", &sort, "records"_a)
      .def("decode", &decode, "group"_a, "workspace"_a, "verdicts"_a, "stream"_a)
      .def_property_readonly("groups", &cuda::ExactDecoder::groups)
      .def_property_readonly("workspace_bytes", &cuda::ExactDecoder::workspace_bytes)
      .def_property_readonly("pinned_bytes", &cuda::ExactDecoder::pinned_bytes);
}

}  // namespace pass_loader
