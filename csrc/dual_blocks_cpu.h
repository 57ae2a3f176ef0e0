// CPU kernels of a ConvNet's blocks on dual numbers, values with their tangents, free of torch. The convolutions of many channels
// are conv3x3_cpu.h's.
#pragma once

#include <cstdint>

#include "norm_act_pool_cpu.h"

namespace fastdd {

// norm_act_pool and its backward on float32 values with tangents. Of `values`, x, weight, bias, eps, stats, y (forward) and g, dx,
// sums (backward) are used; dx may be x itself, and the tangent's du u itself. `sums` [N, 2, C] are the tangents of the weight's
// and of the bias's gradients.
struct DualNormCall {
  NormActPoolCall values;
  const float *u, *vw, *vb;  // tangents of x, weight and bias
  float* dual_stats;         // [N, 2, C], means of u and of u (x - mean) / standard deviation; written by the forward pass
  float* dy;                 // forward: y's tangent
  const float* dg;           // backward: g's tangent
  float* du;                 // backward: the tangent of x's gradient
};

// The gradient of an image [height, width, inputs] of few channels, from that of its convolution and its tangent: to_x =
// adjoint(dg, filters) + adjoint(g, dfilters), of filters that pack_taps has packed.
struct ImageGradientCall {
  int64_t height, width, inputs, outputs;
  const float *g, *dg;  // [height, width, outputs]
  const float *taps, *dtaps;
  float* to_x;
};

}  // namespace fastdd

FASTDD_DECLARE_VARIANTS(void dual_norm_images(const DualNormCall& call, int64_t begin, int64_t end, void* scratch))
FASTDD_DECLARE_VARIANTS(void dual_norm_backward_images(const DualNormCall& call, int64_t begin, int64_t end, void* scratch))
// Floats that the packed taps of filters [outputs, inputs, 3, 3] take.
FASTDD_DECLARE_VARIANTS(int64_t taps_size(int64_t outputs, int64_t inputs))
FASTDD_DECLARE_VARIANTS(void pack_taps(const float* filters, int64_t outputs, int64_t inputs, float* packed))
// Floats of scratch memory that a call of image_gradient needs, 64-byte aligned.
FASTDD_DECLARE_VARIANTS(int64_t image_gradient_scratch(const ImageGradientCall& call))
FASTDD_DECLARE_VARIANTS(void image_gradient(const ImageGradientCall& call, float* scratch))
