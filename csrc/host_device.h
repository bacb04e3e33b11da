// Macros for functions that run on both CPU and GPU: plain C++ for g++, __host__ __device__ for nvcc.
#pragma once

#if defined(__CUDACC__)
#define PL_BOTH __host__ __device__ __forceinline__
#else
#define PL_BOTH inline __attribute__((always_inline))
#endif

// Stands before a loop whose arrays should be kept in registers.
#if defined(__CUDA_ARCH__)
#define PL_UNROLL _Pragma("unroll")
#else
#define PL_UNROLL
#endif

// Before a loop whose turns a GPU takes so many at a time.
#define PL_PRAGMA(words) _Pragma(#words)
#if defined(__CUDA_ARCH__)
#define PL_UNROLL_BY(count) PL_PRAGMA(unroll count)
#else
#define PL_UNROLL_BY(count)
#endif
