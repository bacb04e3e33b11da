#include "jpeg/zstd_stream.h"

#include <cstring>
#include <new>

#include <zstd.h>

#include "error.h"

namespace pass_loader::jpeg {
namespace {

constexpr uint8_t kMagic[] = {0x28, 0xb5, 0x2f, 0xfd};  // ZSTD_MAGICNUMBER, as it is stored
// Streams have few matches that are worth their code; most is saved by the Huffman codes of single bytes. From level 5,
// a block may be split where its statistics change. benchmarks/README.md has other levels' figures.
constexpr int kLevel = 5, kLeastMatch = 7;

// Frames of old formats and empty frames are refused before they reach a decoder.
bool is_one_frame(std::span<const uint8_t> bytes) {
  return bytes.size() >= sizeof kMagic && std::memcmp(bytes.data(), kMagic, sizeof kMagic) == 0 &&
         ZSTD_findFrameCompressedSize(bytes.data(), bytes.size()) == bytes.size();
}

}  // namespace

ZstdReader::ZstdReader() : context_(nullptr, ZSTD_freeDCtx) {}
ZstdReader::~ZstdReader() = default;

void ZstdReader::read(std::span<const uint8_t> frame, size_t size, uint8_t* out) {
  PL_CHECK(is_one_frame(frame), Fault::record, "dct: %zu bytes of a stream are no frame of zstd", frame.size());
  if (context_ == nullptr) context_.reset(ZSTD_createDCtx());
  if (context_ == nullptr) throw std::bad_alloc();
  const size_t read = ZSTD_decompressDCtx(context_.get(), out, size, frame.data(), frame.size());
  PL_CHECK(!ZSTD_isError(read), Fault::record, "dct: zstd: %s", ZSTD_getErrorName(read));
  PL_CHECK(read == size, Fault::record, "dct: %zu bytes in a stream of %zu", read, size);
}

ZstdWriter::ZstdWriter() : context_(ZSTD_createCCtx(), ZSTD_freeCCtx) {
  if (context_ == nullptr) throw std::bad_alloc();
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, kLevel);
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_minMatch, kLeastMatch);
}
ZstdWriter::~ZstdWriter() = default;

std::vector<uint8_t> ZstdWriter::write(std::span<const uint8_t> content) {
  std::vector<uint8_t> out(content.size());
  const size_t size = ZSTD_compress2(context_.get(), out.data(), out.size(), content.data(), content.size());
  out.resize(ZSTD_isError(size) || size >= content.size() ? 0 : size);  // an error means that it does not fit
  return out;
}

}  // namespace pass_loader::jpeg
