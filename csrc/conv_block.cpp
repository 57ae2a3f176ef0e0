// fastdd::pack_filters, fastdd::conv_block and those of bfloat16 images for CPU tensors. Shapes and dtypes are checked in fastdd/ops/conv_block.py; what
// would read or write out of bounds is checked again here.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>

#include "conv_block_bf16.h"
#include "conv_block_cpu.h"
#include "scratch.h"

namespace {

using fastdd::aligned;
using fastdd::Conv3x3Call;
using fastdd::Conv3x3WeightCall;
using fastdd::ConvBlockCall;
using fastdd::Floats;
using fastdd::How;
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

How how_of_columns(int64_t columns) {
  STD_TORCH_CHECK(columns == 0 || columns == 2 || columns == 4, "tiles are of 2 or 4 columns, 0 for none, not ", columns);
  return columns == 4 ? How::tiles2x4 : columns == 2 ? How::tiles2x2 : How::direct;
}

Tensor pack_filters(const Tensor& filters_, int64_t columns) {
  const How how = how_of_columns(columns);
  const Tensor filters = torch::stable::contiguous(filters_);
  STD_TORCH_CHECK(filters.dim() == 4 && filters.size(2) == 3 && filters.size(3) == 3 && filters.scalar_type() == ScalarType::Float,
                  "filters must be float32 [O, I, 3, 3]");
  const int64_t outputs = filters.size(0), inputs = filters.size(1);
  Tensor packed = torch::stable::new_empty(filters, {FASTDD_DISPATCH(packed_size, outputs, inputs, how)});
  FASTDD_DISPATCH(pack_filters, filters.const_data_ptr<float>(), outputs, inputs, how, false, 0, inputs,
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
  call.how = fastdd::how_of_block(call.inputs, call.height, call.width, padding);
  STD_TORCH_CHECK(packed.scalar_type() == ScalarType::Float && packed.dim() == 1 &&
                      packed.size(0) == FASTDD_DISPATCH(packed_size, outputs, call.inputs, call.how),
                  "packed does not come from pack_filters for this shape");
  call.filters = packed.const_data_ptr<float>();
  call.tail.element = fastdd::Element::f32;
  call.tail.pool = parse(pool);
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
    const Floats memory = aligned(scratch);
    FASTDD_DISPATCH(conv_block_images, call, begin, end, memory.get());
  });
  return y;
}

#ifdef FASTDD_X86
void check_bf16_products() {
  STD_TORCH_CHECK(fastdd::simd() == fastdd::Simd::avx512bf16, "products of bfloat16 need a processor with AVX-512 BF16, and a",
                  " FASTDD_SIMD that leaves it");
}

Tensor pack_filters_bf16(const Tensor& filters_) {
  check_bf16_products();
  const Tensor filters = torch::stable::contiguous(filters_);
  STD_TORCH_CHECK(filters.dim() == 4 && filters.size(2) == 3 && filters.size(3) == 3 && filters.scalar_type() == ScalarType::Float,
                  "filters must be float32 [O, I, 3, 3]");
  const int64_t outputs = filters.size(0), inputs = filters.size(1);
  Tensor packed = torch::stable::new_zeros(filters, {fastdd::avx512bf16::packed_bf16_size(outputs, inputs)}, ScalarType::BFloat16);
  const int64_t columns = fastdd::avx512bf16::packed_bf16_columns(outputs), grain = inputs < 16 ? columns : 1;
  torch::stable::parallel_for(0, columns, grain, [&](int64_t begin, int64_t end) {
    fastdd::avx512bf16::pack_filters_bf16(filters.const_data_ptr<float>(), outputs, inputs, begin, end,
                                          static_cast<uint16_t*>(packed.mutable_data_ptr()));
  });
  return packed;
}

Tensor conv_block_bf16(const Tensor& x_, const Tensor& filters, const Tensor& packed_, const Tensor& weight_, const Tensor& bias_,
                       int64_t padding, double eps, std::string pool) {
  check_bf16_products();
  const Tensor x = torch::stable::contiguous(x_), packed = torch::stable::contiguous(packed_);
  const Tensor weight = torch::stable::contiguous(weight_), bias = torch::stable::contiguous(bias_);
  STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::BFloat16, "x must be bfloat16 [N, H, W, I]");
  STD_TORCH_CHECK(filters.dim() == 4 && filters.size(1) == x.size(3), "filters must be [O, I, 3, 3]");
  fastdd::ConvBlockBf16Call call{};
  const int64_t images = x.size(0);
  call.x = static_cast<const uint16_t*>(x.const_data_ptr());
  call.height = x.size(1);
  call.width = x.size(2);
  call.inputs = x.size(3);
  call.outputs = filters.size(0);
  call.padding = padding;
  call.eps = eps;
  call.pool = parse(pool);
  STD_TORCH_CHECK(padding == 1 || (padding >= 0 && !fastdd::takes_winograd(call.inputs)), "padding must be 1 from 16 channels on");
  STD_TORCH_CHECK(packed.scalar_type() == ScalarType::BFloat16 && packed.dim() == 1 &&
                      packed.size(0) == fastdd::avx512bf16::packed_bf16_size(call.outputs, call.inputs),
                  "packed does not come from pack_filters_bf16 for this shape");
  call.filters = static_cast<const uint16_t*>(packed.const_data_ptr());
  for (const Tensor* t : {&weight, &bias}) {
    STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == call.outputs && t->scalar_type() == ScalarType::Float,
                    "weight and bias must be float32 [O]");
  }
  call.weight = weight.const_data_ptr<float>();
  call.bias = bias.const_data_ptr<float>();
  const int64_t shrink = call.pool == Pool::none ? 1 : 2;
  STD_TORCH_CHECK(call.conv_height() >= shrink && call.conv_width() >= shrink, "images are too small");
  Tensor y = torch::stable::new_empty(x, {images, call.conv_height() / shrink, call.conv_width() / shrink, call.outputs});
  call.y = static_cast<uint16_t*>(y.mutable_data_ptr());
  const int64_t scratch = fastdd::avx512bf16::conv_block_bf16_scratch(call);
  torch::stable::parallel_for(0, images, 4, [&](int64_t begin, int64_t end) {
    const Floats memory = aligned(scratch);
    fastdd::avx512bf16::conv_block_bf16_images(call, begin, end, memory.get());
  });
  return y;
}
#endif

// What conv_norm_act_pool and its backward share: both convolve image after image into the core's cache.
struct Training {
  Tensor x, filters, weight, bias;
  int64_t images, outputs, shrink;
  Conv3x3Call convolution{};  // of one image
  NormActPoolCall tail{};
  Floats packed = aligned(0);
  int64_t convolved, scratch;  // floats of an image's convolution, and of what the kernels need besides

  Training(const Tensor& x_, const Tensor& filters_, const Tensor& weight_, const Tensor& bias_, const std::string& pool)
      : x(torch::stable::contiguous(x_)), filters(torch::stable::contiguous(filters_)), weight(torch::stable::contiguous(weight_)),
        bias(torch::stable::contiguous(bias_)) {
    STD_TORCH_CHECK(x.dim() == 4 && x.scalar_type() == ScalarType::Float, "x must be float32 [N, H, W, I]");
    STD_TORCH_CHECK(filters.dim() == 4 && filters.size(1) == x.size(3) && filters.size(2) == 3 && filters.size(3) == 3 &&
                        filters.scalar_type() == ScalarType::Float,
                    "filters must be float32 [O, I, 3, 3]");
    images = x.size(0);
    outputs = filters.size(0);
    convolution.images = 1;
    convolution.height = tail.height = x.size(1);
    convolution.width = tail.width = x.size(2);
    convolution.inputs = x.size(3);
    convolution.outputs = tail.channels = outputs;
    for (const Tensor* t : {&weight, &bias}) {
      STD_TORCH_CHECK(t->dim() == 1 && t->size(0) == outputs && t->scalar_type() == ScalarType::Float,
                      "weight and bias must be float32 [O]");
    }
    tail.element = fastdd::Element::f32;
    tail.pool = parse(pool);
    tail.weight = weight.const_data_ptr();
    tail.bias = bias.const_data_ptr();
    shrink = tail.pool == Pool::none ? 1 : 2;
    STD_TORCH_CHECK(tail.height >= shrink && tail.width >= shrink, "images are too small");
    convolution.how = fastdd::how_of(convolution.inputs, outputs, convolution.height, convolution.width);
    packed = aligned(FASTDD_DISPATCH(packed_size, outputs, convolution.inputs, convolution.how));
    FASTDD_DISPATCH(pack_filters, filters.const_data_ptr<float>(), outputs, convolution.inputs, convolution.how, false, 0,
                    convolution.inputs, packed.get());
    convolution.filters = packed.get();
    convolved = (tail.height * tail.width * outputs + 15) / 16 * 16;
    scratch = FASTDD_DISPATCH(conv3x3_scratch, convolution);
    if (scratch < fastdd::norm_act_pool_scratch(outputs)) scratch = fastdd::norm_act_pool_scratch(outputs);
  }

  int64_t out_size() const { return (tail.height / shrink) * (tail.width / shrink) * outputs; }

  void check_backward(const Tensor& g, const Tensor& stats) const {
    STD_TORCH_CHECK(g.dim() == 4 && g.size(0) == images && g.size(1) == tail.height / shrink && g.size(2) == tail.width / shrink &&
                        g.size(3) == outputs && g.scalar_type() == ScalarType::Float,
                    "g must have y's shape and dtype");
    STD_TORCH_CHECK(stats.dim() == 3 && stats.size(0) == images && stats.size(1) == 2 && stats.size(2) == outputs &&
                        stats.scalar_type() == ScalarType::Float,
                    "stats must be float32 [N, 2, O]");
  }

  // Convolves image n into `memory`, whose remainder is scratch; returns the call for the rest of the block.
  NormActPoolCall convolve(int64_t n, const Tensor& stats, float* memory) const {
    Conv3x3Call one = convolution;
    one.x = x.const_data_ptr<float>() + n * one.height * one.width * one.inputs;
    one.y = memory;
    FASTDD_DISPATCH(conv3x3_units, one, 0, one.units(), memory + convolved);
    NormActPoolCall rest = tail;
    rest.x = memory;
    rest.stats = const_cast<float*>(stats.const_data_ptr<float>()) + n * 2 * outputs;
    return rest;
  }

  // The gradient of image n's convolution into `memory`, in place of the convolution; the norm's, of 2 * outputs floats, to sums.
  void backward(int64_t n, const Tensor& g, const Tensor& stats, float* memory, float* sums) const {
    NormActPoolCall norm = convolve(n, stats, memory);
    norm.g = g.const_data_ptr<float>() + n * out_size();
    norm.dx = memory;
    norm.sums = sums;
    FASTDD_DISPATCH(norm_act_pool_backward_images, norm, 0, 1, memory + convolved);
  }
};

std::tuple<Tensor, Tensor> conv_norm_act_pool(const Tensor& x, const Tensor& filters, const std::optional<Tensor>&,
                                              const Tensor& weight, const Tensor& bias, double eps, std::string pool) {
  Training block(x, filters, weight, bias, pool);
  block.tail.eps = eps;
  Tensor y = torch::stable::new_empty(
      block.x, {block.images, block.tail.height / block.shrink, block.tail.width / block.shrink, block.outputs});
  Tensor stats = torch::stable::new_empty(block.x, {block.images, 2, block.outputs});
  torch::stable::parallel_for(0, block.images, 1, [&](int64_t begin, int64_t end) {
    const Floats memory = aligned(block.convolved + block.scratch);
    for (int64_t n = begin; n < end; ++n) {
      NormActPoolCall rest = block.convolve(n, stats, memory.get());
      rest.y = y.mutable_data_ptr<float>() + n * block.out_size();
      FASTDD_DISPATCH(norm_act_pool_images, rest, 0, 1, memory.get() + block.convolved);
    }
  });
  return {y, stats};
}

// The convolution is made again rather than kept: reading it from memory would take longer.
std::tuple<Tensor, Tensor, Tensor> conv_norm_act_pool_backward(const Tensor& g_, const Tensor& x, const Tensor& filters,
                                                               const Tensor& weight, const Tensor& bias, const Tensor& stats_,
                                                               std::string pool) {
  const Training block(x, filters, weight, bias, pool);
  const Tensor g = torch::stable::contiguous(g_), stats = torch::stable::contiguous(stats_);
  const int64_t outputs = block.outputs;
  block.check_backward(g, stats);
  Conv3x3WeightCall call{};
  call.images = block.images;
  call.height = block.tail.height;
  call.width = block.tail.width;
  call.inputs = block.convolution.inputs;
  call.outputs = outputs;
  STD_TORCH_CHECK(!call.winograd(), "conv_norm_act_pool_backward is for fewer than 16 input channels");
  Tensor to_weight = torch::stable::new_zeros(block.weight, {outputs}), to_bias = torch::stable::new_zeros(block.weight, {outputs});
  if (call.images * call.inputs * outputs == 0) {
    return {torch::stable::new_zeros(block.filters, {outputs, call.inputs, 3, 3}), to_weight, to_bias};
  }
  Tensor to_filters = torch::stable::new_empty(block.filters, {outputs, call.inputs, 3, 3});
  call.filters = to_filters.mutable_data_ptr<float>();
  const int64_t size = FASTDD_DISPATCH(conv3x3_weight_sums, call) / call.parts();
  const Floats sums = aligned(size * call.parts()), norm_sums = aligned(2 * outputs * call.images);
  call.sums = sums.get();
  int64_t scratch = FASTDD_DISPATCH(conv3x3_weight_scratch, call);
  if (scratch < block.scratch) scratch = block.scratch;
  torch::stable::parallel_for(0, call.parts(), 1, [&](int64_t begin, int64_t end) {
    const Floats memory = aligned(block.convolved + scratch);
    float* rest = memory.get() + block.convolved;
    for (int64_t part = begin; part < end; ++part) {
      float* own = call.sums + part * size;
      std::memset(own, 0, size * sizeof(float));
      for (int64_t n = call.part_start(part); n < call.part_start(part + 1); ++n) {
        block.backward(n, g, stats, memory.get(), norm_sums.get() + 2 * n * outputs);
        Conv3x3WeightCall one = call;
        one.images = 1;
        one.x = block.x.const_data_ptr<float>() + n * call.height * call.width * call.inputs;
        one.g = memory.get();
        FASTDD_DISPATCH(conv3x3_weight_direct, one, 0, 1, own, rest);
      }
    }
  });
  torch::stable::parallel_for(0, call.inputs, 1, [&](int64_t begin, int64_t end) {
    FASTDD_DISPATCH(conv3x3_weight_finish, call, begin, end);
  });
  for (int64_t o = 0; o < outputs; ++o) {
    double first = 0, second = 0;
    for (int64_t n = 0; n < call.images; ++n) {
      first += norm_sums.get()[2 * n * outputs + o];
      second += norm_sums.get()[(2 * n + 1) * outputs + o];
    }
    to_weight.mutable_data_ptr<float>()[o] = static_cast<float>(first);
    to_bias.mutable_data_ptr<float>()[o] = static_cast<float>(second);
  }
  return {to_filters, to_weight, to_bias};
}

// The images' gradient alone, of a block whose parameters are constants.
Tensor conv_norm_act_pool_image_gradient(const Tensor& g_, const Tensor& x, const Tensor& filters, const Tensor& weight,
                                         const Tensor& bias, const Tensor& stats_, std::string pool) {
  const Training block(x, filters, weight, bias, pool);
  const Tensor g = torch::stable::contiguous(g_), stats = torch::stable::contiguous(stats_);
  block.check_backward(g, stats);
  Conv3x3Call call = block.convolution;  // of one image
  call.inputs = block.outputs;
  call.outputs = block.convolution.inputs;
  call.how = fastdd::how_of(call.inputs, call.outputs, call.height, call.width);
  const int64_t image = call.height * call.width * call.outputs;
  Tensor to_x = torch::stable::new_empty(block.x, {block.images, call.height, call.width, call.outputs});
  if (block.images * image == 0) return to_x;
  const Floats packed = aligned(FASTDD_DISPATCH(packed_size, call.outputs, call.inputs, call.how));
  FASTDD_DISPATCH(pack_filters, block.filters.const_data_ptr<float>(), call.outputs, call.inputs, call.how, true, 0, call.inputs,
                  packed.get());
  call.filters = packed.get();
  const int64_t scratch = std::max(block.scratch, FASTDD_DISPATCH(conv3x3_scratch, call));
  const int64_t sums = (2 * block.outputs + 15) / 16 * 16;
  torch::stable::parallel_for(0, block.images, 1, [&](int64_t begin, int64_t end) {
    const Floats memory = aligned(block.convolved + scratch + sums);
    for (int64_t n = begin; n < end; ++n) {
      block.backward(n, g, stats, memory.get(), memory.get() + block.convolved + scratch);
      Conv3x3Call one = call;
      one.x = memory.get();
      one.y = to_x.mutable_data_ptr<float>() + n * image;
      FASTDD_DISPATCH(conv3x3_units, one, 0, one.units(), memory.get() + block.convolved);
    }
  });
  return to_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("pack_filters", TORCH_BOX(&pack_filters));
  m.impl("conv_block", TORCH_BOX(&conv_block));
#ifdef FASTDD_X86
  m.impl("pack_filters_bf16", TORCH_BOX(&pack_filters_bf16));
  m.impl("conv_block_bf16", TORCH_BOX(&conv_block_bf16));
#endif
  m.impl("conv_norm_act_pool", TORCH_BOX(&conv_norm_act_pool));
  m.impl("conv_norm_act_pool_backward", TORCH_BOX(&conv_norm_act_pool_backward));
  m.impl("conv_norm_act_pool_image_gradient", TORCH_BOX(&conv_norm_act_pool_image_gradient));
}
