// CPU kernels of norm_act_pool, its backward and its double backward, free of torch.
#pragma once

#include <cstdint>

#include "simd.h"

namespace fastdd {

enum class Pool : int { none, avg, max };
enum class Element : int { f32, f64, bf16 };

// Arrays are [image, height, width, channel], `stats` is [image, 2, channel] (mean, 1 / standard deviation); stats, weights,
// biases and sums are f64 for f64 images and f32 otherwise. What a function does not use is null.
struct NormActPoolCall {
  Element element;
  Pool pool;
  int64_t height, width, channels;
  double eps;
  const void *x, *weight, *bias;
  void* stats;          // written by the forward pass
  void* y;              // forward: [N, height', width', C]
  const void* g;        // backward: gradient of y
  void* dx;             // backward: gradient of x; double backward: the second one
  void* sums;           // backward: [N, 2, C], sums of G xh and of G; double backward: [N, C], shares of the weight's gradient
  const void *u, *vw, *vb;  // double backward: gradients of dx, of the weight's and of the bias's
  void* dg;             // double backward: gradient of g
};

// Elements of the accumulation type that each call of the functions below may scribble on.
inline int64_t norm_act_pool_scratch(int64_t channels) { return 17 * ((channels + 15) / 16 * 16); }

}  // namespace fastdd

FASTDD_DECLARE_VARIANTS(void norm_act_pool_images(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch))
FASTDD_DECLARE_VARIANTS(void norm_act_pool_backward_images(const NormActPoolCall& call, int64_t begin, int64_t end,
                                                           void* scratch))
FASTDD_DECLARE_VARIANTS(void norm_act_pool_double_backward_images(const NormActPoolCall& call, int64_t begin, int64_t end,
                                                                  void* scratch))
