// fastdd::norm_act_pool, its backward and its double backward for CPU tensors, all [N, H, W, C]. Shapes and dtypes are
// checked in fastdd/ops/norm_act_pool.py; what would read or write out of bounds is checked again here.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <string>
#include <tuple>
#include <vector>

#include "norm_act_pool_cpu.h"

namespace {

using fastdd::Element;
using fastdd::NormActPoolCall;
using fastdd::Pool;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Pool parse(const std::string& name) {
  if (name == "avg") return Pool::avg;
  if (name == "max") return Pool::max;
  STD_TORCH_CHECK(name == "none", "pool must be avg, max or none, not ", name);
  return Pool::none;
}

// The arguments that all three share, brought into contiguous memory, and the call they make.
struct Shared {
  Tensor x, weight, bias;
  int64_t images, rows, columns;  // of y
  ScalarType wide;
  NormActPoolCall call{};

  Shared(const Tensor& x_, const Tensor& weight_, const Tensor& bias_, const std::string& pool)
      : x(torch::stable::contiguous(x_)), weight(torch::stable::contiguous(weight_)), bias(torch::stable::contiguous(bias_)) {
    STD_TORCH_CHECK(x.dim() == 4, "x must be [N, H, W, C]");
    call.element = Element::f32;
    if (x.scalar_type() == ScalarType::Double) call.element = Element::f64;
    if (x.scalar_type() == ScalarType::BFloat16) call.element = Element::bf16;
    STD_TORCH_CHECK(call.element != Element::f32 || x.scalar_type() == ScalarType::Float,
                    "x must be float32, float64 or bfloat16");
    wide = call.element == Element::f64 ? ScalarType::Double : ScalarType::Float;
    call.pool = parse(pool);
    images = x.size(0);
    call.height = x.size(1);
    call.width = x.size(2);
    call.channels = x.size(3);
    rows = call.pool == Pool::none ? call.height : call.height / 2;
    columns = call.pool == Pool::none ? call.width : call.width / 2;
    STD_TORCH_CHECK(rows > 0 && columns > 0, "images are too small for the pooling");
    call.x = x.const_data_ptr();
    call.weight = channel_data(weight);
    call.bias = channel_data(bias);
  }

  const void* channel_data(const Tensor& t) const {
    STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == call.channels && t.scalar_type() == wide,
                    "weight, bias and their gradients must be [C], float64 for float64 x and float32 otherwise");
    return t.const_data_ptr();
  }

  Tensor output() const { return torch::stable::new_empty(x, {images, rows, columns, call.channels}); }

  const void* output_data(const Tensor& g) const {
    STD_TORCH_CHECK(g.dim() == 4 && g.size(0) == images && g.size(1) == rows && g.size(2) == columns &&
                        g.size(3) == call.channels && g.scalar_type() == x.scalar_type(),
                    "g must have y's shape and x's dtype");
    return g.const_data_ptr();
  }

  void take_stats(const Tensor& stats) {
    STD_TORCH_CHECK(stats.dim() == 3 && stats.size(0) == images && stats.size(1) == 2 && stats.size(2) == call.channels &&
                        stats.scalar_type() == wide,
                    "stats must be [N, 2, C]");
    call.stats = const_cast<void*>(stats.const_data_ptr());
  }

  // `images_of` over all images; each thread works through consecutive ones.
  template <class Function>
  void run(Function images_of) const {
    if (call.channels == 0) return;  // and there is no scratch
    // One image a task, unless they are tiny: about 16,000 elements are worth waking a thread.
    const int64_t size = call.height * call.width * call.channels;
    torch::stable::parallel_for(0, images, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, size)),
                                [&](int64_t begin, int64_t end) {
                                  std::vector<double> scratch(fastdd::norm_act_pool_scratch(call.channels));
                                  images_of(begin, end, scratch.data());
                                });
  }

  // Sums over images, in their order, of `part` of `parts` [images, parts, C].
  Tensor over_images(const std::vector<double>& partials, int64_t parts, int64_t part) const {
    Tensor out = torch::stable::new_empty(weight, {call.channels});
    for (int64_t c = 0; c < call.channels; ++c) {
      double sum = 0;
      for (int64_t n = 0; n < images; ++n) {
        const int64_t at = (n * parts + part) * call.channels + c;
        sum += wide == ScalarType::Double ? partials[at] : reinterpret_cast<const float*>(partials.data())[at];
      }
      if (wide == ScalarType::Double) {
        out.mutable_data_ptr<double>()[c] = sum;
      } else {
        out.mutable_data_ptr<float>()[c] = static_cast<float>(sum);
      }
    }
    return out;
  }
};

std::tuple<Tensor, Tensor> norm_act_pool(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps,
                                         std::string pool) {
  Shared shared(x, weight, bias, pool);
  Tensor y = shared.output();
  Tensor stats = torch::stable::new_empty(shared.weight, {shared.images, 2, shared.call.channels});
  shared.call.eps = eps;
  shared.call.y = y.mutable_data_ptr();
  shared.call.stats = stats.mutable_data_ptr();
  shared.run([&](int64_t begin, int64_t end, void* scratch) {
    FASTDD_DISPATCH(norm_act_pool_images, shared.call, begin, end, scratch);
  });
  return {y, stats};
}

std::tuple<Tensor, Tensor, Tensor> norm_act_pool_backward(const Tensor& gradient, const Tensor& x, const Tensor& weight,
                                                          const Tensor& bias, const Tensor& statistics, std::string pool) {
  Shared shared(x, weight, bias, pool);
  const Tensor g = torch::stable::contiguous(gradient), stats = torch::stable::contiguous(statistics);
  Tensor dx = torch::stable::new_empty(shared.x, {shared.images, shared.call.height, shared.call.width, shared.call.channels});
  std::vector<double> sums(shared.images * 2 * shared.call.channels);
  shared.call.g = shared.output_data(g);
  shared.take_stats(stats);
  shared.call.dx = dx.mutable_data_ptr();
  shared.call.sums = sums.data();
  shared.run([&](int64_t begin, int64_t end, void* scratch) {
    FASTDD_DISPATCH(norm_act_pool_backward_images, shared.call, begin, end, scratch);
  });
  return {dx, shared.over_images(sums, 2, 0), shared.over_images(sums, 2, 1)};
}

std::tuple<Tensor, Tensor, Tensor> norm_act_pool_double_backward(const Tensor& to_dx, const Tensor& to_dw, const Tensor& to_db,
                                                                 const Tensor& gradient, const Tensor& x,
                                                                 const Tensor& weight, const Tensor& bias,
                                                                 const Tensor& statistics, std::string pool) {
  Shared shared(x, weight, bias, pool);
  const Tensor u = torch::stable::contiguous(to_dx), vw = torch::stable::contiguous(to_dw);
  const Tensor vb = torch::stable::contiguous(to_db), g = torch::stable::contiguous(gradient);
  const Tensor stats = torch::stable::contiguous(statistics);
  STD_TORCH_CHECK(u.dim() == 4 && u.size(0) == shared.images && u.size(1) == shared.call.height &&
                      u.size(2) == shared.call.width && u.size(3) == shared.call.channels &&
                      u.scalar_type() == shared.x.scalar_type(),
                  "u must have x's shape and dtype");
  Tensor to_x = torch::stable::new_empty(shared.x, {shared.images, shared.call.height, shared.call.width, shared.call.channels});
  Tensor to_g = shared.output();
  std::vector<double> sums(shared.images * shared.call.channels);
  shared.call.u = u.const_data_ptr();
  shared.call.vw = shared.channel_data(vw);
  shared.call.vb = shared.channel_data(vb);
  shared.call.g = shared.output_data(g);
  shared.take_stats(stats);
  shared.call.dx = to_x.mutable_data_ptr();
  shared.call.dg = to_g.mutable_data_ptr();
  shared.call.sums = sums.data();
  shared.run([&](int64_t begin, int64_t end, void* scratch) {
    FASTDD_DISPATCH(norm_act_pool_double_backward_images, shared.call, begin, end, scratch);
  });
  return {to_g, to_x, shared.over_images(sums, 1, 0)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("norm_act_pool", TORCH_BOX(&norm_act_pool));
  m.impl("norm_act_pool_backward", TORCH_BOX(&norm_act_pool_backward));
  m.impl("norm_act_pool_double_backward", TORCH_BOX(&norm_act_pool_double_backward));
}
