// The CUDA kernels on the CPU: every block, phase and thread in a loop, in both orders, for
// tests/native/test_cuda_kernels.py.
//
// Input, once a case: int64 x 7 (pictures, jobs, element_bytes, channels_last, budget, backwards, ways), uint32[768]
// (elements of bytes); a picture: int64 x 2 (height, width) and its interleaved bytes; plans; int32 picture numbers.
// Output, once a case: the views' elements one after another, then int64 parts (how many times a batch was launched).
// Blocks and threads run from the last to the first where backwards: another result means a missing barrier or order.
// ways: every way of the first pass must make the same bytes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include <sanitizer/asan_interface.h>

#include "first_pass.h"
#include "run_block.h"
#include "weights.h"

using namespace pass_loader;

namespace {

constexpr size_t kGuard = 64;  // poisoned bytes between the pieces of the workspace

void read(void* to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}

template <typename T>
std::vector<T> read_array(size_t count) {
  std::vector<T> values(count);
  read(values.data(), count * sizeof(T));
  return values;
}

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "emulate: %s\n", what);
  std::exit(1);
}

// Planes with rows a little apart, and nothing after the last one.
struct Planar {
  explicit Planar(int number) {
    const auto size = read_array<int64_t>(2);
    picture = {nullptr, size[0], size[1], size[1] + number % 3 * 5, 0};
    picture.plane_stride = (picture.height - 1) * picture.row_stride + picture.width + number % 2 * 7;
    const int64_t last_plane = (picture.height - 1) * picture.row_stride + picture.width;
    bytes.resize(static_cast<size_t>(2 * picture.plane_stride + last_plane));
    const auto interleaved = read_array<uint8_t>(static_cast<size_t>(3 * size[0] * size[1]));
    for (int64_t i = 0; i < size[0] * size[1]; ++i)
      for (int64_t c = 0; c < 3; ++c)
        bytes[static_cast<size_t>(c * picture.plane_stride + i / size[1] * picture.row_stride + i % size[1])] =
            interleaved[static_cast<size_t>(3 * i + c)];
    bytes.shrink_to_fit();
    picture.pixels = bytes.data();
  }
  std::vector<uint8_t> bytes;
  cuda::Picture picture;
};

// Kills: any last bit of a weight.
void check_weights(const cuda::Batch& batch, const cuda::Axis& axis) {
  AxisWeights want;
  make_weights({axis.in_size, axis.resize_size, axis.offset, axis.out_size, axis.interpolation, axis.reversed}, want);
  const int32_t *first = batch.tables + axis.table, *count = first + axis.out_size, *weight = count + axis.out_size;
  for (int32_t o = 0; o < axis.out_size; ++o) {
    require(first[o] == want.first[o] && count[o] == want.count[o], "taps differ from the CPU's");
    for (int32_t t = 0; t < count[o]; ++t)
      require(weight[t * axis.out_size + o] == want.weight[static_cast<size_t>(o) * want.stride + t],
              "a weight differs from the CPU's");
  }
}

void open_piece(const cuda::Batch& batch, int64_t at, int64_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(batch.pixels + at, static_cast<size_t>(bytes));
}

// Kills: rows or bytes that one way leaves out, makes twice, or takes from elsewhere.
void check_ways(const cuda::Batch& batch, bool backwards) {
  for (const cuda::Tiles& tiles : {batch.via_first, batch.first}) {
    if (tiles.count == 0) continue;
    std::vector<std::vector<uint8_t>> want;
    auto each_between = [&](const auto& use) {
      for (int32_t i = 0; i < tiles.count; ++i) {
        const cuda::Resize& r = batch.resizes[tiles.tiles[i].item];
        if (tiles.tiles[i].part == 0) use(batch.pixels + r.between, size_t{3} * r.between_height * r.between_row);
      }
    };
    cuda::each_way([&]<typename Kernel>(int, cuda::Way<Kernel>) {
      each_between([](uint8_t* at, size_t bytes) { std::memset(at, 0x5A, bytes); });
      run_blocks(Kernel{batch, tiles}, tiles.count * Kernel::kParts, backwards);
      std::vector<std::vector<uint8_t>> found;
      each_between([&](uint8_t* at, size_t bytes) { found.emplace_back(at, at + bytes); });
      if (want.empty()) want = found;
      require(found == want, "two ways of the first pass differ");
    });
  }
}

void render(const cuda::Packing& packing, const uint32_t* normalize_table, bool backwards, bool ways) {
  std::vector<uint8_t> tables(packing.table_bytes());
  packing.write(tables.data());
  const size_t bytes = packing.workspace_bytes();
  auto* memory = static_cast<uint8_t*>(std::aligned_alloc(cuda::Packing::kAlign, bytes));
  std::unique_ptr<uint8_t, decltype(&std::free)> workspace(memory, &std::free);
  std::memset(workspace.get(), 0xA5, bytes);
  const cuda::Batch batch = packing.batch(tables.data(), workspace.get(), normalize_table);
  const auto pixel_bytes = static_cast<size_t>(reinterpret_cast<uint8_t*>(batch.tables) - batch.pixels);
  ASAN_POISON_MEMORY_REGION(batch.pixels, pixel_bytes);
  auto each_resize = [&](const auto& use) {
    for (const cuda::Tiles& tiles : {batch.first, batch.via_first})
      for (int32_t i = 0; i < tiles.count; ++i)
        if (tiles.tiles[i].part == 0) use(batch.resizes[tiles.tiles[i].item]);
  };
  each_resize([&](const cuda::Resize& r) {
    open_piece(batch, r.between, int64_t{3} * r.between_height * r.between_row);
    open_piece(batch, r.out, int64_t{3} * r.vertical.out_size * r.out_row);
  });
  cuda::launch_all(batch, [&](const auto& kernel, int32_t blocks) { run_blocks(kernel, blocks, backwards); });
  each_resize([&](const cuda::Resize& r) {
    check_weights(batch, r.horizontal);
    check_weights(batch, r.vertical);
  });
  if (ways) check_ways(batch, backwards);
  ASAN_UNPOISON_MEMORY_REGION(batch.pixels, pixel_bytes);
}

void run_case(int64_t pictures, int64_t count, const cuda::Form& form, size_t budget, bool backwards, bool ways) {
  const auto table = read_array<uint32_t>(3 * 256);
  std::vector<Planar> planar;
  std::vector<cuda::Picture> borrowed;
  for (int64_t i = 0; i < pictures; ++i) planar.emplace_back(static_cast<int>(i));
  for (const Planar& p : planar) borrowed.push_back(p.picture);
  const auto plans = read_array<ViewPlan>(static_cast<size_t>(count));
  const auto numbers = read_array<int32_t>(static_cast<size_t>(count));
  std::vector<std::vector<uint8_t>> outs;
  std::vector<cuda::Job> jobs;
  for (size_t i = 0; i < plans.size(); ++i) {
    outs.emplace_back(size_t{3} * plans[i].out_height * plans[i].out_width * form.element_bytes, uint8_t{0xA5});
    jobs.push_back({plans[i], numbers[i], outs.back().data()});
  }
  static cuda::Packing packing;  // kept, as the renderer keeps it
  int64_t parts = 0;
  for (std::span<const cuda::Job> left(jobs); !left.empty(); ++parts) {
    const size_t taken = packing.pack(borrowed, left, form, budget, kGuard);
    require(taken == 1 || packing.workspace_bytes() <= budget + 3 * cuda::Packing::kAlign + 8 * taken + kGuard,
            "a batch exceeds its budget");
    render(packing, table.data(), backwards, ways);
    left = left.subspan(taken);
  }
  for (const auto& out : outs) std::fwrite(out.data(), 1, out.size(), stdout);
  std::fwrite(&parts, sizeof parts, 1, stdout);
}

}  // namespace

int main() try {
  int64_t head[7];
  while (std::fread(head, sizeof head, 1, stdin) == 1)
    run_case(head[0], head[1], {static_cast<int32_t>(head[2]), head[3] != 0}, static_cast<size_t>(head[4]),
             head[5] != 0, head[6] != 0);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "emulate: %s\n", error.what());
  return 1;
}
