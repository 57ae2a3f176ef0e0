// Functions that the CPU kernels and the CUDA kernels share, so that tests on a CPU cover the arithmetic of both.
#pragma once

#ifdef __CUDACC__
#define FASTDD_HD static __host__ __device__ __forceinline__
#else
#define FASTDD_HD static inline __attribute__((always_inline))
#endif
