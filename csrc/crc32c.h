// CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of every record.
#pragma once
#include <cstdint>
#include <span>

namespace pass_loader {

uint32_t crc32c(std::span<const uint8_t> bytes);

}  // namespace pass_loader
