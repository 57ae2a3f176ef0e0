// Numbers of every type that images have, as the CUDA kernels compute with them. Only for .cu files.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace fastdd {
namespace {

__device__ __forceinline__ float value_of(float v) { return v; }
__device__ __forceinline__ double value_of(double v) { return v; }
__device__ __forceinline__ float value_of(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float value_of(uint8_t v) { return static_cast<float>(v); }

__device__ __forceinline__ void put(float* p, float v) { *p = v; }
__device__ __forceinline__ void put(double* p, double v) { *p = v; }
__device__ __forceinline__ void put(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

template <class T>
__device__ __forceinline__ T not_a_number() {
  return static_cast<T>(__int_as_float(0x7fc00000));
}

}  // namespace
}  // namespace fastdd
