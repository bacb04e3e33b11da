// The zstd frame (RFC 8878) that a stream of the codec "dct" may be stored in, by libzstd.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

struct ZSTD_DCtx_s;
struct ZSTD_CCtx_s;

namespace pass_loader::jpeg {

// Each thread has its own and reuses it, so that the steady state allocates nothing.
class ZstdReader {
 public:
  ZstdReader();
  ~ZstdReader();
  // Writes the contents of `frame` to `out`. It must be one whole frame of exactly `size` bytes. Throws Error(record).
  void read(std::span<const uint8_t> frame, size_t size, uint8_t* out);

 private:
  std::unique_ptr<ZSTD_DCtx_s, size_t (*)(ZSTD_DCtx_s*)> context_;
};

class ZstdWriter {
 public:
  ZstdWriter();
  ~ZstdWriter();
  // Returns one frame, or nothing if it would not be smaller.
  std::vector<uint8_t> write(std::span<const uint8_t> content);

 private:
  std::unique_ptr<ZSTD_CCtx_s, size_t (*)(ZSTD_CCtx_s*)> context_;
};

}  // namespace pass_loader::jpeg
