// CPU kernels of conv_block: 3x3 convolution, instance norm, ReLU and pooling of one image after the other, free of torch.
#pragma once

#include <cstdint>

#include "norm_act_pool_cpu.h"

namespace fastdd {

struct ConvBlockCall {
  const float* x;        // [N, height, width, inputs]
  const float* filters;  // packed, see pack_filters
  int64_t height, width, inputs, padding;
  bool winograd;         // else direct
  NormActPoolCall tail;  // of the convolution's output: its x, y and stats are set image by image
  float* y;              // [N, height', width', outputs]
};

// F(2x2, 3x3) of Lavin and Gray (2016) needs padding 1 and even sides; below 16 channels its transforms cost more than they save.
inline bool takes_winograd(int64_t inputs, int64_t height, int64_t width, int64_t padding) {
  return inputs >= 16 && padding == 1 && height % 2 == 0 && width % 2 == 0;
}

}  // namespace fastdd

// Floats that the packed filters take, from [outputs, inputs, 3, 3].
FASTDD_DECLARE_VARIANTS(int64_t packed_size(int64_t outputs, int64_t inputs, bool winograd))
FASTDD_DECLARE_VARIANTS(void pack_filters(const float* filters, int64_t outputs, int64_t inputs, bool winograd, float* packed))
// Floats of scratch memory that a call of conv_block_images needs, 64-byte aligned.
FASTDD_DECLARE_VARIANTS(int64_t conv_block_scratch(const ConvBlockCall& call))
FASTDD_DECLARE_VARIANTS(void conv_block_images(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch))
