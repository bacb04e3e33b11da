// One sample's way, for benchmarks/cpu/count_instructions.py, which counts what runs between begin() and end().
// Standard input, in this machine's order: int64 counts of ViewPlans and of the record's bytes; these; a
// Normalization's table, mean and std. Standard output: a sum of the bits of all values, equal on every machine.
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/normalize.h"
#include "cpu/render.h"
#include "crc32c.h"
#include "isa.h"
#include "jpeg/dct_unpack.h"
#include "jpeg/decode.h"

namespace {

using namespace pass_loader;

template <typename T>
bool read(T* to, size_t count = 1) {
  return std::fread(to, sizeof(T), count, stdin) == count;
}

}  // namespace

extern "C" {
[[gnu::noinline]] void begin() { asm volatile(""); }
[[gnu::noinline]] void end() { asm volatile(""); }
}

int main() {
  int64_t counts[2];
  if (!read(counts, 2)) return 1;
  std::vector<ViewPlan> plans(counts[0]);
  std::vector<uint8_t> bytes(counts[1] + jpeg::kStreamPadding);
  cpu::NormalizeTable table;
  std::array<float, 3> mean, std;
  if (!read(plans.data(), plans.size()) || !read(bytes.data(), counts[1])) return 1;
  if (!read(&table) || !read(&mean) || !read(&std)) return 1;
  const cpu::Normalization normalization({cpu::Element::float32, false, 3}, table, {}, mean, std);
  size_t values = 0;
  for (const ViewPlan& plan : plans) values += size_t{3} * plan.out_height * plan.out_width;
  std::vector<float> out(values);
  jpeg::Decoder decoder;
  cpu::RenderScratch scratch;
  StageTimes times;
  uint64_t sum = 0;
  for (int pass = 0; pass < 2; ++pass) {  // the first one makes tables and memory grow
    if (pass == 1) begin();
    const std::span<const uint8_t> record(bytes.data(), static_cast<size_t>(counts[1]));
    sum += crc32c(record);
    const ConstPlanes picture = decoder.decode(record);
    StageClock clock(times);
    float* to = out.data();
    for (const ViewPlan& plan : plans) {
      const Planes view = cpu::render_view(picture, plan, {}, scratch, clock);
      cpu::normalize(view, normalization, to);
      to += size_t{3} * view.height * view.width;
    }
    if (pass == 1) end();
  }
  for (float value : out) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    sum = sum * 31 + bits;
  }
  std::printf("%s %llu\n", isa_name(current_isa()).c_str(), static_cast<unsigned long long>(sum));
}
