// CUDA kernels of formation and its adjoint: compiled, and not yet run on a GPU.
//
// A thread a pixel, and no atomics: of the adjoint, a pixel of a stored image gathers from the decoded images that hold its
// part, in their order.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "formation_launch.h"
#include "formation_math.h"

namespace fastdd {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float value_of(float v) { return v; }
__device__ __forceinline__ double value_of(double v) { return v; }
__device__ __forceinline__ float value_of(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ __forceinline__ void put(float* p, float v) { *p = v; }
__device__ __forceinline__ void put(double* p, double v) { *p = v; }
__device__ __forceinline__ void put(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

// Pixel (x, y) of channel c of a decoded image.
template <class T, class In>
__device__ T decoded_at(const Formation& f, const In* in, const Address& a, int channels, int c, int x, int y) {
  const Tap<T> across = tap_of<T>(x, f.columns, f.out_width), down = tap_of<T>(y, f.rows, f.out_height);
  const In* plane = in + (a.image * channels + c) * f.height * f.width;
  const T fill = f.fill == nullptr ? T(0) : static_cast<T>(f.fill[c]);
  const auto at = [&](int row, int column) {
    row += a.row;
    column += a.column;
    return row < f.height && column < f.width ? static_cast<T>(value_of(plane[static_cast<int64_t>(row) * f.width + column])) : fill;
  };
  const T p00 = at(down.low, across.low), p01 = at(down.low, across.high);
  const T p10 = at(down.high, across.low), p11 = at(down.high, across.high);
  const T above = p00 + across.weight * (p01 - p00), below = p10 + across.weight * (p11 - p10);
  return above + down.weight * (below - above);
}

template <class T, class In>
__global__ void __launch_bounds__(kThreads) formation_kernel(const FormationCall call, int64_t n) {
  const Formation& f = call.f;
  const int plane = f.out_height * f.out_width, count = call.channels * plane;
  const In* in = static_cast<const In*>(call.in);
  In* out = static_cast<In*>(call.out);
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < n * count; k += static_cast<int64_t>(gridDim.x) * kThreads) {
    const Address a = address_of(f, k / count);
    const int i = static_cast<int>(k % count), pixel = i % plane;
    // An address could not be read before: what does not exist is NaN.
    put(out + k, a.exists ? decoded_at<T>(f, in, a, call.channels, i / plane, pixel % f.out_width, pixel / f.out_width)
                          : static_cast<T>(__int_as_float(0x7fc00000)));
  }
}

// What pixel (row, column) of a part has given to channel c of decoded image n.
template <class T, class In>
__device__ T gathered(const Formation& f, const In* g, int64_t n, int channels, int c, int row, int column) {
  const In* plane = g + (n * channels + c) * f.out_height * f.out_width;
  T sum = T(0);
  const int y1 = end_of(row, f.rows, f.out_height), x1 = end_of(column, f.columns, f.out_width);
  for (int y = first_of(row, f.rows, f.out_height); y < y1; ++y) {
    const T down = weight_in(tap_of<T>(y, f.rows, f.out_height), row);
    T across = T(0);
    for (int x = first_of(column, f.columns, f.out_width); x < x1; ++x) {
      across += weight_in(tap_of<T>(x, f.columns, f.out_width), column) *
                static_cast<T>(value_of(plane[static_cast<int64_t>(y) * f.out_width + x]));
    }
    sum += down * across;
  }
  return sum;
}

// Blocks (pixels of an image, stored image).
template <class T, class In>
__global__ void __launch_bounds__(kThreads) formation_adjoint_kernel(const FormationCall call, int64_t n) {
  __shared__ int parts[kThreads];
  const Formation& f = call.f;
  const int plane = f.height * f.width, count = call.channels * plane;
  const In* g = static_cast<const In*>(call.in);
  In* out = static_cast<In*>(call.out);
  for (int64_t m = blockIdx.y; m < f.stored; m += gridDim.y) {
    const int i = blockIdx.x * kThreads + threadIdx.x, pixel = i % plane, c = i / plane;
    const int y = pixel / f.width, x = pixel % f.width;
    const int part = y / f.rows * f.factor + x / f.columns;
    T sum = T(0);
    if (f.parts == nullptr) {
      if (i < count) sum = gathered<T>(f, g, part * f.stored + m, call.channels, c, y % f.rows, x % f.columns);
    } else {
      for (int64_t start = 0; start < n; start += kThreads) {
        __syncthreads();
        const int64_t own = start + threadIdx.x;
        parts[threadIdx.x] = own < n && f.parts[2 * own] == m ? static_cast<int>(f.parts[2 * own + 1]) : -1;
        __syncthreads();
        for (int k = 0; k < kThreads && i < count; ++k) {
          if (parts[k] == part) sum += gathered<T>(f, g, start + k, call.channels, c, y % f.rows, x % f.columns);
        }
      }
    }
    if (i < count) put(out + m * count + i, sum);
  }
}

template <class T, class In>
int forward(const FormationCall& call, int64_t n, void* stream) {
  const int64_t blocks = (n * call.channels * call.f.out_height * call.f.out_width + kThreads - 1) / kThreads;
  formation_kernel<T, In><<<static_cast<unsigned>(blocks < (1 << 20) ? blocks : (1 << 20)), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(call, n);
  return cudaGetLastError();
}

template <class T, class In>
int adjoint(const FormationCall& call, int64_t n, void* stream) {
  const int count = call.channels * call.f.height * call.f.width;
  const dim3 blocks((count + kThreads - 1) / kThreads, static_cast<unsigned>(call.f.stored < 65535 ? call.f.stored : 65535));
  formation_adjoint_kernel<T, In><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(call, n);
  return cudaGetLastError();
}

}  // namespace

int formation_launch(const FormationCall& call, int64_t n, void* stream) {
  switch (call.dtype) {
    case Dtype::f64: return forward<double, double>(call, n, stream);
    case Dtype::bf16: return forward<float, __nv_bfloat16>(call, n, stream);
    default: return forward<float, float>(call, n, stream);
  }
}

int formation_adjoint_launch(const FormationCall& call, int64_t n, void* stream) {
  switch (call.dtype) {
    case Dtype::f64: return adjoint<double, double>(call, n, stream);
    case Dtype::bf16: return adjoint<float, __nv_bfloat16>(call, n, stream);
    default: return adjoint<float, float>(call, n, stream);
  }
}

}  // namespace fastdd
