// The kernels that decode records of the codec "dct" and JPEGs with entry points, on the CPU, against the CPU's own
// decoder, for tests/native/test_cuda_decode.py. Built with the sanitizers.
//
// Input, once a record: int64 x 2 (bytes of the record and of its entry points), and both. Output, a letter for each:
// '-' GPUs do not take it, 'r' both refuse it, '=' both give the same pixels, 'c' the CPU alone takes it: a JPEG, whose
// entry points are not its own, or which libjpeg decodes. Ends with words where they differ otherwise, or where the
// order of threads or what memory held before makes a difference.
#include "jpeg/decode.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "decode_on_host.h"
#include "error.h"

using namespace pass_loader;

namespace {

long number = 0;  // of the record

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "record %ld: %s\n", number, what);
  std::exit(1);
}

DecodedOnHost by_kernels(jpeg::Decoder& decoder, std::span<const uint8_t> bytes, std::span<const uint8_t> points,
                         uint8_t fill, bool backwards) {
  if (jpeg::is_dct(bytes)) return decode_on_host(jpeg::parse_dct(bytes), fill, backwards);
  std::vector<uint8_t> memory(decoder.form_bytes(bytes, points), fill);
  if (memory.empty()) return {};
  decoder.write_form(bytes, points, memory.data());
  return decode_on_host(memory, fill, backwards);
}

char compare(std::span<const uint8_t> bytes, std::span<const uint8_t> points) {
  static jpeg::Decoder decoder;
  DecodedOnHost found, again;
  try {
    found = by_kernels(decoder, bytes, points, 0, false), again = by_kernels(decoder, bytes, points, 0xA5, true);
  } catch (const Error&) {
    return 'r';  // nothing is made of it for a GPU
  }
  if (!found.is_taken) return '-';
  if (found.is_sound != again.is_sound) give_up("another verdict with threads and blocks backwards");
  ConstPlanes want{};
  try {
    want = decoder.decode(bytes);
  } catch (const Error&) {
    if (found.is_sound) give_up("the CPU refuses it");
    return 'r';
  }
  if (!found.is_sound && jpeg::is_dct(bytes)) give_up("the CPU takes it");
  if (!found.is_sound) return 'c';
  for (int c = 0; c < 3; ++c)
    for (int32_t y = 0; y < found.height; ++y) {
      const uint8_t* row = want.row(want.channels == 1 ? 0 : c, y);
      if (std::equal(row, row + found.width, found.row(c, y)) && std::equal(row, row + found.width, again.row(c, y)))
        continue;
      std::fprintf(stderr, "plane %d, row %d: ", c, y);
      give_up("the pixels differ");
    }
  return '=';
}

}  // namespace

int main() {
  for (int64_t bytes[2]; std::fread(bytes, sizeof bytes, 1, stdin) == 1; ++number) {
    std::vector<uint8_t> record(static_cast<size_t>(bytes[0]) + jpeg::kStreamPadding);
    std::vector<uint8_t> points(static_cast<size_t>(bytes[1]));
    if (std::fread(record.data(), 1, static_cast<size_t>(bytes[0]), stdin) != static_cast<size_t>(bytes[0]) ||
        std::fread(points.data(), 1, points.size(), stdin) != points.size())
      return 2;
    std::putchar(compare({record.data(), static_cast<size_t>(bytes[0])}, points));
  }
  return 0;
}
