#include "isa.h"

#include <atomic>
#include <cstdlib>

#include "error.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace pass_loader {
namespace {

#if defined(__aarch64__)
constexpr const char* kNames[] = {"base", "neon"};
#else
constexpr const char* kNames[] = {"base", "avx2", "avx512", "avx512vbmi"};
#endif

Isa best_isa() {
#if defined(PASS_LOADER_EMULATE_AVX512)
  return Isa::avx512vbmi;
#elif defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) {
    bool bytes = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
                 __builtin_cpu_supports("avx512vnni");
    return bytes ? Isa::avx512vbmi : Isa::avx512;
  }
  if (__builtin_cpu_supports("x86-64-v3")) return Isa::avx2;
  return Isa::base;
#elif defined(__aarch64__)
  return Isa::neon;
#else
  return Isa::base;
#endif
}

Isa parse(const std::string& name) {
  if (name == "best") return best_isa();
  for (int level = 0; level <= static_cast<int>(best_isa()); ++level)
    if (name == kNames[level]) return static_cast<Isa>(level);
  fail(Fault::argument, "instruction-set level '%s' is not one of this machine's (best: %s)", name.c_str(),
       kNames[static_cast<int>(best_isa())]);
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa = [] {
    const char* wish = std::getenv("PASS_LOADER_ISA");
    return parse(wish != nullptr && *wish != '\0' ? wish : "best");
  }();
  return isa;
}

}  // namespace

Isa current_isa() { return chosen().load(std::memory_order_relaxed); }
void set_isa(const std::string& name) { chosen().store(parse(name)); }
std::string isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

#if defined(__aarch64__)
#if defined(__linux__)
// Linux's numbers of these features (arch/arm64/include/uapi/asm/hwcap.h).
bool has_byte_dots() {
  static const unsigned long features = getauxval(AT_HWCAP);
  return (features & 1ul << 20) != 0;
}
bool has_mixed_dots() {
  static const unsigned long features = getauxval(AT_HWCAP2);
  return (features & 1ul << 13) != 0;
}
bool has_crc32() {
  static const unsigned long features = getauxval(AT_HWCAP);
  return (features & 1ul << 7) != 0;
}
#else  // every Mac has these, and those after the first generation mixed dots
bool has_byte_dots() { return true; }
bool has_mixed_dots() { return false; }
bool has_crc32() { return true; }
#endif
#endif

std::vector<std::string> supported_isas() { return {kNames, kNames + static_cast<int>(best_isa()) + 1}; }

}  // namespace pass_loader
