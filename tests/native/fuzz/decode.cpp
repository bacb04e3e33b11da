// A libFuzzer target (`make fuzz`): any bytes; a picture that the baseline decoder takes must be libjpeg's, byte for
// byte.
#include "jpeg/decode.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "crc32c.h"
#include "error.h"
#include "isa.h"
#include "jpeg/header.h"

namespace {

using namespace pass_loader;

constexpr int64_t kMaxPixelsHere = 1 << 18;  // keeps a run short

// Empty where the bytes are refused.
std::optional<ConstPlanes> decode(jpeg::Decoder& decoder, std::span<const uint8_t> bytes) {
  try {
    return decoder.decode(bytes);
  } catch (const Error&) {
    return std::nullopt;
  }
}

[[noreturn]] void report(const char* what, const jpeg::Decoder& ours) {
  std::fprintf(stderr, "%s; level %s, decoded %s\n", what, isa_name(current_isa()).c_str(),
               ours.without_libjpeg() ? "by BaselineDecoder" : "by libjpeg");
  std::abort();
}

void compare(const ConstPlanes& ours, const ConstPlanes& libjpegs, const jpeg::Decoder& decoder) {
  if (ours.height != libjpegs.height || ours.width != libjpegs.width || ours.channels != libjpegs.channels)
    report("sizes differ", decoder);
  for (int c = 0; c < ours.channels; ++c)
    for (int32_t y = 0; y < ours.height; ++y) {
      const uint8_t *a = ours.row(c, y), *b = libjpegs.row(c, y);
      if (std::memcmp(a, b, static_cast<size_t>(ours.width)) == 0) continue;
      int32_t x = 0;
      while (a[x] == b[x]) ++x;
      std::fprintf(stderr, "plane %d, x %d, y %d of %d x %d: %d, libjpeg %d\n", c, x, y, ours.width, ours.height, a[x],
                   b[x]);
      report("bytes differ", decoder);
    }
}

struct Counts {
  long runs = 0, pictures = 0, baseline = 0;
  ~Counts() { std::fprintf(stderr, "%ld runs, %ld pictures, %ld by BaselineDecoder\n", runs, pictures, baseline); }
} counts;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static jpeg::Decoder decoder, libjpeg(true);  // kept over runs, as the engine keeps them
  static const std::vector<std::string> levels = supported_isas();
  const std::span<const uint8_t> bytes(data, size);
  ++counts.runs;
  try {
    const jpeg::Header header = jpeg::read_header(bytes);
    jpeg::ends_with_eoi(bytes);
    if (int64_t{header.height} * header.width > kMaxPixelsHere) return 0;
  } catch (const Error&) {
    return 0;
  }
  // A function of the input, so that a finding repeats.
  set_isa(levels[crc32c(bytes) % levels.size()]);
  const auto ours = decode(decoder, bytes), libjpegs = decode(libjpeg, bytes);
  if (ours.has_value() != libjpegs.has_value()) report(ours ? "libjpeg refuses" : "libjpeg alone accepts", decoder);
  if (!ours) return 0;
  ++counts.pictures, counts.baseline += decoder.without_libjpeg();
  compare(*ours, *libjpegs, decoder);
  return 0;
}
