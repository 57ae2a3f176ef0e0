// fastdd::conv3x3 and fastdd::conv3x3_weight for CPU tensors, all [N, H, W, C]. Shapes and dtypes are checked in
// fastdd/ops/conv3x3.py; what would read or write out of bounds is checked again here.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <optional>

#include "conv3x3_run.h"

namespace {

using fastdd::aligned;
using fastdd::Conv3x3Call;
using fastdd::Conv3x3WeightCall;
using fastdd::Floats;
using fastdd::grain;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor conv3x3(const Tensor& x_, const Tensor& filters_, const std::optional<Tensor>& bias_, bool adjoint) {
  const Tensor x = torch::stable::contiguous(x_), filters = torch::stable::contiguous(filters_);
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::Float, "x must be float32 [N, H, W, I]");
  STD_TORCH_CHECK(filters.dim() == 4 && filters.size(2) == 3 && filters.size(3) == 3 && filters.scalar_type() == ScalarType::Float &&
                      filters.size(adjoint ? 0 : 1) == x.size(3),
                  "filters must be float32 [O, I, 3, 3], [I, O, 3, 3] for the adjoint");
  Conv3x3Call call{};
  call.images = x.size(0);
  call.height = x.size(1);
  call.width = x.size(2);
  call.inputs = x.size(3);
  call.outputs = filters.size(adjoint ? 1 : 0);
  call.x = x.const_data_ptr<float>();
  Tensor bias = filters;
  if (bias_.has_value()) {
    bias = torch::stable::contiguous(*bias_);
    STD_TORCH_CHECK(bias.dim() == 1 && bias.size(0) == call.outputs && bias.scalar_type() == ScalarType::Float,
                    "bias must be float32 [O]");
    call.bias = bias.const_data_ptr<float>();
  }
  Tensor y = torch::stable::new_empty(x, {call.images, call.height, call.width, call.outputs});
  if (call.images * call.height * call.width * call.outputs == 0) return y;
  call.y = y.mutable_data_ptr<float>();
  call.how = fastdd::how_of(call.inputs, call.outputs, call.height, call.width);
  const Floats packed = fastdd::packed_filters(filters.const_data_ptr<float>(), call.outputs, call.inputs, call.how, adjoint);
  call.filters = packed.get();
  fastdd::run(call);
  return y;
}

Tensor conv3x3_weight(const Tensor& x_, const Tensor& g_) {
  const Tensor x = torch::stable::contiguous(x_), g = torch::stable::contiguous(g_);
  STD_TORCH_CHECK(x.dim() == 4 && g.dim() == 4 && x.size(0) == g.size(0) && x.size(1) == g.size(1) && x.size(2) == g.size(2) &&
                      x.scalar_type() == ScalarType::Float && g.scalar_type() == ScalarType::Float,
                  "x and g must be float32 [N, H, W, I] and [N, H, W, O]");
  Conv3x3WeightCall call{};
  call.images = x.size(0);
  call.height = x.size(1);
  call.width = x.size(2);
  call.inputs = x.size(3);
  call.outputs = g.size(3);
  call.x = x.const_data_ptr<float>();
  call.g = g.const_data_ptr<float>();
  if (call.images * call.height * call.width * call.inputs * call.outputs == 0) {
    return torch::stable::new_zeros(x, {call.outputs, call.inputs, 3, 3});
  }
  Tensor filters = torch::stable::new_empty(x, {call.outputs, call.inputs, 3, 3});
  call.filters = filters.mutable_data_ptr<float>();
  const int64_t size = FASTDD_DISPATCH(conv3x3_weight_sums, call);
  const Floats sums = aligned(size);
  call.sums = sums.get();
  if (call.winograd()) {
    fastdd::run_winograd(call);
  } else {
    const int64_t pixels = call.images * call.height * call.width, scratch = FASTDD_DISPATCH(conv3x3_weight_scratch, call);
    const int64_t own_size = size / call.parts(), work = 9 * pixels / call.parts() * call.inputs * call.outputs;
    torch::stable::parallel_for(0, call.parts(), grain(work), [&](int64_t begin, int64_t end) {
      const Floats memory = aligned(scratch);
      for (int64_t part = begin; part < end; ++part) {
        float* own = call.sums + part * own_size;
        std::memset(own, 0, own_size * sizeof(float));
        FASTDD_DISPATCH(conv3x3_weight_direct, call, call.part_start(part), call.part_start(part + 1), own, memory.get());
      }
    });
  }
  fastdd::finish(call);
  return filters;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&conv3x3));
  m.impl("conv3x3_weight", TORCH_BOX(&conv3x3_weight));
}
