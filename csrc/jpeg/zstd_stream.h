// The zstd layer that a stream of a record of the codec "dct" may have (RFC 8878), by libzstd.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

struct ZSTD_DCtx_s;
struct ZSTD_CCtx_s;

namespace pass_loader::jpeg {

// One a thread, reused: the steady state allocates nothing.
class ZstdReader {
 public:
  ZstdReader();
  ~ZstdReader();
  // `frame` must be one whole frame of exactly `size` bytes, written to `out`. Throws Error(record).
  void read(std::span<const uint8_t> frame, size_t size, uint8_t* out);

 private:
  std::unique_ptr<ZSTD_DCtx_s, size_t (*)(ZSTD_DCtx_s*)> context_;
};

class ZstdWriter {
 public:
  ZstdWriter();
  ~ZstdWriter();
  // One frame; empty where it would not be smaller.
  std::vector<uint8_t> write(std::span<const uint8_t> content);

 private:
  std::unique_ptr<ZSTD_CCtx_s, size_t (*)(ZSTD_CCtx_s*)> context_;
};

}  // namespace pass_loader::jpeg
