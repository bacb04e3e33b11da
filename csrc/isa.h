// Instruction-set levels. A kernel is written once, as an always-inlined body in plain C++ whose loops vectorise.
// PL_LEVELS compiles it for each level and dispatches at run time. All levels give the same bytes.
#pragma once
#include <string>
#include <vector>

namespace pass_loader {

#if defined(__aarch64__)
// neon is every aarch64. Where the processor has dot products of bytes and CRC-32C, it uses them.
enum class Isa : int { base = 0, neon = 1 };
#else
// avx2 is x86-64-v3, avx512 x86-64-v4; avx512vbmi adds byte permutes and byte dot products (Ice Lake, Zen 4 and later).
enum class Isa : int { base = 0, avx2 = 1, avx512 = 2, avx512vbmi = 3 };
#endif

// Returns the level in force: the best that this machine has, or PASS_LOADER_ISA, or the last choice of set_isa.
Isa current_isa();
void set_isa(const std::string& name);  // throws Error(argument) for a level that this machine lacks; "best" undoes it
std::string isa_name(Isa isa);
std::vector<std::string> supported_isas();

#if defined(__aarch64__)
bool has_byte_dots();   // FEAT_DotProd
bool has_mixed_dots();  // FEAT_I8MM: of unsigned and signed bytes
bool has_crc32();       // FEAT_CRC32
#endif

}  // namespace pass_loader

#define PL_INLINE inline __attribute__((always_inline))
#define PL_CONCAT_(a, b) a##b
#define PL_CONCAT(a, b) PL_CONCAT_(a, b)  // of macros' values

#if defined(__x86_64__)
#define PL_TARGET_AVX2 __attribute__((target("arch=x86-64-v3")))
#if defined(PASS_LOADER_EMULATE_AVX512)  // by `make avx512`: the intrinsics are functions of its own
#define PL_TARGET_AVX512 PL_TARGET_AVX2
#define PL_TARGET_VBMI PL_TARGET_AVX2
#else
#define PL_TARGET_AVX512 __attribute__((target("arch=x86-64-v4")))
#define PL_TARGET_VBMI __attribute__((target("arch=x86-64-v4,avx512vbmi,avx512vbmi2,avx512vnni")))
#endif

// Defines `void name params`, which calls `name_body args`, compiled for the level in force.
#define PL_LEVELS(name, params, args)                                       \
  static void name##_base params { name##_body args; }                      \
  PL_TARGET_AVX2 static void name##_avx2 params { name##_body args; }       \
  PL_TARGET_AVX512 static void name##_avx512 params { name##_body args; }   \
  PL_TARGET_VBMI static void name##_avx512vbmi params { name##_body args; } \
  PL_DISPATCH(name, params, args, name)

// Defines `void name params`, which calls stem_base, stem_avx2, ... written by hand. PL_DISPATCH_X86: of what has
// levels on x86-64 alone.
#define PL_DISPATCH(name, params, args, stem)                                                                          \
  void name params {                                                                                                   \
    static constexpr decltype(&stem##_base) by_level[] = {stem##_base, stem##_avx2, stem##_avx512, stem##_avx512vbmi}; \
    by_level[static_cast<int>(current_isa())] args;                                                                    \
  }
#define PL_DISPATCH_X86 PL_DISPATCH
#elif defined(__aarch64__)
// The compiler vectorises every body for aarch64: base and neon differ where neon is written by hand.
#define PL_LEVELS(name, params, args) \
  void name params { name##_body args; }
#define PL_DISPATCH(name, params, args, stem)                                        \
  void name params {                                                                 \
    static constexpr decltype(&stem##_base) by_level[] = {stem##_base, stem##_neon}; \
    by_level[static_cast<int>(current_isa())] args;                                  \
  }
#define PL_DISPATCH_X86(name, params, args, stem) \
  void name params { stem##_base args; }
#else
#define PL_LEVELS(name, params, args) \
  void name params { name##_body args; }
#define PL_DISPATCH(name, params, args, stem) \
  void name params { stem##_base args; }
#define PL_DISPATCH_X86 PL_DISPATCH
#endif
