// A ConvNet's blocks on dual numbers for CPU tensors, all float32 [N, H, W, C], into memory that is given. Shapes and dtypes are
// checked here, against each other.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "conv3x3_run.h"
#include "dual_blocks_cpu.h"

namespace {

using fastdd::aligned;
using fastdd::Conv3x3Call;
using fastdd::Conv3x3WeightCall;
using fastdd::DualNormCall;
using fastdd::Floats;
using fastdd::packed_filters;
using fastdd::ImageGradientCall;
using fastdd::NormActPoolCall;
using fastdd::Pool;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;
using Sizes = std::initializer_list<int64_t>;

float* data(const Tensor& t, Sizes sizes) {
  bool fits = t.scalar_type() == ScalarType::Float && t.is_contiguous() && t.dim() == static_cast<int64_t>(sizes.size());
  int64_t dim = 0;
  for (const int64_t size : sizes) fits = fits && t.size(dim++) == size;
  STD_TORCH_CHECK(fits, "dual blocks take contiguous float32 tensors of shapes that fit together");
  return t.mutable_data_ptr<float>();
}

float* data(const Optional& t, Sizes sizes) { return t.has_value() ? data(*t, sizes) : nullptr; }

Pool parse(const std::string& name) {
  if (name == "avg") return Pool::avg;
  if (name == "max") return Pool::max;
  STD_TORCH_CHECK(name == "none", "pool must be avg, max or none, not ", name);
  return Pool::none;
}

void dual_conv3x3(const Tensor& x, const Optional& dx, const Tensor& filters, const Optional& dfilters, bool adjoint,
                  const Tensor& y, const Optional& dy) {
  STD_TORCH_CHECK(x.dim() == 4 && y.dim() == 4 && dfilters.has_value() == dy.has_value() && (dy.has_value() || !dx.has_value()),
                  "x and y must be [N, H, W, C], and tangents there together");
  Conv3x3Call call{};
  call.images = x.size(0);
  call.height = x.size(1);
  call.width = x.size(2);
  call.inputs = x.size(3);
  call.outputs = y.size(3);
  STD_TORCH_CHECK(fastdd::takes_winograd(call.inputs), "dual_conv3x3 takes 16 channels and more");
  const int64_t out = adjoint ? call.inputs : call.outputs, in = adjoint ? call.outputs : call.inputs;
  const Sizes input{call.images, call.height, call.width, call.inputs};
  call.x = data(x, input);
  call.dx = data(dx, input);
  call.y = data(y, {call.images, call.height, call.width, call.outputs});
  call.dy = data(dy, {call.images, call.height, call.width, call.outputs});
  const float *values = data(filters, {out, in, 3, 3}), *tangents = data(dfilters, {out, in, 3, 3});
  if (call.images * call.height * call.width * call.outputs == 0) return;
  call.how = fastdd::how_of_many(call.inputs, call.height, call.width);
  const Floats first = packed_filters(values, call.outputs, call.inputs, call.how, adjoint);
  const Floats second = tangents == nullptr ? Floats{} : packed_filters(tangents, call.outputs, call.inputs, call.how, adjoint);
  call.filters = first.get();
  call.dfilters = second.get();
  fastdd::run(call);
}

void dual_conv3x3_weight(const Tensor& x, const Optional& dx, const Tensor& g, const Optional& dg, const Tensor& out) {
  STD_TORCH_CHECK(x.dim() == 4 && g.dim() == 4 && dx.has_value() == dg.has_value(), "x and g must be [N, H, W, C]");
  Conv3x3WeightCall call = fastdd::weight_call(x, g);
  STD_TORCH_CHECK(call.winograd(), "dual_conv3x3_weight takes 16 channels and more");
  const Sizes input{call.images, call.height, call.width, call.inputs}, output{call.images, call.height, call.width, call.outputs};
  call.x = data(dx.has_value() ? *dx : x, input);
  call.g = data(g, output);
  if (dg.has_value()) {
    call.x2 = data(x, input);
    call.g2 = data(*dg, output);
  }
  call.filters = data(out, {call.outputs, call.inputs, 3, 3});
  if (call.images * call.height * call.width * call.inputs * call.outputs == 0) {
    std::fill_n(call.filters, 9 * call.inputs * call.outputs, 0.0f);  // of no size it is null, which memset must not be given
    return;
  }
  const Floats sums = aligned(FASTDD_DISPATCH(conv3x3_weight_sums, call));
  call.sums = sums.get();
  fastdd::run_winograd(call);
  fastdd::finish(call);
}

// A norm with its activation and pooling, of z [N, H, W, C] to y, and whether its tangents are asked for.
struct Norm {
  int64_t images, pixels, out_pixels;
  bool dual;
  DualNormCall call{};

  Norm(int64_t images_, int64_t height, int64_t width, const Tensor& weight, const Optional& dweight, const Tensor& bias,
       const Optional& dbias, const Tensor& y, const Optional& dy, const Tensor& stats, const Optional& dstats, const std::string& pool)
      : images(images_), pixels(height * width), dual(dy.has_value()) {
    NormActPoolCall& values = call.values;
    values.element = fastdd::Element::f32;
    values.pool = parse(pool);
    values.height = height;
    values.width = width;
    values.channels = weight.size(0);
    const int64_t shrink = values.pool == Pool::none ? 1 : 2, c = values.channels;
    STD_TORCH_CHECK(height >= shrink && width >= shrink && c > 0, "images are too small for the pooling");
    STD_TORCH_CHECK(dweight.has_value() == dual && dbias.has_value() == dual && dstats.has_value() == dual,
                    "tangents must be there together");
    out_pixels = (height / shrink) * (width / shrink);
    values.weight = data(weight, {c});
    values.bias = data(bias, {c});
    values.stats = data(stats, {images, 2, c});
    call.vw = data(dweight, {c});
    call.vb = data(dbias, {c});
    call.dual_stats = data(dstats, {images, 2, c});
    outputs = data(y, {images, height / shrink, width / shrink, c});
    dual_outputs = data(dy, {images, height / shrink, width / shrink, c});
  }

  float *outputs, *dual_outputs;  // y and its tangent, or their gradients

  int64_t scratch() const { return fastdd::norm_act_pool_scratch(call.values.channels); }

  // The same of image n alone.
  DualNormCall of(int64_t n) const {
    DualNormCall one = call;
    const int64_t c = call.values.channels;
    one.values.stats = static_cast<float*>(call.values.stats) + 2 * n * c;
    if (dual) one.dual_stats += 2 * n * c;
    return one;
  }

  void forward(DualNormCall one, const float* z, const float* dz, int64_t n, int64_t count, void* scratch) const {
    one.values.x = z;
    one.values.y = outputs + n * out_pixels * call.values.channels;
    if (!dual) return FASTDD_DISPATCH(norm_act_pool_images, one.values, 0, count, scratch);
    one.u = dz;
    one.dy = dual_outputs + n * out_pixels * call.values.channels;
    FASTDD_DISPATCH(dual_norm_images, one, 0, count, scratch);
  }

  // In place of z and its tangent.
  void backward(DualNormCall one, float* z, float* dz, int64_t n, int64_t count, float* sums, void* scratch) const {
    one.values.x = one.values.dx = z;
    one.values.g = outputs + n * out_pixels * call.values.channels;
    one.values.sums = sums + 2 * n * call.values.channels;
    if (!dual) return FASTDD_DISPATCH(norm_act_pool_backward_images, one.values, 0, count, scratch);
    one.u = one.du = dz;
    one.dg = dual_outputs + n * out_pixels * call.values.channels;
    FASTDD_DISPATCH(dual_norm_backward_images, one, 0, count, scratch);
  }

  // Sums over images, in their order.
  void finish(const float* sums, const Tensor& to_weight, const Tensor& to_bias) const {
    const int64_t c = call.values.channels;
    float* const results[2] = {data(to_weight, {c}), data(to_bias, {c})};
    for (int64_t k = 0; k < 2 * c; ++k) {
      double sum = 0;
      for (int64_t n = 0; n < images; ++n) sum += sums[2 * n * c + k];
      results[k / c][k % c] = static_cast<float>(sum);
    }
  }

  template <class Function>
  void run(Function images_of) const {
    torch::stable::parallel_for(0, images, std::max<int64_t>(1, 16384 / (pixels * call.values.channels + 1)),
                                [&](int64_t begin, int64_t end) {
                                  const Floats memory = aligned(scratch());
                                  images_of(begin, end, memory.get());
                                });
  }
};

void dual_norm_act_pool(const Tensor& z, const Optional& dz, const Tensor& weight, const Optional& dweight, const Tensor& bias,
                        const Optional& dbias, double eps, std::string pool, const Tensor& y, const Optional& dy,
                        const Tensor& stats, const Optional& dstats) {
  STD_TORCH_CHECK(z.dim() == 4 && dz.has_value() == dy.has_value(), "z must be [N, H, W, C]");
  Norm norm(z.size(0), z.size(1), z.size(2), weight, dweight, bias, dbias, y, dy, stats, dstats, pool);
  norm.call.values.eps = eps;
  const Sizes sizes{norm.images, z.size(1), z.size(2), norm.call.values.channels};
  const float *values = data(z, sizes), *tangents = data(dz, sizes);
  const int64_t image = norm.pixels * norm.call.values.channels;
  norm.run([&](int64_t begin, int64_t end, float* scratch) {
    for (int64_t n = begin; n < end; ++n) {
      norm.forward(norm.of(n), values + n * image, norm.dual ? tangents + n * image : nullptr, n, 1, scratch);
    }
  });
}

void dual_norm_act_pool_backward(const Tensor& g, const Optional& dg, const Tensor& z, const Optional& dz, const Tensor& weight,
                                 const Optional& dweight, const Tensor& bias, const Optional& dbias, std::string pool,
                                 const Tensor& stats, const Optional& dstats, const Tensor& to_weight, const Tensor& to_bias) {
  STD_TORCH_CHECK(z.dim() == 4 && dz.has_value() == dg.has_value(), "z must be [N, H, W, C]");
  const Norm norm(z.size(0), z.size(1), z.size(2), weight, dweight, bias, dbias, g, dg, stats, dstats, pool);
  const Sizes sizes{norm.images, z.size(1), z.size(2), norm.call.values.channels};
  float *values = data(z, sizes), *tangents = data(dz, sizes);
  const int64_t image = norm.pixels * norm.call.values.channels;
  const Floats sums = aligned(norm.images * 2 * norm.call.values.channels);
  norm.run([&](int64_t begin, int64_t end, float* scratch) {
    for (int64_t n = begin; n < end; ++n) {
      norm.backward(norm.of(n), values + n * image, norm.dual ? tangents + n * image : nullptr, n, 1, sums.get(), scratch);
    }
  });
  norm.finish(sums.get(), to_weight, to_bias);
}

// The first block, whose images have few channels and no tangent: its convolutions stay in the core's cache, image by image, and
// are made again on the way back, which takes less time than reading them from memory.
struct First {
  Conv3x3Call convolution{};  // of one image
  const float *x, *filters, *dfilters;
  Floats values, tangents;
  int64_t convolved;  // floats of an image's convolution

  First(const Tensor& images, const Tensor& filters_, const Optional& dfilters_) {
    STD_TORCH_CHECK(images.dim() == 4 && filters_.dim() == 4, "x must be [N, H, W, C] and filters [O, I, 3, 3]");
    convolution.images = 1;
    convolution.height = images.size(1);
    convolution.width = images.size(2);
    convolution.inputs = images.size(3);
    convolution.outputs = filters_.size(0);
    STD_TORCH_CHECK(!fastdd::takes_winograd(convolution.inputs) && convolution.inputs > 0,
                    "the first block takes fewer than 16 channels");
    x = data(images, {images.size(0), images.size(1), images.size(2), images.size(3)});
    filters = data(filters_, {convolution.outputs, convolution.inputs, 3, 3});
    dfilters = data(dfilters_, {convolution.outputs, convolution.inputs, 3, 3});
    convolution.how = fastdd::How::direct;
    values = packed_filters(filters, convolution.outputs, convolution.inputs, convolution.how, false);
    if (dfilters != nullptr) {
      tangents = packed_filters(dfilters, convolution.outputs, convolution.inputs, convolution.how, false);
    }
    convolved = (convolution.height * convolution.width * convolution.outputs + 15) / 16 * 16;
  }

  int64_t image() const { return convolution.height * convolution.width * convolution.inputs; }
  int64_t scratch() const { return FASTDD_DISPATCH(conv3x3_scratch, convolution); }

  // Image n into memory, its convolution and the tangent's behind it.
  void convolve(int64_t n, float* memory, float* scratch) const {
    Conv3x3Call one = convolution;
    one.x = x + n * image();
    one.y = memory;
    one.filters = values.get();
    FASTDD_DISPATCH(conv3x3_units, one, 0, one.units(), scratch);
    if (dfilters == nullptr) return;
    one.y = memory + convolved;
    one.filters = tangents.get();
    FASTDD_DISPATCH(conv3x3_units, one, 0, one.units(), scratch);
  }
};

void dual_first_block(const Tensor& x, const Tensor& filters, const Optional& dfilters, const Tensor& weight,
                      const Optional& dweight, const Tensor& bias, const Optional& dbias, double eps, std::string pool,
                      const Tensor& y, const Optional& dy, const Tensor& stats, const Optional& dstats) {
  const First first(x, filters, dfilters);
  STD_TORCH_CHECK(dfilters.has_value() == dy.has_value() && weight.size(0) == first.convolution.outputs, "tangents must be there together");
  Norm norm(x.size(0), x.size(1), x.size(2), weight, dweight, bias, dbias, y, dy, stats, dstats, pool);
  norm.call.values.eps = eps;
  const int64_t scratch = std::max(first.scratch(), norm.scratch());
  torch::stable::parallel_for(0, norm.images, 1, [&](int64_t begin, int64_t end) {
    const Floats memory = aligned((norm.dual ? 2 : 1) * first.convolved + scratch);
    float *tangents = memory.get() + first.convolved, *rest = norm.dual ? tangents + first.convolved : tangents;
    for (int64_t n = begin; n < end; ++n) {
      first.convolve(n, memory.get(), rest);
      norm.forward(norm.of(n), memory.get(), tangents, n, 1, rest);
    }
  });
}

void dual_first_block_backward(const Tensor& g, const Optional& dg, const Tensor& x, const Tensor& filters,
                               const Optional& dfilters, const Tensor& weight, const Optional& dweight, const Tensor& bias,
                               const Optional& dbias, std::string pool, const Tensor& stats, const Optional& dstats,
                               const Optional& to_x, const Optional& to_filters, const Tensor& to_weight, const Tensor& to_bias) {
  const First first(x, filters, dfilters);
  STD_TORCH_CHECK(dfilters.has_value() == dg.has_value() && (dg.has_value() || !to_x.has_value()) &&
                      weight.size(0) == first.convolution.outputs,
                  "tangents must be there together");
  const Norm norm(x.size(0), x.size(1), x.size(2), weight, dweight, bias, dbias, g, dg, stats, dstats, pool);
  const int64_t inputs = first.convolution.inputs, outputs = first.convolution.outputs;
  Conv3x3WeightCall call{};
  call.images = norm.images;
  call.height = x.size(1);
  call.width = x.size(2);
  call.inputs = inputs;
  call.outputs = outputs;
  call.filters = data(to_filters, {outputs, inputs, 3, 3});
  ImageGradientCall image{call.height, call.width, inputs, outputs, nullptr, nullptr, nullptr, nullptr, nullptr};
  float* to_images = data(to_x, {norm.images, call.height, call.width, inputs});
  Floats taps, dtaps;
  if (to_images != nullptr) {
    taps = aligned(FASTDD_DISPATCH(taps_size, outputs, inputs));
    dtaps = aligned(FASTDD_DISPATCH(taps_size, outputs, inputs));
    FASTDD_DISPATCH(pack_taps, first.filters, outputs, inputs, taps.get());
    FASTDD_DISPATCH(pack_taps, first.dfilters, outputs, inputs, dtaps.get());
    image.taps = taps.get();
    image.dtaps = dtaps.get();
  }
  if (norm.images == 0) {
    if (call.filters != nullptr) std::memset(call.filters, 0, 9 * inputs * outputs * sizeof(float));
    return norm.finish(nullptr, to_weight, to_bias);
  }
  const int64_t size = FASTDD_DISPATCH(conv3x3_weight_sums, call) / call.parts();
  const Floats sums = aligned(size * call.parts()), norm_sums = aligned(2 * outputs * norm.images);
  call.sums = sums.get();
  int64_t scratch = std::max(first.scratch(), norm.scratch());
  scratch = std::max({scratch, FASTDD_DISPATCH(conv3x3_weight_scratch, call), FASTDD_DISPATCH(image_gradient_scratch, image)});
  torch::stable::parallel_for(0, call.parts(), 1, [&](int64_t begin, int64_t end) {
    const Floats memory = aligned((norm.dual ? 2 : 1) * first.convolved + scratch);
    float *tangents = memory.get() + first.convolved, *rest = norm.dual ? tangents + first.convolved : tangents;
    for (int64_t part = begin; part < end; ++part) {
      float* own = call.sums + part * size;
      std::memset(own, 0, size * sizeof(float));
      for (int64_t n = call.part_start(part); n < call.part_start(part + 1); ++n) {
        first.convolve(n, memory.get(), rest);
        norm.backward(norm.of(n), memory.get(), tangents, n, 1, norm_sums.get(), rest);
        if (call.filters != nullptr) {
          Conv3x3WeightCall one = call;
          one.images = 1;
          one.x = first.x + n * first.image();
          one.g = norm.dual ? tangents : memory.get();
          FASTDD_DISPATCH(conv3x3_weight_direct, one, 0, 1, own, rest);
        }
        if (to_images != nullptr) {
          ImageGradientCall one = image;
          one.g = memory.get();
          one.dg = tangents;
          one.to_x = to_images + n * first.image();
          FASTDD_DISPATCH(image_gradient, one, rest);
        }
      }
    }
  });
  if (call.filters != nullptr) {
    torch::stable::parallel_for(0, inputs, 1, [&](int64_t begin, int64_t end) {
      FASTDD_DISPATCH(conv3x3_weight_finish, call, begin, end);
    });
  }
  norm.finish(norm_sums.get(), to_weight, to_bias);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("dual_conv3x3", TORCH_BOX(&dual_conv3x3));
  m.impl("dual_conv3x3_weight", TORCH_BOX(&dual_conv3x3_weight));
  m.impl("dual_norm_act_pool", TORCH_BOX(&dual_norm_act_pool));
  m.impl("dual_norm_act_pool_backward", TORCH_BOX(&dual_norm_act_pool_backward));
  m.impl("dual_first_block", TORCH_BOX(&dual_first_block));
  m.impl("dual_first_block_backward", TORCH_BOX(&dual_first_block_backward));
}
