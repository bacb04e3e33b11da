// CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of every record and of every table.
#pragma once
#include <cstdint>
#include <span>

namespace pass_loader {

// before: the CRC of the bytes that precede these, to go through a file in pieces.
uint32_t crc32c(std::span<const uint8_t> bytes, uint32_t before = 0);

}  // namespace pass_loader
