// A libFuzzer target (`make fuzz`): any bytes after a PNG's header. What is decoded has the size that the header says,
// and is the same again by a decoder that has seen other pictures.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "error.h"
#include "png/decode.h"
#include "png/header.h"

namespace {

using namespace pass_loader;

constexpr int64_t kMaxPixelsHere = 1 << 14;  // keeps a run short

std::optional<ConstPlanes> decode(png::Decoder& decoder, std::span<const uint8_t> bytes) {
  try {
    return decoder.decode(bytes);
  } catch (const Error&) {
    return std::nullopt;
  }
}

void check(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

struct Counts {
  long runs = 0, pictures = 0;
  ~Counts() { std::fprintf(stderr, "%ld runs, %ld pictures\n", runs, pictures); }
} counts;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static png::Decoder decoder;  // kept over runs, as the engine keeps it
  const std::span<const uint8_t> bytes(data, size);
  ++counts.runs;
  png::Header header;
  try {
    header = png::read_header(bytes);
    png::ends_with_iend(bytes);
  } catch (const Error&) {
    return 0;
  }
  if (int64_t{header.height} * header.width > kMaxPixelsHere) return 0;
  png::Decoder fresh;
  const auto found = decode(decoder, bytes), again = decode(fresh, bytes);
  check(found.has_value() == again.has_value(), "one alone refuses");
  if (!found) return 0;
  ++counts.pictures;
  check(found->height == header.height && found->width == header.width, "another size");
  const size_t row_bytes = static_cast<size_t>(found->width) * (found->deep ? 2 : 1);
  for (int c = 0; c < found->channels; ++c)
    for (int32_t y = 0; y < found->height; ++y)
      check(std::memcmp(found->row(c, y), again->row(c, y), row_bytes) == 0, "pixels differ");
  return 0;
}
