// Functions that the CPU and a GPU both run: plain C++ to g++, __host__ __device__ to nvcc.
#pragma once

#if defined(__CUDACC__)
#define PL_BOTH __host__ __device__ __forceinline__
#else
#define PL_BOTH inline __attribute__((always_inline))
#endif

// Before a loop whose arrays shall be registers.
#if defined(__CUDA_ARCH__)
#define PL_UNROLL _Pragma("unroll")
#else
#define PL_UNROLL
#endif
