// fastdd::formation and fastdd::formation_adjoint for CPU and CUDA tensors. Shapes, dtypes and values are checked in
// fastdd/ops/formation.py; what would read or write out of bounds is checked again here.
#include "formation.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <limits>

#include "augment_launch.h"
#include "formation_launch.h"

#ifdef FASTDD_WITH_CUDA
// Weak: CPU builds of torch lack the symbol, and a strong reference would keep the extension from loading there.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
#endif

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace fastdd {

Dtype image_dtype(const Tensor& images) {
  switch (images.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Double: return Dtype::f64;
    case ScalarType::BFloat16: return Dtype::bf16;
    default: STD_TORCH_CHECK(false, "images that are decoded are float32, float64 or bfloat16");
  }
}

Decoding::Decoding(const Tensor& like, int64_t stored, int64_t height, int64_t width, int64_t factor,
                   const std::optional<Tensor>& which, const std::optional<Tensor>& padding, int64_t out_height,
                   int64_t out_width) {
  STD_TORCH_CHECK(like.dim() == 4, "images must be [N, C, H, W]");
  const int64_t channels = like.size(1);
  STD_TORCH_CHECK(stored >= 0 && channels > 0 && height > 0 && width > 0 && out_height > 0 && out_width > 0, "images are empty");
  STD_TORCH_CHECK(factor >= 1 && factor <= std::min(height, width), "factor must be 1 to the side of the images");
  constexpr int64_t most = std::numeric_limits<int32_t>::max() / 4;
  STD_TORCH_CHECK(channels * (height + factor) * (width + factor) < most && channels * out_height * out_width < most,
                  "images are too large");
  Formation& f = call.f;
  f.stored = stored;
  f.factor = static_cast<int>(factor);
  f.height = static_cast<int>(height);
  f.width = static_cast<int>(width);
  f.rows = static_cast<int>((height + factor - 1) / factor);
  f.columns = static_cast<int>((width + factor - 1) / factor);
  f.out_height = static_cast<int>(out_height);
  f.out_width = static_cast<int>(out_width);
  images = stored * factor * factor;
  if (which.has_value()) {
    STD_TORCH_CHECK(which->dim() == 2 && which->size(1) == 2 && which->scalar_type() == ScalarType::Long, "parts must be int64 [N, 2]");
    images = which->size(0);
    parts = torch::stable::contiguous(*which);
    f.parts = parts->const_data_ptr<int64_t>();
  }
  if (padding.has_value()) {
    STD_TORCH_CHECK(padding->dim() == 1 && padding->size(0) == channels, "fill must be [C]");
    fill = torch::stable::contiguous(torch::stable::to(*padding, ScalarType::Double));
    f.fill = fill->const_data_ptr<double>();
  }
  call.channels = static_cast<int>(channels);
  call.dtype = image_dtype(like);
}

namespace {

// Places and weights of the taps of a side.
template <class T>
void add_taps(int side, int size, std::vector<int>& low, std::vector<int>& high, std::vector<T>& weight) {
  for (int i = 0; i < size; ++i) {
    const Tap<T> tap = tap_of<T>(i, side, size);
    low.push_back(tap.low);
    high.push_back(tap.high);
    weight.push_back(tap.weight);
  }
}

// Weights of the rows, of the columns, and of the columns' transpose: [taps][columns].
template <class T>
std::vector<T> weights_of(const Formation& f, std::vector<int>& low, std::vector<int>& high, const std::vector<int>& first, int taps) {
  std::vector<T> weights;
  add_taps(f.rows, f.out_height, low, high, weights);
  add_taps(f.columns, f.out_width, low, high, weights);
  for (int k = 0; k < taps; ++k) {
    for (int j = 0; j < f.columns; ++j) {
      const int i = first[j] + k;
      weights.push_back(i < f.out_width ? weight_in(tap_of<T>(i, f.columns, f.out_width), j) : T(0));
    }
  }
  return weights;
}

}  // namespace

void Decoding::look_up(bool adjoint) {
  const Formation& f = call.f;
  for (int64_t n = 0; n < images && f.parts != nullptr; ++n) {
    STD_TORCH_CHECK(address_of(f, n).exists, "parts[", n, "] = (", f.parts[2 * n], ", ", f.parts[2 * n + 1], ") is no part of ",
                    f.stored, " images that hold ", f.factor, " x ", f.factor);
  }
  std::vector<int> low, high, first;
  call.taps = 0;
  for (int j = 0; j < f.columns && adjoint; ++j) {
    first.push_back(first_of(j, f.columns, f.out_width));
    call.taps = std::max(call.taps, end_of(j, f.columns, f.out_width) - first[j]);
  }
  const void* weights;
  size_t size;
  if (call.dtype == Dtype::f64) {
    doubles_ = weights_of<double>(f, low, high, first, call.taps);
    weights = doubles_.data();
    size = sizeof(double);
  } else {
    singles_ = weights_of<float>(f, low, high, first, call.taps);
    weights = singles_.data();
    size = sizeof(float);
  }
  places_ = low;
  places_.insert(places_.end(), high.begin(), high.end());
  places_.insert(places_.end(), first.begin(), first.end());
  call.row_low = places_.data();
  call.column_low = call.row_low + f.out_height;
  call.row_high = call.row_low + low.size();
  call.column_high = call.row_high + f.out_height;
  call.first = call.row_high + high.size();
  call.row_weight = weights;
  call.column_weight = static_cast<const char*>(weights) + size * f.out_height;
  call.back = static_cast<const char*>(call.column_weight) + size * f.out_width;
  if (!adjoint) return;
  // Counted, then put in their places, in the order of the decoded images.
  lists_.assign(f.stored + 1 + images, 0);
  int64_t* const offsets = lists_.data();
  int64_t* const members = offsets + f.stored + 1;
  for (int64_t n = 0; n < images; ++n) ++offsets[address_of(f, n).image + 1];
  for (int64_t m = 0; m < f.stored; ++m) offsets[m + 1] += offsets[m];
  std::vector<int64_t> next(offsets, offsets + f.stored);
  for (int64_t n = 0; n < images; ++n) members[next[address_of(f, n).image]++] = n;
  call.offsets = offsets;
  call.members = members;
}

namespace {

int64_t per_task(int64_t elements) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, elements)); }

Tensor formation_cpu(const Tensor& input, int64_t factor, const std::optional<Tensor>& parts, const std::optional<Tensor>& fill,
                     std::vector<int64_t> size) {
  STD_TORCH_CHECK(input.dim() == 4 && size.size() == 2, "stored must be [M, C, H, W], size a height and a width");
  const Tensor stored = torch::stable::contiguous(input);
  Decoding d(stored, stored.size(0), stored.size(2), stored.size(3), factor, parts, fill, size[0], size[1]);
  Tensor out = torch::stable::new_empty(stored, {d.images, stored.size(1), size[0], size[1]});
  d.look_up(false);
  d.call.in = stored.const_data_ptr();
  d.call.out = out.mutable_data_ptr();
  if (d.images == 0) return out;
  std::atomic<bool> whole{true};
  torch::stable::parallel_for(0, d.images, per_task(stored.size(1) * size[0] * size[1]), [&](int64_t begin, int64_t end) {
    if (!FASTDD_DISPATCH(formation_images, d.call, begin, end)) whole = false;
  });
  STD_TORCH_CHECK(whole, "out of memory");
  return out;
}

Tensor formation_adjoint_cpu(const Tensor& input, int64_t n, int64_t height, int64_t width, int64_t factor,
                             const std::optional<Tensor>& parts) {
  const Tensor g = torch::stable::contiguous(input);
  STD_TORCH_CHECK(g.dim() == 4, "g must be [N, C, H, W]");
  Decoding d(g, n, height, width, factor, parts, std::nullopt, g.size(2), g.size(3));
  STD_TORCH_CHECK(d.images == g.size(0), "g must be of ", d.images, " decoded images, not ", g.size(0));
  Tensor out = torch::stable::new_empty(g, {n, g.size(1), height, width});
  d.look_up(true);
  d.call.in = g.const_data_ptr();
  d.call.out = out.mutable_data_ptr();
  if (n == 0) return out;
  std::atomic<bool> whole{true};
  const int64_t each = g.size(1) * g.size(2) * g.size(3) * std::max<int64_t>(1, d.images / n);
  torch::stable::parallel_for(0, n, per_task(each), [&](int64_t begin, int64_t end) {
    if (!FASTDD_DISPATCH(formation_adjoint_images, d.call, begin, end)) whole = false;
  });
  STD_TORCH_CHECK(whole, "out of memory");
  return out;
}

#ifdef FASTDD_WITH_CUDA
void* stream_of(int32_t device) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch has no CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return stream;
}

Tensor formation_cuda(const Tensor& input, int64_t factor, const std::optional<Tensor>& parts, const std::optional<Tensor>& fill,
                      std::vector<int64_t> size) {
  STD_TORCH_CHECK(input.dim() == 4 && size.size() == 2, "stored must be [M, C, H, W], size a height and a width");
  const Tensor stored = torch::stable::contiguous(input);
  Decoding d(stored, stored.size(0), stored.size(2), stored.size(3), factor, parts, fill, size[0], size[1]);
  Tensor out = torch::stable::new_empty(stored, {d.images, stored.size(1), size[0], size[1]});
  if (d.images == 0) return out;
  d.call.in = stored.const_data_ptr();
  d.call.out = out.mutable_data_ptr();
  const torch::stable::accelerator::DeviceGuard guard(stored.get_device_index());
  const int error = formation_launch(d.call, d.images, stream_of(stored.get_device_index()));
  STD_TORCH_CHECK(error == 0, "CUDA error in formation: ", cuda_error(error));
  return out;
}

Tensor formation_adjoint_cuda(const Tensor& input, int64_t n, int64_t height, int64_t width, int64_t factor,
                              const std::optional<Tensor>& parts) {
  const Tensor g = torch::stable::contiguous(input);
  STD_TORCH_CHECK(g.dim() == 4, "g must be [N, C, H, W]");
  Decoding d(g, n, height, width, factor, parts, std::nullopt, g.size(2), g.size(3));
  STD_TORCH_CHECK(d.images == g.size(0), "g must be of ", d.images, " decoded images, not ", g.size(0));
  Tensor out = torch::stable::new_empty(g, {n, g.size(1), height, width});
  if (n == 0) return out;
  d.call.in = g.const_data_ptr();
  d.call.out = out.mutable_data_ptr();
  const torch::stable::accelerator::DeviceGuard guard(g.get_device_index());
  const int error = formation_adjoint_launch(d.call, d.images, stream_of(g.get_device_index()));
  STD_TORCH_CHECK(error == 0, "CUDA error in formation_adjoint: ", cuda_error(error));
  return out;
}
#endif

}  // namespace
}  // namespace fastdd

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("formation", TORCH_BOX(&fastdd::formation_cpu));
  m.impl("formation_adjoint", TORCH_BOX(&fastdd::formation_adjoint_cpu));
}

#ifdef FASTDD_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastdd, CUDA, m) {
  m.impl("formation", TORCH_BOX(&fastdd::formation_cuda));
  m.impl("formation_adjoint", TORCH_BOX(&fastdd::formation_adjoint_cuda));
}
#endif
