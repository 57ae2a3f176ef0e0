// fastdd::pack_filters and fastdd::conv_block for CPU tensors. Shapes and dtypes are checked in fastdd/ops/conv_block.py; what
// would read or write out of bounds is checked again here.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <memory>
#include <new>
#include <string>

#include "conv_block_cpu.h"

namespace {

using fastdd::ConvBlockCall;
using fastdd::Pool;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor pack_filters(const Tensor& filters_, bool winograd) {
  const Tensor filters = torch::stable::contiguous(filters_);
  STD_TORCH_CHECK(filters.dim() == 4 && filters.size(2) == 3 && filters.size(3) == 3 && filters.scalar_type() == ScalarType::Float,
                  "filters must be float32 [O, I, 3, 3]");
  const int64_t outputs = filters.size(0), inputs = filters.size(1);
  Tensor packed = torch::stable::new_empty(filters, {FASTDD_DISPATCH(packed_size, outputs, inputs, winograd)});
  FASTDD_DISPATCH(pack_filters, filters.const_data_ptr<float>(), outputs, inputs, winograd, false, 0, inputs,
                  packed.mutable_data_ptr<float>());
  return packed;
}

Tensor conv_block(const Tensor& x_, const Tensor& filters, const Tensor& packed_, const Tensor& weight_, const Tensor& bias_,
                  int64_t padding, double eps, std::string pool) {
  const Tensor x = torch::stable::contiguous(x_), packed = torch::stable::contiguous(packed_);
  const Tensor weight = torch::stable::contiguous(weight_), bias = torch::stable::contiguous(bias_);
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::Float, "x must be float32 [N, H, W, I]");
  STD_TORCH_CHECK(filters.dim() == 4 && filters.size(1) == x.size(3), "filters must be [O, I, 3, 3]");
  ConvBlockCall call{};
  const int64_t images = x.size(0), outputs = filters.size(0);
  call.x = x.const_data_ptr<float>();
  call.height = x.size(1);
  call.width = x.size(2);
  call.inputs = x.size(3);
  call.padding = padding;
  call.winograd = fastdd::conv_block_takes_winograd(call.inputs, call.height, call.width, padding);
  STD_TORCH_CHECK(packed.scalar_type() == ScalarType::Float && packed.dim() == 1 &&
                      packed.size(0) == FASTDD_DISPATCH(packed_size, outputs, call.inputs, call.winograd),
                  "packed does not come from pack_filters for this shape");
  call.filters = packed.const_data_ptr<float>();
  call.tail.element = fastdd::Element::f32;
  call.tail.pool = pool == "avg" ? Pool::avg : pool == "max" ? Pool::max : Pool::none;
  call.tail.height = call.height + 2 * padding - 2;
  call.tail.width = call.width + 2 * padding - 2;
  call.tail.channels = outputs;
  call.tail.eps = eps;
  for (const Tensor* t : {&weight, &bias}) {
    STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == outputs && t->scalar_type() == ScalarType::Float,
                    "weight and bias must be float32 [O]");
  }
  call.tail.weight = weight.const_data_ptr();
  call.tail.bias = bias.const_data_ptr();
  const int64_t shrink = call.tail.pool == Pool::none ? 1 : 2;
  STD_TORCH_CHECK(padding >= 0 && call.tail.height >= shrink && call.tail.width >= shrink, "images are too small");
  Tensor y = torch::stable::new_empty(x, {images, call.tail.height / shrink, call.tail.width / shrink, outputs});
  call.y = y.mutable_data_ptr<float>();
  const int64_t scratch = FASTDD_DISPATCH(conv_block_scratch, call);
  torch::stable::parallel_for(0, images, 4, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<float, void (*)(float*)> memory(
        static_cast<float*>(::operator new(scratch * sizeof(float), std::align_val_t(64))),
        [](float* p) { ::operator delete(p, std::align_val_t(64)); });
    FASTDD_DISPATCH(conv_block_images, call, begin, end, memory.get());
  });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("pack_filters", TORCH_BOX(&pack_filters));
  m.impl("conv_block", TORCH_BOX(&conv_block));
}
