#pragma once
// Whole 3x3 convolutions, in parallel: what fastdd::conv3x3 and a ConvNet's blocks on dual numbers share.
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "conv3x3_cpu.h"
#include "scratch.h"

namespace fastdd {

// Units of work that are worth waking a thread: about 100,000 multiplications.
inline int64_t grain(int64_t multiplications) { return 1 + 100000 / (multiplications + 1); }

// The filters as the kernels take them, for as many inputs as x has channels.
inline Floats packed_filters(const float* filters, int64_t outputs, int64_t inputs, How how, bool adjoint) {
  Floats packed = aligned(FASTDD_DISPATCH(packed_size, outputs, inputs, how));
  torch::stable::parallel_for(0, inputs, grain(100 * outputs), [&](int64_t begin, int64_t end) {
    FASTDD_DISPATCH(pack_filters, filters, outputs, inputs, how, adjoint, begin, end, packed.get());
  });
  return packed;
}

// y, and dy where it is asked for.
inline void run(const Conv3x3Call& call) {
  const int64_t scratch = FASTDD_DISPATCH(conv3x3_scratch, call);
  torch::stable::parallel_for(0, call.units(), grain(4 * call.width * call.inputs * call.outputs), [&](int64_t begin, int64_t end) {
    const Floats memory = aligned(scratch);
    FASTDD_DISPATCH(conv3x3_units, call, begin, end, memory.get());
  });
}

// The gradient of filters between x [N, H, W, I] and g [N, H, W, O], of which the sizes are there.
inline Conv3x3WeightCall weight_call(const torch::stable::Tensor& x, const torch::stable::Tensor& g) {
  Conv3x3WeightCall call{};
  call.images = x.size(0);
  call.height = x.size(1);
  call.width = x.size(2);
  call.inputs = x.size(3);
  call.outputs = g.size(3);
  return call;
}

// The sums of a filters' gradient by Winograd, of which finish() makes the filters.
inline void run_winograd(const Conv3x3WeightCall& call) {
  const int64_t scratch = FASTDD_DISPATCH(conv3x3_weight_scratch, call), pixels = call.images * call.height * call.width;
  const int64_t work = 4 * pixels * call.inputs * call.outputs / call.units();
  torch::stable::parallel_for(0, call.units(), grain(work), [&](int64_t begin, int64_t end) {
    const Floats memory = aligned(scratch);
    FASTDD_DISPATCH(conv3x3_weight_winograd, call, begin, end, memory.get());
  });
}

inline void finish(const Conv3x3WeightCall& call) {
  torch::stable::parallel_for(0, call.inputs, grain(100 * call.outputs),
                              [&](int64_t begin, int64_t end) { FASTDD_DISPATCH(conv3x3_weight_finish, call, begin, end); });
}

}  // namespace fastdd
