// A libFuzzer target (`make fuzz`): any bytes; a picture that the baseline decoder takes must be libjpeg's, byte for
// byte, and a window of it too, from the beginning and from its entry points. Other entry points may give other pixels.
#include "jpeg/decode.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "crc32c.h"
#include "error.h"
#include "isa.h"
#include "jpeg/header.h"
#include "window.h"

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
               ours.by_baseline()      ? "by BaselineDecoder"
               : ours.by_progressive() ? "by ProgressiveDecoder"
                                       : "by libjpeg");
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

void compare_part(jpeg::Decoder& decoder, std::span<const uint8_t> bytes, const ConstPlanes& whole, const Part& part) {
  const ConstPlanes picture = decoder.decode(bytes, 0, &part);
  if (!part.points.empty() && !decoder.from_points()) report("its own entry points are declined", decoder);
  if (!same_window(picture, whole, part.window))
    report(part.points.empty() ? "a window differs" : "a window from entry points differs", decoder);
}

void check_parts(jpeg::Decoder& decoder, std::span<const uint8_t> bytes, const ConstPlanes& whole, uint32_t dice) {
  std::vector<uint8_t> points;
  if (!decoder.prove(bytes, 0, &points)) return;
  const Window window = window_of(whole, dice);
  compare_part(decoder, bytes, whole, {window, {}});
  if (points.empty()) return;
  compare_part(decoder, bytes, whole, {window, points});
  for (size_t i = 0; i < 3; ++i) {
    dice = dice * 1664525 + 1013904223;
    points[(dice >> 8) % points.size()] = static_cast<uint8_t>(dice >> 24);
  }
  const Part hostile{window, points};
  decoder.decode(bytes, 0, &hostile);  // never reads or writes beyond; refuses nothing that is proven
}

struct Counts {
  long runs = 0, pictures = 0, baseline = 0, progressive = 0;
  ~Counts() {
    std::fprintf(stderr, "%ld runs, %ld pictures, %ld by BaselineDecoder, %ld by ProgressiveDecoder\n", runs, pictures,
                 baseline, progressive);
  }
} counts;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static jpeg::Decoder decoder, libjpeg(true), in_parts;  // kept over runs, as the engine keeps them
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
  ++counts.pictures, counts.baseline += decoder.by_baseline(), counts.progressive += decoder.by_progressive();
  compare(*ours, *libjpegs, decoder);
  check_parts(in_parts, bytes, *libjpegs, crc32c(bytes));
  return 0;
}
