// Mutations that leave a file decodable. Most changes of bytes break a header, and most changes of a scan's bits leave
// bits over or too few, which BaselineDecoder declines: then nothing is compared. So the scan is changed and then
// written anew from the symbols that its bits happen to hold, for as many blocks as the picture has.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::minstd_rand;

struct Table {
  const uint8_t* counts = nullptr;  // 16, then the symbols

  // The symbol whose code is the `length` bits of `code`, or -1.
  int find(uint32_t code, int length) const {
    uint32_t first = 0, before = 0;
    for (int n = 1; n <= length; ++n, first <<= 1) {
      if (n == length) return code >= first && code - first < counts[n - 1] ? counts[16 + before + code - first] : -1;
      before += counts[n - 1], first += counts[n - 1];
    }
    return -1;
  }
  // The code and length of a symbol; length 0 where it has none.
  int code_of(int symbol, uint32_t* code) const {
    *code = 0;
    for (int n = 1, at = 16; n <= 16; ++n, *code <<= 1)
      for (int i = 0; i < counts[n - 1]; ++i, ++at, ++*code)
        if (counts[at] == symbol) return n;
    return 0;
  }
};

// One baseline scan without restart markers; places are offsets in the file.
struct Layout {
  size_t frame = 0, entropy = 0;  // the frame header's and the scan's bytes
  std::vector<size_t> quantization, huffman;
  Table tables[2][4];
  int components = 0;
  uint8_t selectors[4] = {};  // Huffman tables: DC << 4 | AC

  bool read(const Bytes& file);
  bool read_segment(const Bytes& file, int marker, size_t at, size_t end);
  int64_t blocks(const Bytes& file, std::vector<int>* mcu) const;
};

bool Layout::read(const Bytes& file) {
  for (size_t at = 2; at + 4 <= file.size();) {
    const size_t end = at + 2 + (file[at + 2] << 8 | file[at + 3]);
    if (file[at] != 0xff || end > file.size() || !read_segment(file, file[at + 1], at + 4, end)) return false;
    if (file[at + 1] == 0xda) return frame != 0 && components == file[frame + 5];
    at = end;
  }
  return false;
}

bool Layout::read_segment(const Bytes& file, int marker, size_t at, size_t end) {
  if (end < at) return false;
  if (marker == 0xdb && end - at >= 65) quantization.push_back(at);
  if (marker == 0xc4)
    for (size_t symbols; at + 17 <= end; at += 17 + symbols) {
      symbols = 0;
      for (int i = 1; i <= 16; ++i) symbols += file[at + i];
      if (file[at] >> 4 > 1 || (file[at] & 15) > 3 || at + 17 + symbols > end) return false;
      tables[file[at] >> 4][file[at] & 15].counts = &file[at + 1];
      if (symbols >= 12) huffman.push_back(at + 17);
    }
  if (marker == 0xc0) {
    frame = at;
    if (end < at + 6 || end < at + 6 + 3 * file[at + 5]) return false;
  }
  if (marker == 0xda) {
    components = end == at ? 0 : file[at], entropy = end;
    if ((components != 1 && components != 3) || end != at + 4 + 2 * components) return false;
    for (int c = 0; c < components; ++c) selectors[c] = file[at + 2 + 2 * c] & 0x33;
    for (int c = 0; c < components; ++c)
      if (!tables[0][selectors[c] >> 4].counts || !tables[1][selectors[c] & 15].counts) return false;
  }
  return marker != 0xdd;
}

// How many blocks the scan has; mcu: the component of each block of an MCU.
int64_t Layout::blocks(const Bytes& file, std::vector<int>* mcu) const {
  const uint8_t* f = &file[frame];
  int wide = 1, tall = 1;
  for (int c = 0; c < components; ++c) {
    const int h = f[7 + 3 * c] >> 4, v = f[7 + 3 * c] & 15;
    mcu->insert(mcu->end(), components == 1 ? 1 : h * v, c);
    if (components > 1) wide = std::max(wide, h), tall = std::max(tall, v);
  }
  const int height = f[1] << 8 | f[2], width = f[3] << 8 | f[4];
  const int64_t rows = (height + 8 * tall - 1) / (8 * tall), columns = (width + 8 * wide - 1) / (8 * wide);
  return rows * columns * static_cast<int64_t>(mcu->size());
}

Bytes stuffed(const Bytes& bits) {
  Bytes out;
  for (uint8_t byte : bits) {
    out.push_back(byte);
    if (byte == 0xff) out.push_back(0);
  }
  out.insert(out.end(), {0xff, 0xd9});
  return out;
}

Bytes unstuffed(std::span<const uint8_t> entropy) {
  Bytes out;
  for (size_t i = 0; i < entropy.size(); ++i) {
    if (entropy[i] == 0xff && i + 1 < entropy.size() && entropy[i + 1] >= 0xd0) break;
    out.push_back(entropy[i]);
    if (entropy[i] == 0xff) ++i;
  }
  return out;
}

// Reads symbols from any bits, random ones where they run out, and writes those that make a clean scan.
class Rewriter {
 public:
  Rewriter(const Bytes& in, Random& random) : in_(in), random_(random) {}

  bool block(const Table& dc, const Table& ac) {
    int symbol = read(dc);
    if (symbol < 0 || !write(dc, symbol)) return false;
    copy(symbol & 15);
    for (int k = 1; k < 64; ++k) {
      symbol = read(ac);
      k += symbol >> 4;
      if (k > 63) symbol = 0;
      if (symbol < 0 || !write(ac, symbol)) return false;
      if ((symbol & 15) == 0 && symbol != 0xf0) break;
      copy(symbol & 15);
    }
    return true;
  }
  Bytes finish() {
    while (written_ % 8 != 0) put(1);
    return out_;
  }

 private:
  int get() {
    const size_t at = read_++;
    return at / 8 < in_.size() ? in_[at / 8] >> (7 - at % 8) & 1 : static_cast<int>(random_() >> 8 & 1);
  }
  void put(int bit) {
    if (written_ % 8 == 0) out_.push_back(0);
    out_.back() |= static_cast<uint8_t>(bit << (7 - written_++ % 8));
  }
  void copy(int bits) {
    while (bits-- > 0) put(get());
  }
  int read(const Table& table) {
    for (int attempt = 0; attempt < 8; ++attempt) {
      uint32_t code = 0;
      for (int length = 1; length <= 16; ++length) {
        code = code << 1 | static_cast<uint32_t>(get());
        if (int symbol = table.find(code, length); symbol >= 0) return symbol;
      }
    }
    return -1;
  }
  bool write(const Table& table, int symbol) {
    uint32_t code;
    const int length = table.code_of(symbol, &code);
    for (int i = length - 1; i >= 0; --i) put(code >> i & 1);
    return length > 0;
  }

  const Bytes& in_;
  Random& random_;
  size_t read_ = 0, written_ = 0;
  Bytes out_;
};

// The scan's bits for the header as it stands; `bits` where the tables do not allow that.
Bytes rewritten(const Bytes& file, const Layout& layout, const Bytes& bits, Random& random) {
  std::vector<int> mcu;
  const int64_t blocks = layout.blocks(file, &mcu);
  if (blocks > 2000) return bits;
  Rewriter rewriter(bits, random);
  for (int64_t i = 0; i < blocks; ++i) {
    const uint8_t selector = layout.selectors[mcu[static_cast<size_t>(i) % mcu.size()]];
    if (!rewriter.block(layout.tables[0][selector >> 4], layout.tables[1][selector & 15])) return bits;
  }
  return rewriter.finish();
}

template <typename T>
T pick(std::initializer_list<T> of, Random& random) {
  return of.begin()[random() % of.size()];
}

// One number of the header: a size, the sampling, a quantiser, a symbol.
void change_header(Bytes& file, const Layout& layout, Random& random) {
  uint8_t* frame = &file[layout.frame];
  const auto byte = static_cast<uint8_t>(random() >> 4);
  switch (random() % 4) {
    case 0:
      frame[pick({2, 4}, random)] = static_cast<uint8_t>(1 + byte % 72);
      break;
    case 1:
      frame[7] = pick<uint8_t>({0x11, 0x21, 0x12, 0x22}, random);
      break;
    case 2:
      if (!layout.quantization.empty())
        file[layout.quantization[random() % layout.quantization.size()] + 1 + random() % 64] =
            pick<uint8_t>({1, 2, 255, byte}, random);
      break;
    default:
      if (!layout.huffman.empty()) file[layout.huffman[random() % layout.huffman.size()] + random() % 12] = byte;
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  Bytes file(data, data + size);
  Layout layout;
  const unsigned way = random() % 10;
  if (way == 0 || !layout.read(file)) return LLVMFuzzerMutate(data, size, max_size);
  Bytes bits = unstuffed(std::span(file).subspan(layout.entropy));
  if (way < 4) {
    change_header(file, layout, random);
  } else {
    const size_t changed = bits.size();
    bits.resize(changed + 64);
    bits.resize(LLVMFuzzerMutate(bits.data(), changed, bits.size()));
  }
  if (way != 9) bits = rewritten(file, layout, bits, random);
  file.resize(layout.entropy);
  const Bytes scan = stuffed(bits);
  file.insert(file.end(), scan.begin(), scan.end());
  if (file.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, file.data(), file.size());
  return file.size();
}
