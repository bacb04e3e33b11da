// Shards, engines and batches for Python: threads render what Python submits and waits for.
#include <algorithm>
#include <cstring>

#include <pybind11/stl.h>

#include "bindings.h"
#include "buffers.h"
#include "decode_batch.h"
#include "engine.h"
#include "render_batch.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pass_loader {
namespace {

const char* fault_name(Fault fault) {
  return fault == Fault::argument ? "argument" : fault == Fault::record ? "record" : "io";
}

struct PackArrays {
  std::vector<std::string> paths;
  Array<int32_t> shard;
  Array<int64_t> offset, length;
  Array<uint32_t> crc;
  Array<uint8_t> proven;  // this and what follows: see ProofColumns
  Array<uint32_t> check;
  Array<int64_t> ends;
  Array<uint8_t> points;
};

// Keeps the columns of the indices alive as long as the reader.
struct PyShardReader {
  explicit PyShardReader(std::vector<PackArrays> packs) : arrays(std::move(packs)) {
    std::vector<PackFiles> files;
    for (const PackArrays& a : arrays)
      files.push_back({a.paths,
                       {column(a.shard), column(a.offset), column(a.length), column(a.crc)},
                       {column(a.proven), column(a.check), column(a.ends), column(a.points)}});
    reader = std::make_shared<ShardReader>(std::move(files));
  }

  py::bytes read(int64_t record) const {
    Scratch<uint8_t> buffer;
    std::span<const uint8_t> bytes;
    {
      WithoutGil without_gil;
      bytes = reader->read(record, buffer);
    }
    return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  std::vector<PackArrays> arrays;
  std::shared_ptr<ShardReader> reader;
};

constexpr const char* kElementNames[] = {"float32", "float16", "bfloat16", "uint8"};  // in the order of cpu::Element

cpu::Element element_of(const std::string& name) {
  for (int i = 0; i < 4; ++i)
    if (name == kElementNames[i]) return static_cast<cpu::Element>(i);
  fail(Fault::argument, "element %s: want float32, float16, bfloat16 or uint8", name.c_str());
}

// Returns one normalization for each source, or each view of each source. table, half: (sources, channels, 256); mean,
// std: (sources, channels).
std::vector<cpu::Normalization> normalizations_of(const Array<float>& table, const Array<uint16_t>& half,
                                                  const Array<float>& mean, const Array<float>& std,
                                                  cpu::Element element, bool channels_last) {
  const py::ssize_t sources = table.ndim() == 3 ? table.shape(0) : 0, channels = sources > 0 ? table.shape(1) : 0;
  auto fits = [&](const py::array& array) {
    return array.ndim() >= 2 && array.shape(0) == sources && array.shape(1) == channels &&
           (array.ndim() == 2 || (array.ndim() == 3 && array.shape(2) == 256));
  };
  PL_CHECK(sources >= 1 && sources <= 65536 && (channels == 1 || channels == 3) && fits(table) && fits(half) &&
               half.ndim() == 3 && fits(mean) && mean.ndim() == 2 && fits(std) && std.ndim() == 2,
           Fault::argument, "want normalisation tables (sources, 1 or 3, 256), mean and std (sources, 1 or 3)");
  std::vector<cpu::Normalization> found;
  for (py::ssize_t s = 0; s < sources; ++s) {
    cpu::NormalizeTable values{};
    cpu::HalfTable halves{};
    std::array<float, 3> means{}, stds{};
    std::memcpy(values.data(), table.data(s), channels * sizeof values[0]);
    std::memcpy(halves.data(), half.data(s), channels * sizeof halves[0]);
    std::copy_n(mean.data(s), channels, means.begin());
    std::copy_n(std.data(s), channels, stds.begin());
    const cpu::OutputForm form{element, channels_last, static_cast<int>(channels)};
    found.emplace_back(form, values, halves, means, stds);
  }
  return found;
}

struct PyEngine {
  PyEngine(py::object reader_, const Array<ViewSpec>& recipe, uint64_t seed, const Array<float>& table,
           const Array<uint16_t>& half, const Array<float>& mean, const Array<float>& std, int threads,
           const std::string& element, bool channels_last, const std::vector<int>& cpus, py::object heatmaps_,
           int64_t max_pixels, int max_scans, const py::object& steps, size_t read_ahead, size_t read_ahead_bytes,
           bool one_a_view)
      : reader(std::move(reader_)), heatmaps(std::move(heatmaps_)) {
    const auto second = heatmaps.is_none() ? nullptr : heatmaps.cast<PyShardReader&>().reader;
    Setup setup{reader.cast<PyShardReader&>().reader,
                recipe_of(recipe),
                steps_of(steps, recipe_of(recipe)),
                seed,
                normalizations_of(table, half, mean, std, element_of(element), channels_last),
                one_a_view,
                second,
                limits_of(max_pixels, max_scans),
                read_ahead,
                read_ahead_bytes};
    PL_CHECK(!one_a_view || setup.normalizations.size() % setup.views() == 0, Fault::argument,
             "%zu normalisations, want one for each of the %zu views of every source", setup.normalizations.size(),
             setup.views());
    PL_CHECK(setup.form().channels == 3 || !setup.steps.has_colour(), Fault::argument,
             "a further step fills with a colour, and views have one channel");
    PL_CHECK(second == nullptr || setup.steps.count() == 0, Fault::argument,
             "a recipe with further steps has no heatmaps: only crop, resize and flip move them too");
    engine = std::make_unique<Engine>(std::move(setup), threads, cpus);
  }
  py::dict stage_times() const {
    const StageTotals totals = engine->stage_times();
    py::dict seconds;
    for (size_t i = 0; i < kStages; ++i) seconds[kStageNames[i]] = 1e-9 * static_cast<double>(totals.ns[i]);
    seconds["samples"] = totals.samples;
    return seconds;
  }
  std::pair<double, double> thread_times() const {  // seconds busy and idle
    const ThreadTimes times = engine->thread_times();
    return {1e-9 * static_cast<double>(times.busy_ns), 1e-9 * static_cast<double>(times.idle_ns)};
  }
  py::dict read_ahead_counts() const {
    const ReadAheadCounts counts = engine->read_ahead().counts();
    return py::dict("from_ring"_a = counts.from_ring, "late"_a = counts.late, "cached"_a = counts.cached,
                    "left"_a = counts.left, "readers"_a = counts.readers, "latency_s"_a = counts.latency_s);
  }
  ~PyEngine() {
    WithoutGil without_gil;
    engine.reset();
  }
  py::object reader, heatmaps;  // keep the columns alive
  std::unique_ptr<Engine> engine;
};

// Records that an engine reads ahead. It keeps the engine alive.
struct PyAnnounced {
  py::object engine;
  Announced announced;
};

// others: companions, or None; or records of the heatmaps if there is a reader of those. -1 for none.
std::unique_ptr<PyAnnounced> announce(const py::object& self, const Array<int64_t>& records, const py::object& others) {
  const Engine& engine = *self.cast<PyEngine&>().engine;
  const Setup& setup = engine.setup();
  auto made = std::make_unique<PyAnnounced>(PyAnnounced{self, {}});
  made->announced.samples = engine.read_ahead().announce(*setup.reader, column(records));
  if (!others.is_none()) {
    const auto second = others.cast<Array<int64_t>>();
    const ShardReader& reader = setup.heatmaps == nullptr ? *setup.reader : *setup.heatmaps;
    made->announced.others = engine.read_ahead().announce(reader, column(second));
  }
  return made;
}

// Returns what was announced to this very engine; nothing for None.
Announced announced_to(const py::object& engine, const py::object& announced) {
  if (announced.is_none()) return {};
  const auto& given = announced.cast<PyAnnounced&>();
  PL_CHECK(given.engine.is(engine), Fault::argument, "the records were announced to another engine");
  return given.announced;
}

// A batch in work. It keeps the engine alive, and the arrays that are written to. If it is destroyed before it is done,
// it first stops all writing.
struct PyBatch {
  PyBatch(py::object engine_, std::shared_ptr<Batch> batch_, py::list written_, py::object plans_)
      : engine(std::move(engine_)), batch(std::move(batch_)), written(std::move(written_)), plans(std::move(plans_)) {
    pool().submit(batch);
  }
  PyBatch(const PyBatch&) = delete;
  ~PyBatch() { cancel(); }

  void cancel() {
    Pool& threads = pool();
    WithoutGil without_gil;
    threads.cancel(*batch);
  }

  Pool& pool() const { return engine.cast<PyEngine&>().engine->pool(); }

  // Returns [(slot, fault, message)] in the order of slots, or None if `seconds` pass first. Notices Ctrl-C every 50
  // ms.
  py::object wait(double seconds) {
    Pool& threads = pool();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::min(seconds, 1e9));
    bool done = false;
    while (!done) {
      {
        WithoutGil without_gil;
        done = threads.wait(*batch, std::chrono::milliseconds(50));
      }
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!done && std::chrono::steady_clock::now() > deadline) return py::none();
    }
    std::vector<Failure> failures = batch->failures();
    std::sort(failures.begin(), failures.end(), [](const Failure& a, const Failure& b) { return a.slot < b.slot; });
    py::list found;
    for (const Failure& f : failures) found.append(py::make_tuple(f.slot, fault_name(f.fault), f.message));
    return found;
  }

  py::object engine;
  std::shared_ptr<Batch> batch;
  py::list written;
  py::object plans;
};

// Returns the place where a view's samples are written. The array must have the engine's element type (bfloat16 as
// uint16), and each sample must be contiguous.
Output output_of(const py::handle& object, const Setup& setup, size_t view, size_t samples) {
  const ViewSpec& spec = setup.recipe[view];
  const cpu::OutputForm& form = setup.form();
  const py::ssize_t channels = form.channels;
  const int element = static_cast<int>(form.element);
  constexpr const char* kNumpyNames[] = {"float32", "float16", "uint16", "uint8"};
  const auto n = static_cast<py::ssize_t>(samples);
  const py::ssize_t height = spec.out_height, width = spec.out_width;
  const std::array<py::ssize_t, 4> shape = form.channels_last ? std::array<py::ssize_t, 4>{n, height, width, channels}
                                                              : std::array<py::ssize_t, 4>{n, channels, height, width};
  const auto item = static_cast<py::ssize_t>(cpu::bytes_of(form.element));
  const std::array<py::ssize_t, 3> strides = {shape[2] * shape[3] * item, shape[3] * item, item};
  const bool is_array = py::isinstance<py::array>(object);
  auto out = is_array ? py::reinterpret_borrow<py::array>(object) : py::array();
  PL_CHECK(is_array && out.dtype().equal(py::dtype(kNumpyNames[element])) && out.ndim() == 4 &&
               std::equal(shape.begin(), shape.end(), out.shape()) &&
               (n == 0 || std::equal(strides.begin(), strides.end(), out.strides() + 1)) &&
               (n <= 1 || out.strides(0) >= shape[1] * strides[0]),
           Fault::argument, "view %zu: want a %s array of shape (%zd, %zd, %zd, %zd) whose samples are contiguous",
           view, kNumpyNames[element], shape[0], shape[1], shape[2], shape[3]);
  return {static_cast<uint8_t*>(out.mutable_data()), static_cast<size_t>(out.strides(0))};
}

// heatmaps: one float32 array (N, 1, height, width) for each view, samples contiguous; or an empty list.
void add_heatmaps(RenderRequest& request, const Setup& setup, const py::object& records, const py::list& heatmaps) {
  if (heatmaps.empty()) return;
  const auto given = records.cast<Array<int64_t>>();
  const std::span<const int64_t> of = column(given);
  PL_CHECK(setup.heatmaps != nullptr && of.size() == request.samples.size() && heatmaps.size() == setup.views(),
           Fault::argument, "want an engine with heatmaps, one record of theirs a record and one output a view");
  for (size_t v = 0; v < heatmaps.size(); ++v) {
    const ViewSpec& spec = setup.recipe[v];
    auto out = heatmaps[v].cast<py::array_t<float>>();
    const py::ssize_t height = spec.out_height, width = spec.out_width, count = static_cast<py::ssize_t>(of.size());
    PL_CHECK(out.ptr() == py::handle(heatmaps[v]).ptr() && out.ndim() == 4 && out.shape(0) == count &&
                 out.shape(1) == 1 && out.shape(2) == height && out.shape(3) == width &&
                 (count == 0 || (out.strides(3) == 4 && out.strides(2) == 4 * width)) &&
                 (count <= 1 || out.strides(0) >= 4 * width * height),
             Fault::argument,
             "heatmap %zu: want a float32 array of shape (%zd, 1, %zd, %zd) whose samples are contiguous", v, count,
             height, width);
    request.heatmaps.push_back({reinterpret_cast<uint8_t*>(out.mutable_data()), static_cast<size_t>(out.strides(0))});
  }
  request.heatmap_records.assign(of.begin(), of.end());
}

void add_companions(RenderRequest& request, const Setup& setup, const py::object& records, const py::object& views) {
  const auto from = records.cast<Array<int64_t>>();
  const auto into = views.cast<Array<int32_t>>();
  PL_CHECK(column(from).size() == request.samples.size() && column(into).size() == request.samples.size(),
           Fault::argument, "want one companion and its view a record");
  for (size_t i = 0; i < request.samples.size(); ++i) {
    const int32_t view = into.data()[i];
    PL_CHECK(view >= -1 && view < static_cast<int64_t>(setup.views()), Fault::argument,
             "a companion's view is %d, want one of the recipe's %zu, or -1", view, setup.views());
    request.companions.push_back({from.data()[i], view});
  }
}

void add_sources(RenderRequest& request, const Setup& setup, const py::object& sources) {
  const auto given = sources.cast<Array<uint16_t>>();
  const std::span<const uint16_t> of = column(given);
  PL_CHECK(of.size() == request.samples.size(), Fault::argument, "want one source a record");
  request.sources.assign(of.begin(), of.end());
  for (uint16_t source : request.sources)
    PL_CHECK(source < setup.sources(), Fault::argument, "source %d: there are %zu", source, setup.sources());
}

std::unique_ptr<PyBatch> submit(const py::object& self, const Array<int64_t>& records, const Array<uint32_t>& draws,
                                const Array<uint32_t>& epochs, const py::list& views, const py::object& plans,
                                const py::object& sources, const py::object& heatmap_records, const py::list& heatmaps,
                                const py::object& companions, const py::object& companion_views,
                                const py::object& announced) {
  const Engine& engine = *self.cast<PyEngine&>().engine;
  const Setup& setup = engine.setup();
  RenderRequest request{};
  request.samples = keys_of(setup.seed, records, draws, epochs);
  const size_t n = request.samples.size();
  PL_CHECK(views.size() == setup.views(), Fault::argument, "want one output a view");
  for (size_t v = 0; v < views.size(); ++v) request.views.push_back(output_of(views[v], setup, v, n));
  if (!plans.is_none()) {
    auto rows = plans.cast<py::array>();
    const size_t steps = setup.steps.count();
    PL_CHECK(rows.ptr() == plans.ptr() && rows.ndim() == 2 && rows.shape(0) == static_cast<py::ssize_t>(n) &&
                 rows.shape(1) == static_cast<py::ssize_t>(views.size()) &&
                 rows.itemsize() == static_cast<py::ssize_t>(PlanRows::bytes(steps)) &&
                 (rows.flags() & py::array::c_style) != 0,
             Fault::argument, "want plans of shape (records, views), rows of plan_dtype(%zu)", steps);
    request.plans = {static_cast<uint8_t*>(rows.mutable_data()), steps};
  }
  request.announced = announced_to(self, announced);
  if (!sources.is_none()) add_sources(request, setup, sources);
  add_heatmaps(request, setup, heatmap_records, heatmaps);
  PL_CHECK(companions.is_none() || heatmaps.empty(), Fault::argument,
           "a companion has no heatmap: want one or the other");
  if (!companions.is_none()) add_companions(request, setup, companions, companion_views);
  py::list written;
  for (const py::list& part : {views, heatmaps})
    for (const py::handle& array : part) written.append(array);
  return std::make_unique<PyBatch>(self, std::make_shared<RenderBatch>(engine, std::move(request)), written, plans);
}

// Decodes pictures into `arena`, uint8, and plans their views. Rows of `pictures`, (N, 5) int64, say where each picture
// lies; `files`, (N,) int64 or None, says which of them lie there as files.
std::unique_ptr<PyBatch> decode(const py::object& self, const Array<int64_t>& records, const Array<uint32_t>& draws,
                                const Array<uint32_t>& epochs, Array<uint8_t> arena, Array<int64_t> pictures,
                                Array<ViewPlan> plans, const py::object& files, const py::object& announced) {
  const Engine& engine = *self.cast<PyEngine&>().engine;
  const Setup& setup = engine.setup();
  DecodeRequest request{};
  request.samples = keys_of(setup.seed, records, draws, epochs);
  const auto rows = static_cast<py::ssize_t>(request.samples.size());
  const auto views = static_cast<py::ssize_t>(setup.views());
  PL_CHECK(arena.ndim() == 1 && pictures.ndim() == 2 && pictures.shape(0) == rows && pictures.shape(1) == 5 &&
               plans.ndim() == 2 && plans.shape(0) == rows && plans.shape(1) == views,
           Fault::argument, "want an arena of bytes, pictures of shape (records, 5), plans of shape (records, views)");
  PL_CHECK(setup.form().channels == 3, Fault::argument, "want a recipe of three channels");
  PL_CHECK(setup.steps.count() == 0, Fault::argument, "want a recipe without further steps");
  request.arena = arena.mutable_data(), request.arena_bytes = static_cast<size_t>(arena.size());
  request.pictures = reinterpret_cast<ArenaPicture*>(pictures.mutable_data());
  request.plans = plans.mutable_data();
  request.announced = announced_to(self, announced);
  py::list written;
  written.append(arena);
  written.append(pictures);
  if (!files.is_none()) {
    auto lengths = files.cast<Array<int64_t>>();
    PL_CHECK(lengths.ptr() == files.ptr() && lengths.ndim() == 1 && lengths.size() == rows, Fault::argument,
             "want files of shape (records,), int64");
    request.files = lengths.mutable_data();
    written.append(lengths);
  }
  return std::make_unique<PyBatch>(self, std::make_shared<DecodeBatch>(engine, std::move(request)), written, plans);
}

// Returns memory as uint8. It goes back to the pool when the last array or tensor that borrows it dies.
py::array_t<uint8_t> take_array(const std::shared_ptr<BufferPool>& pool, size_t bytes) {
  struct Loan {
    std::shared_ptr<BufferPool> pool;
    void* memory;
    size_t bytes;
  };
  auto loan = std::make_unique<Loan>(Loan{pool, nullptr, std::max<size_t>(bytes, 1)});
  loan->memory = pool->take(loan->bytes);
  auto* memory = static_cast<uint8_t*>(loan->memory);
  py::capsule owner(loan.release(), [](void* pointer) {
    std::unique_ptr<Loan> back(static_cast<Loan*>(pointer));
    back->pool->give_back(back->memory, back->bytes);
  });
  return py::array_t<uint8_t>(static_cast<py::ssize_t>(bytes), memory, owner);
}

}  // namespace

void bind_loading(py::module_& m) {
  py::class_<PyShardReader>(m, "ShardReader")
      .def(py::init([](std::vector<std::string> paths, Array<int32_t> shard, Array<int64_t> offset,
                       Array<int64_t> length, Array<uint32_t> crc, Array<uint8_t> proven, Array<uint32_t> check,
                       Array<int64_t> ends, Array<uint8_t> points) {
             return PyShardReader(
                 std::vector<PackArrays>{{std::move(paths), shard, offset, length, crc, proven, check, ends, points}});
           }),
           "paths"_a, "shard"_a.noconvert(), "offset"_a.noconvert(), "length"_a.noconvert(), "crc32c"_a.noconvert(),
           "proven"_a.noconvert() = Array<uint8_t>(0), "check"_a.noconvert() = Array<uint32_t>(0),
           "ends"_a.noconvert() = Array<int64_t>(0), "points"_a.noconvert() = Array<uint8_t>(0))
      .def_static(
          "of_packs",
          [](const py::list& readers) {
            std::vector<PackArrays> packs;
            for (const py::handle& reader : readers) {
              const auto& own = reader.cast<PyShardReader&>().arrays;
              packs.insert(packs.end(), own.begin(), own.end());
            }
            return PyShardReader(std::move(packs));
          },
          "readers"_a)
      .def("read", &PyShardReader::read, "record"_a);
  py::class_<PyBatch>(m, "PendingBatch")
      .def("wait", &PyBatch::wait, "seconds"_a = 1e9)
      .def("cancel", &PyBatch::cancel)
      .def_property_readonly("done", [](const PyBatch& self) { return self.batch->is_done(); })
      .def_readonly("plans", &PyBatch::plans);
  py::class_<PyAnnounced>(m, "Announced");
  py::class_<PyEngine>(m, "Engine")
      .def(py::init<py::object, const Array<ViewSpec>&, uint64_t, const Array<float>&, const Array<uint16_t>&,
                    const Array<float>&, const Array<float>&, int, const std::string&, bool, const std::vector<int>&,
                    py::object, int64_t, int, const py::object&, size_t, size_t, bool>(),
           "reader"_a, "recipe"_a, "seed"_a, "table"_a, "half"_a, "mean"_a, "std"_a, "threads"_a,
           "element"_a = "float32", "channels_last"_a = false, "cpus"_a = std::vector<int>{}, "heatmaps"_a = py::none(),
           "max_pixels"_a = kMaxPixels, "max_scans"_a = 0, "steps"_a = py::none(), "read_ahead"_a = 0,
           "read_ahead_bytes"_a = 0, "one_a_view"_a = false)
      .def("announce", &announce, "records"_a.noconvert(), "others"_a = py::none())
      .def("read_ahead_counts", &PyEngine::read_ahead_counts)
      .def("submit", &submit, "records"_a, "draws"_a, "epochs"_a, "views"_a, "plans"_a = py::none(),
           "sources"_a = py::none(), "heatmap_records"_a = py::none(), "heatmaps"_a = py::list(),
           "companions"_a = py::none(), "companion_views"_a = py::none(), "announced"_a = py::none())
      .def("decode", &decode, "records"_a.noconvert(), "draws"_a.noconvert(), "epochs"_a.noconvert(),
           "arena"_a.noconvert(), "pictures"_a.noconvert(), "plans"_a.noconvert(), "files"_a = py::none(),
           "announced"_a = py::none())
      .def("stage_times", &PyEngine::stage_times)
      .def("thread_times", &PyEngine::thread_times);
  py::class_<BufferPool, std::shared_ptr<BufferPool>>(m, "BufferPool")
      .def(py::init<size_t>(), "keep"_a)
      .def("take", &take_array, "bytes"_a);
}

}  // namespace pass_loader
