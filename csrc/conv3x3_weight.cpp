// fastdd::conv3x3_weight for CPU tensors, [N, H, W, C]. Shapes and dtypes are checked in fastdd/ops/conv3x3.py; what would read or
// write out of bounds is checked again here.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>

#include "conv3x3_run.h"

namespace {

using fastdd::aligned;
using fastdd::Conv3x3WeightCall;
using fastdd::Floats;
using fastdd::grain;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor conv3x3_weight(const Tensor& x_, const Tensor& g_) {
  const Tensor x = torch::stable::contiguous(x_), g = torch::stable::contiguous(g_);
  STD_TORCH_CHECK(x.dim() == 4 && g.dim() == 4 && x.size(0) == g.size(0) && x.size(1) == g.size(1) && x.size(2) == g.size(2) &&
                      x.scalar_type() == ScalarType::Float && g.scalar_type() == ScalarType::Float,
                  "x and g must be float32 [N, H, W, I] and [N, H, W, O]");
  Conv3x3WeightCall call = fastdd::weight_call(x, g);
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
  m.impl("conv3x3_weight", TORCH_BOX(&conv3x3_weight));
}
