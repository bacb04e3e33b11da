# make demo   pack real photographs, load an epoch, compare with the official pipeline
# make check  the tests that matter while editing, in less than a minute
# make test   build and run all tests
# make long   storms, long fuzzing and matrices: hours
# make lint   ruff, mypy and clang-format, in the versions of the extra "lint"
# make docs   the site, in build/docs; a browser follows every link
# make bench DATA=dir-or-tar   benchmarks; without DATA, generated pictures. BASE=COMMIT: ours beside that commit alone
# make proof  DINO, SwAV, MoCo-v2 and MAE trained through the official pipeline and through this loader: losses, weights and
#             batches bit for bit; PROOF_STEPS= (50), PROOF_NETWORKS=full (small), DATA=dir-or-tar as above;
#             EMULATED=1: batches at AVX-512 too, by the build of make avx512, where the machine lacks it. docs/proof.md
#             has a table for the run as it is and for EMULATED=1, which they write; with PAGE=docs/proof.md, DATA= and
#             PROOF_NETWORKS=full write theirs
# make draws  our random numbers beside those of torchvision's code: 10^6 of each kind (DRAWS=), an hour
# make apart  whether a small network can tell other loaders' views from the official ones; ten minutes; DATA=dir-or-tar
# make fuzz   a minute of libFuzzer on each decoder (FUZZ_SECONDS= for more), 30,000 damaged sources of each kind, hostile
#             packs: 10^6 of each file for opening, 10^5 for all that reads a pack; hours
# make ray    packing on a Ray cluster on this machine, 200 workers and nodes killed at random; 20 are in make test
# make company   the examples with other libraries that `make test` has not: DALI, lightly, solo-learn, Accelerate ...;
#             SOLO_LEARN=DIR, TIMM=DIR: clones of their repositories, where GitHub cannot be reached
# make azure  packs in Azure's store, by Azurite, which npm brings
# make cuda   the tests that need a GPU, then all kernels under compute-sanitizer
# make kit    build/gpu-kit: what a GPU machine with Python 3.12 and no registry needs for benchmarks/on_gpu.sh; PARTS=core:
#             without other libraries
# make aarch64   the same bytes on aarch64, by a cross compiler and QEMU
# make avx512   the same bytes from the kernels for AVX-512 on any x86-64, their intrinsics emulated by SIMDe
# make wheels   a wheel for each Python and processor, in dist/, with its tests; needs nvcc. PYTHONS=cp311
#             PROCESSORS=x86_64: this one; QUICK=1: without the CUDA extension, nvcc is not needed then, and fewer tests
# make lowest   the package with the lowest versions that pyproject.toml allows, then with the newest
# Everything happens in .venv, made when missing. TORCH= chooses another torch, TEST_PROCESSES= how many tests run at once.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCHVISION ?= torchvision==0.28.0
PYTHON_LOWEST ?= $(or $(lastword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python)),python3.10)
PILLOW12 ?= pillow==12.3.0
PYTHONS ?= cp310 cp311 cp312 cp313 cp313t cp314 cp314t
PROCESSORS ?= x86_64 aarch64
QUICK ?=
TEST_PROCESSES ?= 2
# Kernels for the GPUs that are here; without one they are for the tests of the compiler and of the host code alone.
GPUS = $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u)
DATA ?=
PROOF_STEPS ?= 50
PROOF_NETWORKS ?= small
EMULATED ?=
PAGE ?=
DRAWS ?= 1000000
FUZZ_SECONDS ?= 60
PARTS ?= core dali cvcuda
bin := $(VENV)/bin
sources := $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh) setup.py pyproject.toml
packages := g++ pkg-config libjpeg62-turbo-dev libpng-dev libzstd-dev python3-venv python3-dev
ffcv_packages := libopencv-dev libturbojpeg0-dev pkg-config
spdl_packages := libavdevice59 libavfilter8
remote_peers := mosaicml-streaming litdata catalogue lightning-utilities tifffile Brotli xxhash zstd python-snappy cramjam \
  transformers tokenizers safetensors huggingface_hub regex tqdm
# Without what they need, as far as the extra "test" or the peers have it. hydra wants an older antlr than moto, and
# lightly-train another albumentations than the benchmarks.
company := lightly lightly-utils aenum accelerate transformers tokenizers safetensors torchdata lightning hydra-core omegaconf \
  antlr4-python3-runtime==4.9.3 lightly-train albumentations==2.0.8 albucore==0.0.24 simsimd pycocotools nvidia-ml-py tensorboardX \
  stable-pretraining loguru rich submitit prettytable wcwidth tabulate typer kornia kornia-rs requests-cache cattrs url-normalize \
  platformdirs einops
# solo-learn's newest release on PyPI is of 2021. Another clone will do.
SOLO_LEARN ?= https://github.com/vturrisi/solo-learn
# train.py is not in timm's package.
TIMM ?= https://github.com/huggingface/pytorch-image-models

.PHONY: setup demo check test long lint docs bench proof draws apart sanitize fuzz ray company azure cuda kit aarch64 avx512 \
  build/avx512 wheels lowest print-lowest clean
setup: $(VENV)/.built

demo: setup
	$(bin)/python -m benchmarks.demo

# pyproject.toml explains the markers.
check: setup
	$(bin)/python -m pytest -q -m "not slow and not long"

# More random trials of each kind (tests/helpers/trials.py), then what has targets of its own.
long: setup $(VENV)/pillow12/.installed
	PASS_LOADER_LONG=1 $(bin)/python -m pytest -q -m "long or not long"
	$(MAKE) company
	PYTHONPATH=$(VENV)/pillow12 $(bin)/python -m pytest -q -m oracle
	$(MAKE) sanitize aarch64 avx512
	$(MAKE) build/wheels/free_threaded/.made
	PASS_LOADER_LONG=1 $(MAKE) wheels
	$(MAKE) fuzz FUZZ_SECONDS=1800

# The tests of a file run one after another in one process: they share packs and servers. The files come in the order of
# tests/conftest.py. A process that dies ends the run: where another takes its place, pytest-xdist 3.8 waits for ever.
in_processes := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
test: setup $(VENV)/pillow12/.installed
	$(bin)/python -m pytest $(in_processes)
	@echo "The same pixels from Pillow 12:"
	PYTHONPATH=$(VENV)/pillow12 $(bin)/python -m pytest -q -m "oracle and not long" $(in_processes)

native = $(sort $(shell find csrc tests benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh'))
lint: setup
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/clang-format --dry-run -Werror $(native)

docs: setup
	@$(call need,chromium,chromium)
	rm -rf build/docs build/doctrees
	$(bin)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs
	$(bin)/python -m pytest -q -m "long or not long" tests/docs/test_site.py

# Peers lie beside the environment, not in it: some bring their own numpy, Pillow-SIMD is another PIL.
bench := -m pytest benchmarks/cpu -q -o python_files='bench_*.py' -o python_functions='bench_*' $(foreach d,$(DATA),--data $(d))
bench: setup $(if $(BASE),,$(VENV)/.bench $(VENV)/pillow12/.installed)
ifdef BASE
	$(bin)/python -m benchmarks.cpu.against $(BASE) $(foreach d,$(DATA),--data $(d))
else
	PYTHONPATH=$(VENV)/peers $(bin)/python $(bench) --benchmark-json=benchmarks/latest.json
	PYTHONPATH=$(VENV)/pillow-simd $(bin)/python $(bench) -k bench_official --benchmark-json=benchmarks/latest-simd.json
	PYTHONPATH=$(VENV)/pillow12:$(VENV)/peers $(bin)/python $(bench) -k bench_timm --benchmark-json=benchmarks/latest-timm.json
	PYTHONPATH=$(VENV)/peers $(bin)/python -m benchmarks.cpu.table --plot benchmarks/recipes.png \
	  benchmarks/latest.json benchmarks/latest-simd.json benchmarks/latest-timm.json
	$(bin)/python -m benchmarks.cpu.against c15b22a $(foreach d,$(DATA),--data $(d))
	$(bin)/python -m benchmarks.cpu.busy_threads
	$(bin)/python -m benchmarks.cpu.busy_threads --pinned
	$(bin)/python -m benchmarks.cpu.read_ahead
	PYTHONPATH=$(VENV)/peers $(bin)/python -m benchmarks.orders.shuffling --plot benchmarks/shuffling.png
	$(bin)/python -m benchmarks.orders.speed
	$(bin)/python -m benchmarks.remote.loading
	$(bin)/python -m benchmarks.remote.full_cache
	PYTHONPATH=$(VENV)/peers $(bin)/python -m benchmarks.remote.peers
	-$(bin)/python -m benchmarks.packing.tasks
	-$(bin)/python -m benchmarks.packing.bench_packing --base
endif

# The page's own tables: 50 steps of small networks on generated pictures.
proof_differs = $(DATA)$(filter-out 50,$(PROOF_STEPS))$(filter-out small,$(PROOF_NETWORKS))
proof: setup $(if $(EMULATED),build/avx512)
	$(bin)/python -m benchmarks.proof.prove --steps $(PROOF_STEPS) --networks $(PROOF_NETWORKS) \
	  $(if $(DATA),--data $(DATA)) $(if $(EMULATED),--emulated build/avx512) \
	  $(addprefix --page ,$(or $(PAGE),$(if $(proof_differs),,docs/proof.md)))

draws: setup
	$(bin)/python -m benchmarks.proof.draws --count $(DRAWS) --page docs/proof.md
	if command -v dieharder >/dev/null; then $(bin)/python -m benchmarks.proof.dieharder --page docs/proof.md; fi

apart: setup $(VENV)/.bench
	PYTHONPATH=$(VENV)/peers $(bin)/python -m benchmarks.proof.apart $(if $(DATA),--data $(DATA),--page docs/proof.md)

# $(call tree,FOLDER): what other builds and their tests need, in a tree of its own.
tree = rm -rf $(1) && mkdir -p $(1) && \
  cp -r csrc pass_loader benchmarks tests wheels docs setup.py pyproject.toml README.md LICENSE $(1) && rm -f $(1)/pass_loader/*.so

# Hostile pictures, shards and plans under AddressSanitizer and UndefinedBehaviorSanitizer. Fresh memory holds zeros: the
# decoder stops at other bytes before it reads too far.
sanitize: setup
	$(call tree,build/sanitize)
	cd build/sanitize && PASS_LOADER_SANITIZE=1 ../../$(bin)/python setup.py -q build_ext --inplace
	cd build/sanitize && ASAN_OPTIONS=detect_leaks=0:malloc_fill_byte=0 PYTHONPATH=. \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ../../$(bin)/python -m pytest -q -m "(hostile or oracle) and not long"

# $(call need,COMMAND,PACKAGES), $(call need_header,HEADER,PACKAGES): installed where we may, named where we may not.
need = command -v $(1) >/dev/null || $(call install,$(2))
need_header = g++ -E -include $(1) -x c++ /dev/null >/dev/null 2>&1 || $(call install,$(2))
install = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q && \
  DEBIAN_FRONTEND=noninteractive apt-get install -qy $(1); } || { echo "Please install: $(1)"; exit 1; }

# Hostile bytes under the sanitizers: the baseline decoder against libjpeg, records of the codec dct, PNGs. The corpora in
# build/fuzz grow from run to run; a finding is left there. Then sources and packs, as bytes and by what they mean.
fuzz: setup build/fuzz/decode build/fuzz/dct build/fuzz/png
	$(bin)/python -m tests.native.fuzz.seeds build/fuzz/seeds
	$(call run_fuzzer,decode,8192)
	$(call run_fuzzer,dct,1024)
	$(call run_fuzzer,png,1024)
	$(bin)/python -m tests.helpers.bad_sources all 0 30000
	$(bin)/python -m tests.helpers.bad_packs open all 0 1000000
	$(bin)/python -m tests.helpers.bad_packs whole all 0 20000

# $(call run_fuzzer,TARGET,MOST BYTES)
run_fuzzer = mkdir -p build/fuzz/corpus/$(1); set -o pipefail; ASAN_OPTIONS=malloc_fill_byte=0 build/fuzz/$(1) \
  -max_total_time=$(FUZZ_SECONDS) -max_len=$(2) -verbosity=0 -print_final_stats=1 -artifact_prefix=build/fuzz/ \
  build/fuzz/corpus/$(1) \
  build/fuzz/seeds/$(1) 2>&1 | grep -v '\# Uses:'

# isa.cpp by GCC: clang before 18 cannot ask a processor for x86-64-v4.
build/fuzz/decode: tests/native/fuzz/decode.cpp tests/native/fuzz/mutate.cpp tests/native/fuzz/window.h $(sources)
build/fuzz/dct: tests/native/fuzz/dct.cpp tests/native/fuzz/mutate_dct.cpp tests/native/fuzz/window.h $(sources)
build/fuzz/png: tests/native/fuzz/png.cpp $(sources)
build/fuzz/decode build/fuzz/dct build/fuzz/png:
	@$(call need,clang++,clang)
	mkdir -p build/fuzz
	g++ -std=c++20 -O2 -Icsrc -c csrc/isa.cpp -o $@.isa.o
	clang++ -std=c++20 -O2 -g -ffp-contract=off -DPASS_LOADER_ASAN -Icsrc -Itests/native/cuda -Wall -Wextra -Werror \
	  -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fno-sanitize-coverage=trace-cmp \
	  $$(pkg-config --cflags libjpeg libpng libzstd) $(filter tests/%.cpp,$^) csrc/jpeg/*.cpp csrc/png/*.cpp csrc/crc32c.cpp csrc/entry_points.cpp $@.isa.o \
	  $$(pkg-config --libs libjpeg libpng zlib libzstd) -o $@

# 10,000 batches and all colours would take hours under the tools.
cuda: setup
	$(bin)/python -m pytest -m cuda
	for tool in memcheck racecheck synccheck; do compute-sanitizer --tool $$tool --error-exitcode 1 --target-processes all \
	  $(bin)/python -m pytest -q -m cuda tests/native/test_cuda_kernels.py || exit 1; done

kit: build/wheels/venv/.installed
	@$(call need,nasm,nasm)
	@$(call need,g++,g++)
	rm -rf build/gpu-kit && mkdir -p build/gpu-kit
	build/wheels/venv/bin/python -m wheels.build --out build/gpu-kit/wheel --pythons cp312
	build/wheels/venv/bin/python -m benchmarks.gpu.kit make build/gpu-kit --wheel build/gpu-kit/wheel/*.whl --parts $(PARTS)

# Packing on a Ray cluster of this machine, workers and nodes killed at random. Its tests are skipped, and say so, where
# there is no Ray.
ray: setup
	PASS_LOADER_LONG=1 $(bin)/python -m pytest -q -m "long or not long" tests/pack/test_ray.py \
	  tests/remote/test_sources.py::test_one_command_on_ray

# Each test is skipped where its library is missing. DALI and FFCV are among the peers of the benchmarks. A clone of timm
# comes before the released one, by itself: its train.py wants what lies beside it.
company: setup $(VENV)/.bench $(VENV)/company/.installed
	PYTHONPATH=$(CURDIR)/$(VENV)/company:$(CURDIR)/$(VENV)/peers:$(CURDIR)/$(VENV)/solo-learn $(bin)/python -m pytest -q \
	  -m "long or not long" $(addprefix tests/docs/test_examples_,company.py pretraining.py ranks.py) tests/pack/test_beton.py
	[ ! -d $(VENV)/timm ] || PYTHONPATH=$(CURDIR)/$(VENV)/timm:$(CURDIR)/$(VENV)/peers $(bin)/python -m pytest -q -k timm \
	  $(addprefix tests/docs/test_examples_,company.py pretraining.py)

# Packs in Azure's store. The tests are skipped where azurite-blob is on no PATH.
azure: setup $(VENV)/azurite/.installed
	PATH="$(CURDIR)/$(VENV)/azurite/node_modules/.bin:$$PATH" \
	  $(bin)/python -m pytest -q tests/remote/test_azure_and_google.py

aarch64: setup build/aarch64/sysroot
	@$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu)
	@$(call need,qemu-aarch64-static,qemu-user-static)
	$(bin)/python -m pytest tests/native/test_aarch64.py

# The levels avx512 and avx512vbmi as any x86-64 can run them: compiled for AVX2, with emulated intrinsics. What compares
# bytes is run, at all levels.
avx512: build/avx512
	cd build/avx512 && PASS_LOADER_ISA=avx512vbmi PYTHONPATH=. ../../$(bin)/python -m pytest $(in_processes) $(emulated_tests)

emulated_tests := $(patsubst %,tests/native/test_%.py,baseline before_crop dct_codec dct_hostile decode deep geometry gray \
  kernel_blur normalize parts png progressive render resample steps windows) tests/loading/test_erasing.py tests/recipes/test_policies.py
build/avx512: setup
	@$(call need_header,simde/x86/avx512.h,libsimde-dev)
	$(call tree,$@)
	cd $@ && CPPFLAGS="-DPASS_LOADER_EMULATE_AVX512 -march=x86-64-v3 -Wno-psabi -Itests/native/avx512" PASS_LOADER_CUDA=0 \
	  ../../$(bin)/python setup.py -q build_ext --inplace

# Debian's libjpeg and zstd for arm64, unpacked here with apt's lists for it: nothing changes on the machine.
arm64 := -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists=$(CURDIR)/build/aarch64/lists \
  -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
build/aarch64/sysroot:
	mkdir -p build/aarch64/lists/partial
	apt-get $(arm64) update
	cd build/aarch64 && apt-get $(arm64) download libjpeg62-turbo-dev libzstd-dev
	for deb in build/aarch64/*_arm64.deb; do dpkg -x $$deb $@; done

# The tests install each wheel whose Python is here. They need $(VENV) for batches alone.
tester = $(if $(wildcard $(VENV)/.built),$(bin)/python,build/wheels/venv/bin/python)
wheels: build/wheels/venv/.installed
	@$(call need,nasm,nasm)
	@$(call need,g++,g++)
	@$(if $(filter aarch64,$(PROCESSORS)),$(call need,aarch64-linux-gnu-g++,g++-aarch64-linux-gnu))
	@$(if $(filter aarch64,$(PROCESSORS)),$(call need,qemu-aarch64-static,qemu-user-static))
	rm -f dist/*.whl
	build/wheels/venv/bin/python -m wheels.build --out dist --processors $(PROCESSORS) --pythons $(PYTHONS) \
	  $(if $(QUICK),--no-cuda)
	$(if $(QUICK),,build/wheels/venv/bin/python -m wheels.macos)
	PASS_LOADER_WHEELS=dist PASS_LOADER_WHEELS_QUICK=$(QUICK) PASS_LOADER_WHEELS_NOTES=build/wheels/notes.jsonl \
	  $(tester) -m pytest -q --noconftest --durations=12 --durations-min=5 tests/test_wheels.py
	@echo "What was run (docs/install.md):"
	@$(tester) -m wheels.runs build/wheels/notes.jsonl dist

build/wheels/venv/.installed: pyproject.toml
	$(PYTHON) -m venv build/wheels/venv
	build/wheels/venv/bin/pip install -q "setuptools>=77" "pybind11>=3" wheel pytest \
	  $$(sed -n 's/^wheels = \[\(.*\)\].*/\1/p' pyproject.toml | tr -d '",')
	touch $@

# Pythons without a GIL, which `make wheels` tests where they are: four minutes of two cores.
build/wheels/free_threaded/.made: build/wheels/venv/.installed
	build/wheels/venv/bin/python -m wheels.free_threaded build/wheels/free_threaded
	touch $@

# Without torch and pandas; then the loader with the lowest torch, some GB to download. The newest go with $(VENV)'s _C.
# The stand-in accelerator of test_pinning.py is written for a newer torch's interface.
lowest_versions := $(shell sed -n 's/^\(dependencies\|torch\) = \[\([^]]*\)\].*/\2/p' pyproject.toml | tr -d '",' | sed 's/>=/==/g')
plain = rm -rf build/lowest/run && mkdir build/lowest/run && PYTHONPATH=. $(1) tests/helpers/plain_install.py build/lowest/run
lowest: setup
	@$(PYTHON_LOWEST) --version >/dev/null 2>&1 || { echo "No Python 3.10 here: PYTHON_LOWEST= names one"; exit 1; }
	$(PYTHON_LOWEST) -m venv build/lowest/lowest && $(PYTHON) -m venv build/lowest/newest
	build/lowest/lowest/bin/pip install -q "setuptools>=77" "pybind11>=2.13" wheel $(filter-out torch==%,$(lowest_versions))
	PASS_LOADER_CUDA=0 build/lowest/lowest/bin/pip install -q --no-deps --no-build-isolation -e .
	$(call plain,build/lowest/lowest/bin/python)
	build/lowest/newest/bin/pip install -q --upgrade numpy pyarrow pillow tqdm
	$(call plain,build/lowest/newest/bin/python)
	build/lowest/lowest/bin/pip install -q pytest hypothesis scikit-learn $(lowest_versions)
	build/lowest/lowest/bin/python -m pytest -q \
	  $(addprefix tests/loading/test_,$(addsuffix .py,loader resume structures torch_epochs))

print-lowest:
	@echo "$(lowest_versions)"

clean:
	rm -rf build demo $(VENV) pass_loader/*.so *.egg-info

# A compiler, libjpeg-turbo, libpng, zstd and Python's headers: installed where we may, named where we may not.
$(VENV)/.created:
	@missing=""; \
	command -v g++ >/dev/null || missing=1; \
	pkg-config --exists libjpeg libpng zlib libzstd 2>/dev/null || missing=1; \
	$(PYTHON) -c "import venv, ensurepip, os, sysconfig; assert os.path.exists(sysconfig.get_paths()['include'] + '/Python.h')" 2>/dev/null || missing=1; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy $(packages); \
	  else echo "Please install: $(packages)"; exit 1; fi; \
	fi
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(bin)/pip install -q "setuptools>=77" "pybind11>=2.13" wheel
	$(bin)/pip install -q "$(TORCH)" numpy
	$(bin)/pip install -q --no-deps "$(TORCHVISION)" "lightly>=1.5"  # of which its transforms alone are used
	touch $@

$(VENV)/.built: $(VENV)/.installed $(sources)
	PASS_LOADER_CUDA_ARCHITECTURES="$${PASS_LOADER_CUDA_ARCHITECTURES:-$(or $(GPUS),90)}" PASS_LOADER_WERROR=1 \
	  $(bin)/pip install -q --no-build-isolation -e ".[test,lint,docs]"
	touch $@

# Pillow 12 beside the installed 13, for the tests that say so.
$(VENV)/pillow12/.installed: $(VENV)/.installed
	$(bin)/pip install -q --no-deps --upgrade --target $(VENV)/pillow12 "$(PILLOW12)"
	touch $@

$(VENV)/azurite/.installed: $(VENV)/.installed
	@$(call need,npm,npm)
	npm install --silent --no-fund --no-audit --prefix $(VENV)/azurite azurite@3
	touch $@

$(VENV)/company/.installed: $(VENV)/.installed
	$(bin)/pip install -q --no-deps --upgrade --target $(VENV)/company $(company)
	rm -rf $(VENV)/solo-learn $(VENV)/timm
	git clone -q --depth 1 $(SOLO_LEARN) $(VENV)/solo-learn || echo "The tests leave solo-learn out: it cannot be cloned"
	git clone -q --depth 1 $(TIMM) $(VENV)/timm || echo "The tests leave timm's train.py out: it cannot be cloned"
	touch $@

$(VENV)/.bench: $(VENV)/.built
	$(bin)/pip install -q "pytest-benchmark>=4"
	$(bin)/pip install -q --upgrade --target $(VENV)/peers nvidia-dali-cuda130 albumentationsx opencv-python-headless \
	  simplejpeg matplotlib numba terminaltables fastargs psutil turboloader spdl
	$(bin)/pip install -q --no-deps --upgrade --target $(VENV)/peers $(remote_peers) timm
	CC="cc -mavx2" $(bin)/pip install -q --no-deps --upgrade --target $(VENV)/pillow-simd pillow-simd
	@pkg-config --exists opencv4 libturbojpeg || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(ffcv_packages) \
	    $(spdl_packages); \
	fi
	@if pkg-config --exists opencv4 libturbojpeg; then \
	  $(bin)/pip install -q --no-deps --upgrade --target $(VENV)/peers ffcv pytorch-pfn-extras assertpy \
	  || echo "The benchmarks leave FFCV out: it does not build here"; \
	else echo "The benchmarks leave FFCV out; it needs: $(ffcv_packages)"; fi
	touch $@
