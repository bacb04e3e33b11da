// Instruction-set levels. A kernel is written once, in plain C++ whose loops vectorise, as an always-inlined body;
// PL_LEVELS compiles it for each level and dispatches at run time. All levels give the same bytes.
#pragma once
#include <string>
#include <vector>

namespace pass_loader {

enum class Isa : int { base = 0, avx2 = 1, avx512 = 2 };

// The level in force: the best this machine has, or PASS_LOADER_ISA, or what set_isa chose last.
Isa current_isa();
void set_isa(const std::string& name);  // throws Error(argument) for a level this machine lacks; "best" undoes
std::string isa_name(Isa isa);
std::vector<std::string> supported_isas();

}  // namespace pass_loader

#define PL_INLINE inline __attribute__((always_inline))

// Defines `void name params`, which calls `name_body args` compiled for the level in force.
#if defined(__x86_64__)
#define PL_LEVELS(name, params, args)                                                             \
  static void name##_base params { name##_body args; }                                            \
  __attribute__((target("arch=x86-64-v3"))) static void name##_avx2 params { name##_body args; }  \
  __attribute__((target("arch=x86-64-v4"))) static void name##_avx512 params { name##_body args; } \
  void name params {                                                                              \
    static constexpr decltype(&name##_base) by_level[] = {name##_base, name##_avx2, name##_avx512};   \
    by_level[static_cast<int>(current_isa())] args;                                                  \
  }
#else
#define PL_LEVELS(name, params, args) \
  void name params { name##_body args; }
#endif
