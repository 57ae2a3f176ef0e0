// conv_block of bfloat16 images on products of bfloat16 (AVX-512 BF16), free of torch. There is no other build of it.
#pragma once

#include <cstdint>

#include "conv3x3_cpu.h"
#include "norm_act_pool_cpu.h"

namespace fastdd {

// bfloat16 as its bits.
struct ConvBlockBf16Call {
  const uint16_t* x;        // [N, height, width, inputs]
  const uint16_t* filters;  // from pack_filters_bf16
  int64_t height, width, inputs, outputs, padding;
  Pool pool;
  double eps;
  const float *weight, *bias;  // [outputs]
  uint16_t* y;                 // [N, height', width', outputs]

  int64_t conv_height() const { return height + 2 * padding - 2; }
  int64_t conv_width() const { return width + 2 * padding - 2; }
  int64_t out_pixels() const {
    return pool == Pool::none ? conv_height() * conv_width() : (conv_height() / 2) * (conv_width() / 2);
  }
};

namespace avx512bf16 {

// bfloat16 numbers that the packed filters take.
int64_t packed_bf16_size(int64_t outputs, int64_t inputs);
// Columns of 16 filters that pack_filters_bf16 goes by.
int64_t packed_bf16_columns(int64_t outputs);
// Columns [begin, end), from [outputs, inputs, 3, 3] to what was all zeros before.
void pack_filters_bf16(const float* filters, int64_t outputs, int64_t inputs, int64_t begin, int64_t end, uint16_t* packed);
// Floats of scratch memory that a call of conv_block_bf16_images needs, 64-byte aligned.
int64_t conv_block_bf16_scratch(const ConvBlockBf16Call& call);
void conv_block_bf16_images(const ConvBlockBf16Call& call, int64_t begin, int64_t end, float* scratch);

}  // namespace avx512bf16
}  // namespace fastdd
