// fastdd::augment and its adjoint, of images, of uint8 images and of images that are decoded on the way (augment_stored), for CPU
// and CUDA tensors. Shapes, dtypes and values are checked in fastdd/ops/augment.py and fastdd/ops/formation.py; what would read
// or write out of bounds is checked again here.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "augment_cpu.h"
#include "augment_launch.h"
#include "augment_math.h"
#include "formation.h"
#include "formation_launch.h"

#ifdef FASTDD_WITH_CUDA
// Weak: CPU builds of torch lack the symbol, and a strong reference would keep the extension from loading there.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
#endif

namespace {

using fastdd::AugmentCall;
using fastdd::Dtype;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Dtype dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Double: return Dtype::f64;
    case ScalarType::BFloat16: return Dtype::bf16;
    case ScalarType::Byte: return Dtype::u8;
    default: STD_TORCH_CHECK(false, "augment takes float32, float64, bfloat16 or uint8 images");
  }
}

// Contiguous inputs, the output, and the call that points into them.
struct Prepared {
  Tensor x, params, rows, out;
  AugmentCall call{};
  int64_t images;

  // `count` images are augmented and `written` come out, where these are not those of x.
  Prepared(const Tensor& input, const Tensor& parameters, const std::optional<Tensor>& which, ScalarType type, bool linear,
           int64_t count = -1, int64_t written = -1)
      : x(torch::stable::contiguous(input)), params(torch::stable::contiguous(parameters)), rows(params), out(x) {
    STD_TORCH_CHECK(x.dim() == 4 && params.dim() == 2 && params.size(1) == fastdd::kColumns, "x must be [N, C, H, W], params [R, 13]");
    images = count < 0 ? x.size(0) : count;
    STD_TORCH_CHECK(x.size(1) * (x.size(2) + 3) * (x.size(3) + 3) < std::numeric_limits<int32_t>::max(), "images are too large");
    out = torch::stable::new_empty(x, {written < 0 ? images : written, x.size(1), x.size(2), x.size(3)}, type);
    call.in = x.const_data_ptr();
    call.out = out.mutable_data_ptr();
    call.in_dtype = dtype_of(x.scalar_type());
    call.out_dtype = dtype_of(type);
    call.params = params.const_data_ptr();
    call.params_f64 = params.scalar_type() == ScalarType::Double;
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16,
                    "the result must be float32, float64 or bfloat16");
    STD_TORCH_CHECK(call.params_f64 || params.scalar_type() == ScalarType::Float, "params must be float32 or float64");
    call.n_rows = params.size(0);
    if (which.has_value()) {
      STD_TORCH_CHECK(which->dim() == 1 && which->size(0) == images && which->scalar_type() == ScalarType::Long, "rows must be int64 [N]");
      rows = torch::stable::contiguous(*which);
      call.rows = rows.const_data_ptr<int64_t>();
    } else {
      STD_TORCH_CHECK(call.n_rows == 1 || call.n_rows == images, "params must have one row, or one an image");
    }
    call.channels = static_cast<int>(x.size(1));
    call.height = static_cast<int>(x.size(2));
    call.width = static_cast<int>(x.size(3));
    call.linear = linear;
  }
};

// As _check_values in fastdd/ops/augment.py, which words the message for the user.
template <class P>
void check_params(const P* params, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const P* p = params + i * fastdd::kColumns;
    bool finite = true;
    for (int k = 0; k < fastdd::kColumns; ++k) finite &= std::isfinite(p[k]);
    STD_TORCH_CHECK(finite, "params row ", i, " is not finite");
    const double a = p[fastdd::kA], b = p[fastdd::kB], d = p[fastdd::kD], e = p[fastdd::kE];
    const double squares = a * a + b * b + d * d + e * e, det = std::abs(a * e - b * d);
    const double twice = std::sqrt(std::max(squares + 2 * det, 0.0)) - std::sqrt(std::max(squares - 2 * det, 0.0));
    STD_TORCH_CHECK(!(twice < 2 * fastdd::kSmallestScale), "the matrix of params row ", i, " enlarges too much or is singular");
  }
}

void check_cpu(const Prepared& p) {
  if (p.call.params_f64) {
    check_params(static_cast<const double*>(p.call.params), p.call.n_rows);
  } else {
    check_params(static_cast<const float*>(p.call.params), p.call.n_rows);
  }
  if (p.call.rows == nullptr) return;
  for (int64_t i = 0; i < p.images; ++i) {
    STD_TORCH_CHECK(p.call.rows[i] >= 0 && p.call.rows[i] < p.call.n_rows, "rows[", i, "] = ", p.call.rows[i],
                    " is not a row of params, which has ", p.call.n_rows);
  }
}

// Calls kernel(begin, end) for parts of `count` images, `each` augmented ones to one of them: about 16,000 pixels to a task.
template <class Kernel>
void in_parallel(const Prepared& p, int64_t count, int64_t each, const Kernel& kernel) {
  const int64_t size = each * p.call.channels * p.call.height * p.call.width;
  const int64_t grain = std::max<int64_t>(1, 16384 / size);
  std::atomic<bool> whole{true};
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    if (!kernel(begin, end)) whole = false;
  });
  STD_TORCH_CHECK(whole, "out of memory");
}

void run_cpu(const Prepared& p, bool adjoint) {
  check_cpu(p);
  if (p.out.numel() == 0) return;
  in_parallel(p, p.images, 1, [&](int64_t begin, int64_t end) {
    return adjoint ? FASTDD_DISPATCH(augment_adjoint_images, p.call, begin, end)
                   : FASTDD_DISPATCH(augment_images, p.call, begin, end);
  });
}

Tensor augment_cpu(const Tensor& x, const Tensor& params, const std::optional<Tensor>& rows, bool linear) {
  STD_TORCH_CHECK(x.scalar_type() != ScalarType::Byte, "uint8 images go through augment_uint8");
  Prepared p(x, params, rows, x.scalar_type(), linear);
  run_cpu(p, false);
  return p.out;
}

Tensor augment_adjoint_cpu(const Tensor& g, const Tensor& params, const std::optional<Tensor>& rows) {
  STD_TORCH_CHECK(g.scalar_type() != ScalarType::Byte, "gradients are floating point");
  Prepared p(g, params, rows, g.scalar_type(), true);
  run_cpu(p, true);
  return p.out;
}

// Every normalised value there is: [C][256].
template <class T>
std::vector<T> table_of(const float* mean, const float* std, int channels) {
  std::vector<T> table(256 * channels);
  for (int c = 0; c < channels; ++c) {
    for (int v = 0; v < 256; ++v) table[256 * c + v] = fastdd::normalise(T(v), T(mean[c]), T(std[c]));
  }
  return table;
}

Tensor augment_uint8_cpu(const Tensor& x, const Tensor& params, const std::optional<Tensor>& rows, const Tensor& mean, const Tensor& std,
                         ScalarType type) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Byte, "x must be uint8");
  Prepared p(x, params, rows, type, false);
  const bool one_a_channel =
      mean.dim() == 1 && std.dim() == 1 && mean.numel() == p.call.channels && std.numel() == p.call.channels;
  STD_TORCH_CHECK(one_a_channel, "mean and std must be [C]");
  const Tensor m = torch::stable::contiguous(torch::stable::to(mean, ScalarType::Float));
  const Tensor s = torch::stable::contiguous(torch::stable::to(std, ScalarType::Float));
  std::vector<float> single;
  std::vector<double> twice;
  if (type == ScalarType::Double) {
    twice = table_of<double>(m.const_data_ptr<float>(), s.const_data_ptr<float>(), p.call.channels);
    p.call.normalised = twice.data();
  } else {
    single = table_of<float>(m.const_data_ptr<float>(), s.const_data_ptr<float>(), p.call.channels);
    p.call.normalised = single.data();
  }
  run_cpu(p, false);
  return p.out;
}

Tensor augment_stored_cpu(const Tensor& input, const Tensor& params, const std::optional<Tensor>& rows, bool linear, int64_t factor,
                          const std::optional<Tensor>& parts, const std::optional<Tensor>& fill) {
  const Tensor stored = torch::stable::contiguous(input);
  STD_TORCH_CHECK(stored.dim() == 4, "stored must be [M, C, H, W]");
  fastdd::Decoding d(stored, stored.size(0), stored.size(2), stored.size(3), factor, parts, fill, stored.size(2), stored.size(3));
  d.look_up(false);
  d.call.in = stored.const_data_ptr();
  Prepared p(stored, params, rows, stored.scalar_type(), linear, d.images, d.images);
  p.call.formation = &d.call;
  run_cpu(p, false);
  return p.out;
}

Tensor augment_stored_adjoint_cpu(const Tensor& g, const Tensor& params, const std::optional<Tensor>& rows, int64_t n, int64_t factor,
                                  const std::optional<Tensor>& parts) {
  STD_TORCH_CHECK(g.dim() == 4, "g must be [N, C, H, W]");
  fastdd::Decoding d(g, n, g.size(2), g.size(3), factor, parts, std::nullopt, g.size(2), g.size(3));
  STD_TORCH_CHECK(d.images == g.size(0), "g must be of ", d.images, " decoded images, not ", g.size(0));
  d.look_up(true);
  Prepared p(g, params, rows, g.scalar_type(), true, -1, n);
  p.call.formation = &d.call;
  check_cpu(p);
  if (p.out.numel() == 0) return p.out;
  in_parallel(p, n, std::max<int64_t>(1, d.images / n), [&](int64_t begin, int64_t end) {
    return FASTDD_DISPATCH(augment_stored_adjoint_images, p.call, begin, end);
  });
  return p.out;
}

#ifdef FASTDD_WITH_CUDA
void run_cuda(const Prepared& p, bool adjoint) {
  if (p.out.numel() == 0) return;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch has no CUDA");
  const int32_t device = p.x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const int error = adjoint ? fastdd::augment_adjoint_launch(p.call, p.images, stream)
                            : fastdd::augment_launch(p.call, p.images, stream);
  STD_TORCH_CHECK(error == 0, "CUDA error in augment: ", fastdd::cuda_error(error));
}

Tensor augment_cuda(const Tensor& x, const Tensor& params, const std::optional<Tensor>& rows, bool linear) {
  STD_TORCH_CHECK(x.scalar_type() != ScalarType::Byte, "uint8 images go through augment_uint8");
  Prepared p(x, params, rows, x.scalar_type(), linear);
  run_cuda(p, false);
  return p.out;
}

Tensor augment_adjoint_cuda(const Tensor& g, const Tensor& params, const std::optional<Tensor>& rows) {
  STD_TORCH_CHECK(g.scalar_type() != ScalarType::Byte, "gradients are floating point");
  Prepared p(g, params, rows, g.scalar_type(), true);
  run_cuda(p, true);
  return p.out;
}

Tensor augment_uint8_cuda(const Tensor& x, const Tensor& params, const std::optional<Tensor>& rows, const Tensor& mean, const Tensor& std,
                          ScalarType type) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Byte, "x must be uint8");
  Prepared p(x, params, rows, type, false);
  const bool one_a_channel =
      mean.dim() == 1 && std.dim() == 1 && mean.numel() == p.call.channels && std.numel() == p.call.channels;
  STD_TORCH_CHECK(one_a_channel, "mean and std must be [C]");
  const Tensor m = torch::stable::contiguous(torch::stable::to(mean, ScalarType::Float));
  const Tensor s = torch::stable::contiguous(torch::stable::to(std, ScalarType::Float));
  p.call.mean = m.const_data_ptr<float>();
  p.call.std = s.const_data_ptr<float>();
  run_cuda(p, false);
  return p.out;
}

Tensor augment_stored_cuda(const Tensor& input, const Tensor& params, const std::optional<Tensor>& rows, bool linear, int64_t factor,
                           const std::optional<Tensor>& parts, const std::optional<Tensor>& fill) {
  const Tensor stored = torch::stable::contiguous(input);
  STD_TORCH_CHECK(stored.dim() == 4, "stored must be [M, C, H, W]");
  fastdd::Decoding d(stored, stored.size(0), stored.size(2), stored.size(3), factor, parts, fill, stored.size(2), stored.size(3));
  d.call.in = stored.const_data_ptr();
  Prepared p(stored, params, rows, stored.scalar_type(), linear, d.images, d.images);
  p.call.formation = &d.call;
  run_cuda(p, false);
  return p.out;
}

// In two launches: a pixel of a stored image gathers from several decoded ones, whose own adjoints gather too.
Tensor augment_stored_adjoint_cuda(const Tensor& input, const Tensor& params, const std::optional<Tensor>& rows, int64_t n, int64_t factor,
                                   const std::optional<Tensor>& parts) {
  const Tensor g = augment_adjoint_cuda(input, params, rows);
  fastdd::Decoding d(g, n, g.size(2), g.size(3), factor, parts, std::nullopt, g.size(2), g.size(3));
  STD_TORCH_CHECK(d.images == g.size(0), "g must be of ", d.images, " decoded images, not ", g.size(0));
  Tensor out = torch::stable::new_empty(g, {n, g.size(1), g.size(2), g.size(3)});
  if (out.numel() == 0) return out;
  d.call.in = g.const_data_ptr();
  d.call.out = out.mutable_data_ptr();
  const int32_t device = g.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const int error = fastdd::formation_adjoint_launch(d.call, d.images, stream);
  STD_TORCH_CHECK(error == 0, "CUDA error in augment_stored_adjoint: ", fastdd::cuda_error(error));
  return out;
}
#endif

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("augment", TORCH_BOX(&augment_cpu));
  m.impl("augment_adjoint", TORCH_BOX(&augment_adjoint_cpu));
  m.impl("augment_uint8", TORCH_BOX(&augment_uint8_cpu));
  m.impl("augment_stored", TORCH_BOX(&augment_stored_cpu));
  m.impl("augment_stored_adjoint", TORCH_BOX(&augment_stored_adjoint_cpu));
}

#ifdef FASTDD_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastdd, CUDA, m) {
  m.impl("augment", TORCH_BOX(&augment_cuda));
  m.impl("augment_adjoint", TORCH_BOX(&augment_adjoint_cuda));
  m.impl("augment_uint8", TORCH_BOX(&augment_uint8_cuda));
  m.impl("augment_stored", TORCH_BOX(&augment_stored_cuda));
  m.impl("augment_stored_adjoint", TORCH_BOX(&augment_stored_adjoint_cuda));
}
#endif
