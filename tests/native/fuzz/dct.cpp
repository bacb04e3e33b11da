// A libFuzzer target (`make fuzz`): records of the codec "dct". Every level takes and refuses the same ones, to the
// same pixels, whatever follows the record; so do the CUDA kernels, executed by the CPU. A window of a picture has
// these pixels too, and so has the JPEG that a record becomes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "crc32c.h"
#include "decode_on_host.h"
#include "error.h"
#include "isa.h"
#include "jpeg/dct_codec.h"
#include "jpeg/decode.h"
#include "jpeg/transcode.h"
#include "window.h"

namespace {

using namespace pass_loader;
using Bytes = std::vector<uint8_t>;

constexpr int64_t kMaxPixelsHere = 1 << 12;  // keeps a run short

struct Counts {
  long runs = 0, pictures = 0, files = 0;
  ~Counts() { std::fprintf(stderr, "%ld runs, %ld pictures, %ld written as JPEG\n", runs, pictures, files); }
} counts;

[[noreturn]] void report(const char* what, const std::string& level) {
  std::fprintf(stderr, "%s; level %s\n", what, level.c_str());
  std::abort();
}

// At the end of its memory, so that AddressSanitizer sees a read beyond the padding.
Bytes padded(std::span<const uint8_t> record, uint8_t with) {
  Bytes out(record.size() + jpeg::kStreamPadding, with);
  std::copy(record.begin(), record.end(), out.begin());
  return out;
}

std::optional<ConstPlanes> decode(jpeg::Decoder& decoder, std::span<const uint8_t> bytes) {
  try {
    return decoder.decode(bytes);
  } catch (const Error&) {
    return std::nullopt;
  }
}

void compare(const std::optional<ConstPlanes>& a, const std::optional<ConstPlanes>& b, const std::string& level) {
  if (a.has_value() != b.has_value()) report("one alone refuses", level);
  if (!a) return;
  if (a->height != b->height || a->width != b->width || a->channels != b->channels) report("sizes differ", level);
  for (int c = 0; c < a->channels; ++c)
    for (int32_t y = 0; y < a->height; ++y)
      if (std::memcmp(a->row(c, y), b->row(c, y), static_cast<size_t>(a->width)) != 0) report("pixels differ", level);
}

void compare(const std::optional<ConstPlanes>& wanted, const DecodedOnHost& found, const std::string& level) {
  if (!found.is_taken) return;
  if (wanted.has_value() != found.is_sound) report(wanted ? "the kernels refuse it" : "the kernels take it", level);
  if (!wanted) return;
  for (int c = 0; c < 3; ++c)
    for (int32_t y = 0; y < wanted->height; ++y)
      if (std::memcmp(wanted->row(wanted->channels == 1 ? 0 : c, y), found.row(c, y),
                      static_cast<size_t>(wanted->width)) != 0)
        report("the kernels' pixels differ", level);
}

Bytes to_jpeg(const Bytes& record, size_t size) {
  try {
    return jpeg::dct_to_jpeg({record.data(), size});
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static jpeg::Decoder decoder, base, in_parts, libjpeg(true);  // kept over runs, as the engine keeps them
  static const std::vector<std::string> levels = supported_isas();
  const std::span<const uint8_t> bytes(data, size);
  ++counts.runs;
  try {
    const jpeg::DctRecord record = jpeg::parse_dct(bytes);
    jpeg::header_of(record);
    if (int64_t{record.frame.height} * record.frame.width > kMaxPixelsHere) return 0;
  } catch (const Error&) {
    return 0;
  }
  const uint32_t chosen = crc32c(bytes);  // a function of the input, so that a finding repeats
  const std::string& level = levels[chosen % levels.size()];
  set_isa(level);
  const Bytes one = padded(bytes, 0), other = padded(bytes, 0x7f);
  const auto found = decode(decoder, {one.data(), size});
  if (chosen >> 8 & 1) {
    set_isa(levels[(chosen >> 9) % levels.size()]);
    compare(found, decode(base, {other.data(), size}), level);
  }
  counts.pictures += found.has_value();
  compare(found, decode_on_host(jpeg::parse_dct(bytes), static_cast<uint8_t>(chosen >> 20), (chosen >> 28 & 1) != 0),
          level);
  if (found) {
    const Part part{window_of(*found, chosen), {}};
    if (!same_window(in_parts.decode({other.data(), size}, 0, &part), *found, part.window))
      report("a window differs", level);
  }
  if (chosen >> 16 & 31) return 0;  // libjpeg's part takes far longer
  const Bytes file = to_jpeg(one, size);
  if (file.empty()) return 0;
  ++counts.files;
  const auto wanted = decode(libjpeg, file);
  // A picture beyond the range that our IDCT takes is libjpeg's alone.
  if (found && !wanted) report("libjpeg refuses what it has written", level);
  if (found) compare(found, wanted, level);
  return 0;
}
