// CUDA kernels of formation and its adjoint: compiled, and not yet run on a GPU.
//
// A thread a pixel, and no atomics: of the adjoint, a pixel of a stored image gathers from the decoded images that hold its
// part, in their order.
#include <cuda_runtime.h>

#include "formation_device.h"
#include "formation_launch.h"

namespace fastdd {
namespace {

constexpr int kThreads = 256;

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
                          : not_a_number<T>());
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
