// One picture's way without Python, for machines that the tests reach only by emulation (tests/native/test_aarch64.py).
// Standard input: cases; standard output: an answer each. Numbers are in this machine's order, little-endian.
//   case    SampleKey; int64 counts of ViewSpec, ViewPlan and JPEG bytes; these; a Normalization's table, mean and std
//   answer  uint32 CRC-32C of the bytes; int32 whether decoded, whether without libjpeg, height, width; the pixels; the
//           plans made of the ViewSpecs; of each of them and of each ViewPlan the view's bytes and its float32 values
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cpu/normalize.h"
#include "cpu/render.h"
#include "crc32c.h"
#include "error.h"
#include "jpeg/decode.h"
#include "plan.h"

namespace {

using namespace pass_loader;

template <typename T>
bool read(T* to, size_t count = 1) {
  return std::fread(to, sizeof(T), count, stdin) == count;
}

template <typename T>
void write(const T* from, size_t count = 1) {
  if (std::fwrite(from, sizeof(T), count, stdout) != count) std::abort();
}

void write_pixels(const ConstPlanes& picture) {
  std::vector<uint8_t> pixels(size_t{3} * picture.height * picture.width);
  cpu::interleave(picture, 3, pixels.data());
  write(pixels.data(), pixels.size());
}

struct Case {
  SampleKey key{};
  std::vector<ViewSpec> recipe;
  std::vector<ViewPlan> plans;
  std::vector<uint8_t> bytes;
  cpu::NormalizeTable table;
  std::array<float, 3> mean, std;

  bool read_all() {
    int64_t counts[3];
    if (!read(&key) || !read(counts, 3)) return false;
    recipe.resize(counts[0]), plans.resize(counts[1]), bytes.resize(counts[2]);
    return read(recipe.data(), recipe.size()) && read(plans.data(), plans.size()) && read(bytes.data(), bytes.size()) &&
           read(&table) && read(&mean) && read(&std);
  }
};

void answer(const Case& c, jpeg::Decoder& decoder, cpu::RenderScratch& scratch) {
  const uint32_t crc = crc32c(c.bytes);
  write(&crc);
  ConstPlanes picture{};
  try {
    picture = decoder.decode(c.bytes);
  } catch (const Error&) {
  }
  const int32_t words[] = {picture.pixels != nullptr, decoder.by_baseline(), picture.height, picture.width};
  write(words, 4);
  if (picture.pixels == nullptr) return;
  write_pixels(picture);
  std::vector<ViewPlan> plans(view_count(c.recipe));
  check_recipe(c.recipe);
  plan_views(c.recipe, c.key, picture.height, picture.width, plans);
  write(plans.data(), plans.size());
  plans.insert(plans.end(), c.plans.begin(), c.plans.end());
  const cpu::Normalization normalization({cpu::Element::float32, false, 3}, c.table, {}, c.mean, c.std);
  StageTimes times;
  StageClock clock(times);
  for (const ViewPlan& plan : plans) {
    check_plan(plan, picture.height, picture.width);
    const Planes view = cpu::render_view(picture, plan, {}, scratch, clock);
    write_pixels(view);
    std::vector<float> values(size_t{3} * view.height * view.width);
    cpu::normalize(view, normalization, values.data());
    write(values.data(), values.size());
  }
}

}  // namespace

int main() {
  jpeg::Decoder decoder;
  cpu::RenderScratch scratch;
  for (Case c; c.read_all();) answer(c, decoder, scratch);
}
