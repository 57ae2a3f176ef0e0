// CPU kernels of conv_block: 3x3 convolution, instance norm, ReLU and pooling of one image after the other, free of torch.
#pragma once

#include <cstdint>

#include "conv3x3_cpu.h"
#include "norm_act_pool_cpu.h"

namespace fastdd {

struct ConvBlockCall {
  const float* x;        // [N, height, width, inputs]
  const float* filters;  // from pack_filters
  int64_t height, width, inputs, padding;
  How how;
  NormActPoolCall tail;  // of the convolution's output: its x, y and stats are set image by image
  float* y;              // [N, height', width', outputs]
};

// Directly where the padding is not that of the tiles.
inline How how_of_block(int64_t inputs, int64_t height, int64_t width, int64_t padding) {
  return padding == 1 ? how_of_many(inputs, height, width) : How::direct;
}

}  // namespace fastdd

// Floats of scratch memory that a call of conv_block_images needs, 64-byte aligned.
FASTDD_DECLARE_VARIANTS(int64_t conv_block_scratch(const ConvBlockCall& call))
FASTDD_DECLARE_VARIANTS(void conv_block_images(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch))
