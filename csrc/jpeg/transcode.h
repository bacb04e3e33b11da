// Converts between JPEG files and records of the codec "dct". Coefficients, tables and markers are kept; Huffman codes,
// restart markers and the split into scans are not.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace pass_loader::jpeg {

// zstd: see DctEncoder::finish. max_scans: see Limits. Returns nothing if the record would not decode to the same bytes
// as the file, if libjpeg cannot write its coefficients, or if the file is damaged: such a file stays as it is. Throws
// Error(record) if the file cannot be decoded at all.
std::vector<uint8_t> jpeg_to_dct(std::span<const uint8_t> file, bool zstd, int max_scans);

// Returns true if jpeg_to_dct reads the coefficients of this sound file by our own decoders.
bool is_read_without_libjpeg(std::span<const uint8_t> file);

// Returns a baseline or extended sequential JPEG with optimised Huffman tables. kStreamPadding readable bytes must
// follow the record. Throws Error(record).
std::vector<uint8_t> dct_to_jpeg(std::span<const uint8_t> record);

}  // namespace pass_loader::jpeg
