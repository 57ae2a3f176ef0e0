// CUDA kernels of augment and augment_adjoint: one thread block an image. Their tests pass on an H200, but for those of images
// that are decoded on the way, which have not run on a GPU.
//
// An image is kept in shared memory when it fits (227 KB on Hopper: three channels of 128 x 128 in float32); a larger one is
// read through the caches. No atomics: sums go through a fixed tree, and the adjoint of the warp gathers.
#include <cuda_runtime.h>

#include "augment_launch.h"
#include "augment_math.h"
#include "formation_cpu.h"
#include "formation_device.h"

namespace fastdd {
namespace {

// 1024 would leave 64 registers a thread, fewer than the kernels need.
constexpr int kMostThreads = 512;

// Sum over the block, the same for every thread and in the same order at every run.
template <class T>
__device__ T block_sum(T value) {
  __shared__ T partial[32];
  __shared__ T total;
  for (int step = 16; step > 0; step >>= 1) value += __shfl_down_sync(0xffffffffu, value, step);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  if (warp == 0) {
    value = lane < (blockDim.x >> 5) ? partial[lane] : T(0);
    for (int step = 16; step > 0; step >>= 1) value += __shfl_down_sync(0xffffffffu, value, step);
    if (lane == 0) total = value;
  }
  __syncthreads();
  return total;
}

// Parameter row of an image; false when it does not exist.
template <class T>
__device__ __forceinline__ bool find_row(const AugmentCall& call, int64_t image, Row<T>& r) {
  const int64_t row = call.rows != nullptr ? call.rows[image] : call.n_rows == 1 ? 0 : image;
  if (row < 0 || row >= call.n_rows) return false;
  r = call.params_f64
          ? read_row<T>(static_cast<const double*>(call.params) + row * kColumns, call.height, call.width, call.linear)
          : read_row<T>(static_cast<const float*>(call.params) + row * kColumns, call.height, call.width, call.linear);
  return true;
}

template <class T, class Out>
__device__ void fill_nan(Out* out, int64_t count) {
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) put(out + i, not_a_number<T>());
}

// Images as they are, and images that are decoded on the way.
struct AsTheyAre {};

template <class Made>
constexpr bool kDecoded = false;
template <>
constexpr bool kDecoded<Formation> = true;

// The source image in the computing type: from shared memory, or converted (and normalised, or decoded) at every read.
template <class T, class In, bool kShared, class Made>
struct Source {
  const In* global;  // the image; if it is decoded, all stored ones
  const T* shared;
  const float *mean, *std;
  int plane;
  Made made;
  Address address;
  int channels;

  __device__ __forceinline__ T convert(int channel, int i) const {
    if constexpr (kDecoded<Made>) {
      return decoded_at<T>(made, global, address, channels, channel, i % made.out_width, i / made.out_width);
    } else {
      const T value = static_cast<T>(value_of(global[static_cast<int64_t>(channel) * plane + i]));
      if constexpr (sizeof(In) == 1) {
        return normalise(value, static_cast<T>(mean[channel]), static_cast<T>(std[channel]));
      } else {
        return value;
      }
    }
  }

  __device__ __forceinline__ T at(int channel, int i) const {
    if constexpr (kShared) {
      return shared[channel * plane + i];
    } else {
      return convert(channel, i);
    }
  }

  __device__ void load(T* memory, int channels) {
    if constexpr (kShared) {
      for (int c = 0; c < channels; ++c) {
        for (int i = threadIdx.x; i < plane; i += blockDim.x) memory[c * plane + i] = convert(c, i);
      }
      __syncthreads();
      shared = memory;
    }
  }
};

template <class T>
struct Sample {
  T fx, fy;
  int index;  // of the tap above and to the left, which may be outside
  bool left, right, above, below;
};

template <class T>
__device__ __forceinline__ Sample<T> sample_of(const Row<T>& r, int x, int y, int width, int height) {
  const T sx = to_border(r.a * T(x) + (r.b * T(y) + r.c), width);
  const T sy = to_border(r.d * T(x) + (r.e * T(y) + r.f), height);
  const int u = floor_of(sx), v = floor_of(sy);
  Sample<T> s;
  s.fx = sx - T(u);
  s.fy = sy - T(v);
  s.index = v * width + u;
  s.left = u >= 0 && u < width;
  s.right = u + 1 < width;
  s.above = v >= 0 && v < height;
  s.below = v + 1 < height;
  return s;
}

template <class T, class S>
__device__ __forceinline__ T warped(const S& source, const Sample<T>& s, int channel, int width) {
  const T p00 = s.above && s.left ? source.at(channel, s.index) : T(0);
  const T p01 = s.above && s.right ? source.at(channel, s.index + 1) : T(0);
  const T p10 = s.below && s.left ? source.at(channel, s.index + width) : T(0);
  const T p11 = s.below && s.right ? source.at(channel, s.index + width + 1) : T(0);
  return bilinear(s.fx, s.fy, p00, p01, p10, p11);
}

template <class T, class In, class Out, bool kShared, class Made>
__global__ void __launch_bounds__(kMostThreads, 1) augment_kernel(const AugmentCall call, const Made made) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int64_t image = blockIdx.x;
  const int channels = call.channels, width = call.width, height = call.height, plane = width * height;
  const int64_t count = static_cast<int64_t>(channels) * plane;
  Out* out = static_cast<Out*>(call.out) + image * count;
  Row<T> r;
  const In* in = static_cast<const In*>(call.in);
  Address address{};
  bool exists = find_row(call, image, r);
  if constexpr (kDecoded<Made>) {
    address = address_of(made, image);
    exists = exists && address.exists;
  } else {
    in += image * count;
  }
  if (!exists) {
    fill_nan<T>(out, count);
    return;
  }
  Source<T, In, kShared, Made> source{in, nullptr, call.mean, call.std, plane, made, address, channels};
  source.load(reinterpret_cast<T*>(memory), channels);

  // Saturation keeps the mean over channels, so contrast's mean is that of the warped image, plus brightness.
  T image_mean = T(0);
  if (r.contrast != T(1)) {
    T sum = T(0);
    for (int i = threadIdx.x; i < plane; i += blockDim.x) {
      const Sample<T> s = sample_of(r, i % width, i / width, width, height);
      for (int c = 0; c < channels; ++c) sum += warped(source, s, c, width);
    }
    image_mean = block_sum(sum) / static_cast<T>(count) + r.brightness;
  }
  for (int i = threadIdx.x; i < plane; i += blockDim.x) {
    const int x = i % width, y = i / width;
    const bool cut = masked(r, x, y);
    const Sample<T> s = sample_of(r, x, y, width, height);
    T pixel_mean = T(0);
    if (channels > 1 && r.saturation != T(1)) {
      for (int c = 0; c < channels; ++c) pixel_mean += warped(source, s, c, width);
      pixel_mean = pixel_mean / static_cast<T>(channels) + r.brightness;
    }
    for (int c = 0; c < channels; ++c) {
      T value = warped(source, s, c, width) + r.brightness;
      if (channels > 1 && r.saturation != T(1)) value = about_mean(value, pixel_mean, r.saturation);
      if (r.contrast != T(1)) value = about_mean(value, image_mean, r.contrast);
      put(out + static_cast<int64_t>(c) * plane + i, cut ? T(0) : value);
    }
  }
}

// Gradient with mask, contrast and saturation applied, at one pixel of one channel.
template <class T, class S>
__device__ __forceinline__ T coloured(const S& source, const Row<T>& r, int channel, int i, int channels, int width, T image_mean) {
  const bool cut = masked(r, i % width, i / width);
  T value = cut ? T(0) : source.at(channel, i);
  if (r.contrast != T(1)) value = about_mean(value, image_mean, r.contrast);
  if (channels > 1 && r.saturation != T(1)) {
    T pixel_mean = T(0);
    if (!cut) {
      for (int c = 0; c < channels; ++c) pixel_mean += source.at(c, i);
      pixel_mean /= static_cast<T>(channels);
    }
    if (r.contrast != T(1)) pixel_mean = about_mean(pixel_mean, image_mean, r.contrast);
    value = about_mean(value, pixel_mean, r.saturation);
  }
  return value;
}

template <class T, class In, bool kShared>
__global__ void __launch_bounds__(kMostThreads, 1) augment_adjoint_kernel(const AugmentCall call) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int64_t image = blockIdx.x;
  const int channels = call.channels, width = call.width, height = call.height, plane = width * height;
  const int64_t count = static_cast<int64_t>(channels) * plane;
  In* out = static_cast<In*>(call.out) + image * count;
  Row<T> r;
  if (!find_row(call, image, r)) {
    fill_nan<T>(out, count);
    return;
  }
  const Window<T> w = window_of(r);
  if (!w.valid) {
    fill_nan<T>(out, count);
    return;
  }
  Source<T, In, kShared, AsTheyAre> source{static_cast<const In*>(call.in) + image * count, nullptr, call.mean, call.std, plane,
                                           {}, {}, channels};
  source.load(reinterpret_cast<T*>(memory), channels);

  T image_mean = T(0);
  if (r.contrast != T(1)) {
    T sum = T(0);
    for (int i = threadIdx.x; i < plane; i += blockDim.x) {
      if (masked(r, i % width, i / width)) continue;
      for (int c = 0; c < channels; ++c) sum += source.at(c, i);
    }
    image_mean = block_sum(sum) / static_cast<T>(count);
  }
  for (int64_t k = threadIdx.x; k < count; k += blockDim.x) {
    const int channel = static_cast<int>(k / plane), i = static_cast<int>(k % plane);
    const int u = i % width, v = i / width;
    const int x0 = first_x(r, w, u, v, width), y0 = first_y(r, w, u, v, height);
    const int x1 = min(x0 + w.nx, width), y1 = min(y0 + w.ny, height);
    const T dx = offset_x(r, x0, y0, u), dy = offset_y(r, x0, y0, v);
    T sum = T(0);
    for (int y = max(y0, 0); y < y1; ++y) {
      for (int x = max(x0, 0); x < x1; ++x) {
        const T weight = weight_of(r, dx, dy, x - x0, y - y0);
        if (weight > T(0)) sum += weight * coloured(source, r, channel, y * width + x, channels, width, image_mean);
      }
    }
    put(out + k, sum);
  }
}

// A fixed number for each size: the order of sums depends on it.
int threads_for(const AugmentCall& call) {
  const int64_t plane = static_cast<int64_t>(call.height) * call.width;
  return plane <= 32 * 32 ? 256 : kMostThreads;
}

// Launches with the image in shared memory when the device's blocks may have that much of it.
template <class T, class Kernel, class... More>
int launch(Kernel with_shared, Kernel without, const AugmentCall& call, int64_t images, void* stream, const More&... more) {
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  const int64_t bytes = static_cast<int64_t>(call.channels) * call.height * call.width * static_cast<int64_t>(sizeof(T));
  constexpr int64_t reduction = 1024;  // what block_sum takes, rounded up
  const bool fits = bytes + reduction <= most;
  if (fits && bytes + reduction > 48 * 1024) {
    error = cudaFuncSetAttribute(with_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error != cudaSuccess) return error;
  }
  const auto grid = static_cast<unsigned>(images);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (fits) {
    with_shared<<<grid, threads_for(call), static_cast<size_t>(bytes), queue>>>(call, more...);
  } else {
    without<<<grid, threads_for(call), 0, queue>>>(call, more...);
  }
  return cudaGetLastError();
}

template <class T, class In, class Out>
int forward(const AugmentCall& call, int64_t images, void* stream) {
  if constexpr (sizeof(In) > 1) {
    if (call.formation != nullptr) {
      const Formation& f = call.formation->f;
      return launch<T>(augment_kernel<T, In, Out, true, Formation>, augment_kernel<T, In, Out, false, Formation>, call, images, stream, f);
    }
  }
  return launch<T>(augment_kernel<T, In, Out, true, AsTheyAre>, augment_kernel<T, In, Out, false, AsTheyAre>, call, images, stream,
                   AsTheyAre{});
}

template <class T, class In>
int adjoint(const AugmentCall& call, int64_t images, void* stream) {
  return launch<T>(augment_adjoint_kernel<T, In, true>, augment_adjoint_kernel<T, In, false>, call, images, stream);
}

}  // namespace

int augment_launch(const AugmentCall& call, int64_t images, void* stream) {
  switch (call.in_dtype) {
    case Dtype::f32: return forward<float, float, float>(call, images, stream);
    case Dtype::f64: return forward<double, double, double>(call, images, stream);
    case Dtype::bf16: return forward<float, __nv_bfloat16, __nv_bfloat16>(call, images, stream);
    case Dtype::u8: break;
  }
  switch (call.out_dtype) {
    case Dtype::f64: return forward<double, uint8_t, double>(call, images, stream);
    case Dtype::bf16: return forward<float, uint8_t, __nv_bfloat16>(call, images, stream);
    default: return forward<float, uint8_t, float>(call, images, stream);
  }
}

int augment_adjoint_launch(const AugmentCall& call, int64_t images, void* stream) {
  switch (call.in_dtype) {
    case Dtype::f64: return adjoint<double, double>(call, images, stream);
    case Dtype::bf16: return adjoint<float, __nv_bfloat16>(call, images, stream);
    default: return adjoint<float, float>(call, images, stream);
  }
}

const char* cuda_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // namespace fastdd
