#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include <pybind11/stl.h>

#include "bindings_gil.h"
#include "bindings_gpu.h"
#include "cuda/nvjpeg.h"
#include "error.h"

namespace pass_loader {

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

std::vector<cuda::JpegFile> files_of(const Rows& rows) {
  PL_CHECK(rows.ndim() == 2 && rows.shape(1) == 6, Fault::argument,
           "want files of shape (N, 6): address, bytes, height, width, bytes a row and a plane of RGB");
  std::vector<cuda::JpegFile> files;
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    std::array<int64_t, 6> row;
    std::copy_n(rows.data(i, 0), row.size(), row.begin());
    PL_CHECK(row[1] > 0 && row[2] > 0 && row[2] <= 65535 && row[3] > 0 && row[3] <= 65535 && row[4] >= row[3] &&
                 row[4] % 16 == 0 && row[5] >= row[4] * row[2] && row[5] % 16 == 0,
             Fault::argument, "file %zd: a bad size", i);
    files.push_back({reinterpret_cast<const uint8_t*>(row[0]), static_cast<size_t>(row[1]),
                     static_cast<int32_t>(row[2]), static_cast<int32_t>(row[3]), row[4], row[5]});
  }
  return files;
}

Rows sort(cuda::JpegDecoder& self, const Rows& rows) { return sorted(self, files_of(rows)); }

bool decode(cuda::JpegDecoder& self, int32_t group, uintptr_t rgb, uintptr_t stream) {
  WithoutGil without_gil;
  return self.decode(group, reinterpret_cast<uint8_t*>(rgb), reinterpret_cast<void*>(stream));
}

}  // namespace

void bind_nvjpeg(py::module_& m, MakeGpu make) {
  GilGate::close_at_exit();
  py::class_<cuda::JpegDecoder>(m, "JpegDecoder", py::module_local())
      .def(py::init([make = std::move(make)](const py::object& device, const std::string& library, size_t slot_bytes) {
             std::unique_ptr<cuda::Gpu> gpu = make(device);
             WithoutGil without_gil;
             return std::make_unique<cuda::JpegDecoder>(std::move(gpu), library, slot_bytes);
           }),
           "device"_a, "library"_a, "slot_bytes"_a)
      .def("sort", &sort, "files"_a)
      .def("decode", &decode, "group"_a, "rgb"_a, "stream"_a)
      .def_property_readonly("groups", &cuda::JpegDecoder::groups)
      .def_property_readonly("reason", &cuda::JpegDecoder::reason)
      .def_property_readonly("engines", &cuda::JpegDecoder::engines)
      .def_property_readonly("cores", &cuda::JpegDecoder::cores)
      .def_property_readonly("version", &cuda::JpegDecoder::version)
      .def_property_readonly("last_failure", &cuda::JpegDecoder::last_failure)
      .def_property_readonly("device_bytes", &cuda::JpegDecoder::device_bytes)
      .def_property_readonly("pinned_bytes", &cuda::JpegDecoder::pinned_bytes);
}

}  // namespace pass_loader
