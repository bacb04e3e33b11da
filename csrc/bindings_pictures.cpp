// Single pictures and records without a pack: headers, decoding, transcoding.
#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <vector>

#include <pybind11/stl.h>

#include "bindings.h"
#include "cpu/jitter.h"
#include "cpu/normalize.h"
#include "crc32c.h"
#include "decode.h"
#include "entry_points.h"
#include "error.h"
#include "jpeg/dct_codec.h"
#include "jpeg/forms.h"
#include "jpeg/transcode.h"

namespace pass_loader {

namespace py = pybind11;
using namespace pybind11::literals;

py::array interleaved(const ConstPlanes& picture, int channels) {
  if (picture.deep) {
    py::array_t<uint16_t> words({picture.height, picture.width, int32_t{1}});
    for (int32_t y = 0; y < picture.height; ++y)
      std::memcpy(words.mutable_data(y), picture.row(0, y), size_t{2} * picture.width);
    return words;
  }
  py::array_t<uint8_t> out({picture.height, picture.width, int32_t{channels}});
  cpu::interleave(picture, channels, out.mutable_data());
  return out;
}

namespace {

std::span<const uint8_t> bytes_of(const py::buffer_info& info) {
  PL_CHECK(info.ndim == 1 && info.itemsize == 1 && (info.size == 0 || info.strides[0] == 1), Fault::argument,
           "want contiguous bytes");
  return {static_cast<const uint8_t*>(info.ptr), static_cast<size_t>(info.size)};
}

py::dict header_of(const py::buffer& data, int64_t max_pixels) {
  py::buffer_info info = data.request();
  const PictureHeader header = read_header(bytes_of(info), limits_of(max_pixels, 0));
  return py::dict("height"_a = header.height, "width"_a = header.width, "components"_a = header.components,
                  "bits"_a = header.bits, "progressive"_a = header.progressive,
                  "exif_orientation"_a = header.exif_orientation, "ends"_a = header.ends);
}

std::span<const uint8_t> checked_bytes(const py::buffer_info& info) {
  const std::span<const uint8_t> bytes = bytes_of(info);
  PL_CHECK(bytes.size() <= size_t{1} << 40, Fault::argument, "%zu bytes are no picture", bytes.size());
  return bytes;
}

// Copies bytes and adds the padding that decoders may read.
std::span<const uint8_t> padded(std::span<const uint8_t> from, Scratch<uint8_t>& memory) {
  uint8_t* to = memory.need(from.size() + jpeg::kStreamPadding);
  std::memcpy(to, from.data(), from.size());
  std::memset(to + from.size(), 0, jpeg::kStreamPadding);
  return {to, from.size()};
}

std::span<const uint8_t> padded(const py::buffer& data, Scratch<uint8_t>& memory) {
  const py::buffer_info info = data.request();
  return padded(checked_bytes(info), memory);
}

// Decodes and throws the pixels away. It keeps its memory from picture to picture, as the engine's decoders do. Several
// threads take turns.
struct PyDecoder {
  explicit PyDecoder(bool libjpeg_alone) : decoder(libjpeg_alone) {}
  void decode(const py::buffer& data, const Limits& limits = {}) {
    const py::buffer_info info = data.request();
    const std::span<const uint8_t> bytes = checked_bytes(info);
    WithoutGil without_gil;
    std::lock_guard lock(mutex);
    decoder.decode(padded(bytes, memory), limits);
  }
  std::mutex mutex;
  Decoder decoder;
  Scratch<uint8_t> memory;
};

py::array decode(const py::buffer& data, int channels) {
  PL_CHECK(channels == 1 || channels == 3, Fault::argument, "channels is %d, want 1 or 3", channels);
  Scratch<uint8_t> memory, gray;
  const std::span<const uint8_t> bytes = padded(data, memory);
  Decoder decoder;
  ConstPlanes picture;
  {
    WithoutGil without_gil;
    picture = decoder.decode(bytes);
    if (channels == 1) picture = cpu::to_gray(picture, gray);
  }
  return interleaved(picture, channels);
}

py::tuple decode_part(const py::buffer& data, const std::array<int32_t, 4>& window, const py::buffer& points) {
  Scratch<uint8_t> memory;
  const std::span<const uint8_t> bytes = padded(data, memory);
  const py::buffer_info info = points.request();
  const Part part{{window[0], window[1], window[2], window[3]}, bytes_of(info)};
  Decoder decoder;
  ConstPlanes picture;
  {
    WithoutGil without_gil;
    picture = decoder.decode(bytes, {}, &part);
  }
  const auto& [top, bottom, left, right] = part.window;
  picture.pixels += static_cast<size_t>(top) * picture.row_stride + static_cast<size_t>(left);
  picture.height = bottom - top, picture.width = right - left;
  const char* by = decoder.from_points() ? "points" : decoder.by_baseline() ? "baseline" : "";
  return py::make_tuple(interleaved(picture, picture.channels), by);
}

Array<uint32_t> checks_of_points(const py::buffer& points, const Array<int64_t>& ends, const Array<uint32_t>& crc,
                                 const Array<int64_t>& length) {
  const py::buffer_info info = points.request();
  const std::span<const uint8_t> bytes = bytes_of(info);
  const auto end = column(ends), lengths = column(length);
  const auto crcs = column(crc);
  PL_CHECK(end.size() == crcs.size() + 1 && lengths.size() == crcs.size(), Fault::argument, "columns differ in length");
  Array<uint32_t> checks(static_cast<py::ssize_t>(crcs.size()));
  for (size_t i = 0; i < crcs.size(); ++i) {
    PL_CHECK(0 <= end[i] && end[i] <= end[i + 1] && end[i + 1] <= static_cast<int64_t>(bytes.size()), Fault::argument,
             "row %zu: points %lld to %lld of %zu bytes", i, static_cast<long long>(end[i]),
             static_cast<long long>(end[i + 1]), bytes.size());
    const auto own = bytes.subspan(static_cast<size_t>(end[i]), static_cast<size_t>(end[i + 1] - end[i]));
    checks.mutable_data()[i] = check_of(own, crcs[i], lengths[i]);
  }
  return checks;
}

template <typename Call>
py::object transcode(const py::buffer& data, const Call& call) {
  Scratch<uint8_t> memory;
  const std::span<const uint8_t> bytes = padded(data, memory);
  std::vector<uint8_t> out;
  {
    WithoutGil without_gil;
    out = call(bytes);
  }
  if (out.empty()) return py::none();
  return py::bytes(reinterpret_cast<const char*>(out.data()), out.size());
}

}  // namespace

void bind_pictures(py::module_& m) {
  m.attr("max_pixels") = kMaxPixels;
  m.def(
      "crc32c",
      [](const py::buffer& data, uint32_t before) {
        py::buffer_info info = data.request();
        std::span<const uint8_t> bytes = bytes_of(info);
        WithoutGil without_gil;
        return crc32c(bytes, before);
      },
      "data"_a, "before"_a = 0, "CRC-32C (Castagnoli) of the bytes; before: that of the bytes that precede them.");
  m.def("read_header", &header_of, "data"_a, "max_pixels"_a = kMaxPixels);
  m.def("decode", &decode, "data"_a, "channels"_a = 3);
  const auto decodes_by = [](bool (Decoder::*by)() const) {
    return [by](const py::buffer& data) {
      PyDecoder one(false);
      one.decode(data);
      return (one.decoder.*by)();
    };
  };
  m.def("decodes_as_baseline", decodes_by(&Decoder::by_baseline), "data"_a,
        "Whether the project's own baseline decoder takes the picture: for tests.");
  m.def("decodes_as_progressive", decodes_by(&Decoder::by_progressive), "data"_a,
        "Whether the project's own progressive decoder takes the picture: for tests.");
  m.def(
      "check_decodes",
      [](const py::buffer& data, int64_t max_pixels, int max_scans) {
        PyDecoder(false).decode(data, limits_of(max_pixels, max_scans));
      },
      "data"_a, "max_pixels"_a = kMaxPixels, "max_scans"_a = 0, "Tells whether Pillow would accept the bytes.");
  m.def(
      "prove",
      [](const py::buffer& data, int64_t max_pixels, int max_scans) {
        const py::buffer_info info = data.request();
        const std::span<const uint8_t> bytes = checked_bytes(info);
        std::vector<uint8_t> points;
        bool clean;
        {
          WithoutGil without_gil;
          Scratch<uint8_t> memory;
          clean = Decoder().prove(padded(bytes, memory), limits_of(max_pixels, max_scans), &points);
        }
        return py::make_tuple(clean, py::bytes(reinterpret_cast<const char*>(points.data()), points.size()));
      },
      "data"_a, "max_pixels"_a = kMaxPixels, "max_scans"_a = 0,
      "Decodes a record whole: whether without warning, and a JPEG's entry points.");
  m.def("decode_part", &decode_part, "data"_a, "window"_a, "points"_a = py::bytes(),
        "The pixels of a window (top, bottom, left, right) alone, and what has decoded them: for tests.");
  m.def("checks_of_points", &checks_of_points, "points"_a, "ends"_a.noconvert(), "crc32c"_a.noconvert(),
        "length"_a.noconvert(), "Each record's check, see entry_points.h.");
  m.def(
      "check_scans",
      [](const py::buffer& data, int max_scans) {
        const py::buffer_info info = data.request();
        const std::span<const uint8_t> bytes = bytes_of(info);
        WithoutGil without_gil;
        check_scans(bytes, limits_of(kMaxPixels, max_scans));
      },
      "data"_a, "max_scans"_a = 0);
  py::class_<PyDecoder>(m, "Decoder")
      .def(py::init<bool>(), "libjpeg_alone"_a = false)
      .def("decode", [](PyDecoder& self, const py::buffer& data) { self.decode(data); }, "data"_a);
  m.def(
      "jpeg_to_dct",
      [](const py::buffer& file, bool zstd, int max_scans) {
        const Limits limits = limits_of(kMaxPixels, max_scans);
        return transcode(
            file, [=](std::span<const uint8_t> bytes) { return jpeg::jpeg_to_dct(bytes, zstd, limits.max_scans); });
      },
      "file"_a, "zstd"_a = false, "max_scans"_a = 0);
  m.def(
      "is_read_without_libjpeg",
      [](const py::buffer& file) {
        Scratch<uint8_t> memory;
        return jpeg::is_read_without_libjpeg(padded(file, memory));
      },
      "file"_a, "Whether jpeg_to_dct reads the coefficients by the project's own decoders: for tests.");
  m.def(
      "layer_dct",
      [](const py::buffer& record, bool zstd) {
        return transcode(record, [=](std::span<const uint8_t> bytes) { return jpeg::layer_dct(bytes, zstd); });
      },
      "record"_a, "zstd"_a);
  m.def(
      "gpu_form",
      [](const py::buffer& record, const py::buffer& points) {
        const py::buffer_info info = points.request();
        const std::span<const uint8_t> given = bytes_of(info);
        return transcode(record, [=](std::span<const uint8_t> bytes) {
          Decoder decoder;
          std::vector<uint8_t> form(decoder.form_bytes(bytes, given));
          const bool fits = form.empty() || decoder.write_form(bytes, given, form.data());
          PL_CHECK(fits, Fault::record, "dct: its lengths contradict its streams, or a frame is bad");
          return form;
        });
      },
      "record"_a, "points"_a = py::bytes(), "The record in the form for a GPU: for tests.");
  m.def("dct_to_jpeg", [](const py::buffer& record) { return transcode(record, &jpeg::dct_to_jpeg); }, "record"_a);
}

}  // namespace pass_loader
