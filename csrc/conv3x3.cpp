// fastdd::conv3x3 for CPU tensors, [N, H, W, C]. Shapes and dtypes are checked in
// fastdd/ops/conv3x3.py; what would read or write out of bounds is checked again here.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "conv3x3_run.h"

namespace {

using fastdd::Conv3x3Call;
using fastdd::Floats;
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

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&conv3x3));
}
