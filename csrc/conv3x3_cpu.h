// CPU kernels of conv3x3 and conv3x3_weight, and the filters that they and conv_block read, free of torch.
#pragma once

#include <cstdint>

#include "simd.h"

namespace fastdd {

// Below 16 channels the transforms of Winograd's convolutions (Lavin and Gray 2016) cost more than they save.
inline bool takes_winograd(int64_t inputs) { return inputs >= 16; }

// How a convolution is computed: directly; by Winograd's tiles of 2x2 or 2x4 pixels; or, of few outputs, as a product of every
// pixel with the taps of all outputs, whose results its neighbours gather. The gradient of the filters: directly or by tiles.
enum class How : int { direct, gathered, tiles2x2, tiles2x4, tiles4x4 };

// Of many outputs, or with a tangent. Wide tiles where their transforms cost less than they save, as do the parts of them that stick
// out of the image, and where the image has more than its edges, at which a direct convolution sums, and rounds, less.
inline How how_of_many(int64_t inputs, int64_t height, int64_t width) {
  if (!takes_winograd(inputs)) return How::direct;
  const int64_t wide = 24 * ((width + 3) / 4), narrow = 16 * ((width + 1) / 2);
  return inputs >= 64 && height >= 7 && width >= 7 && 10 * wide <= 9 * narrow ? How::tiles2x4 : How::tiles2x2;
}

// Below 8 outputs the 9 taps of all are at most 63 columns of a product, where tiles would fill half of one panel with nothing.
inline How how_of(int64_t inputs, int64_t outputs, int64_t height, int64_t width) {
  return takes_winograd(inputs) && outputs < 8 ? How::gathered : how_of_many(inputs, height, width);
}

// y = conv(x, filters) + bias with stride 1 and padding 1. Its unit of work is a row of y, or a row of tiles. With tiles it also makes
// the tangent dy = conv(dx, filters) + conv(x, dfilters), which shares the transforms of x and of the sum.
struct Conv3x3Call {
  int64_t images, height, width, inputs, outputs;
  How how;
  const float* x;        // [images, height, width, inputs]
  const float* filters;  // from pack_filters
  const float* bias;     // [outputs] or null
  float* y;              // [images, height, width, outputs]
  const float *dx, *dfilters;  // of the tangent: x's and the filters', packed alike; dx may be null for zeros
  float* dy;                   // null without one

  int64_t units() const {
    return images * (how == How::tiles2x2 || how == How::tiles2x4 ? (height + 1) / 2 : height);
  }
};

// Of the filters' gradient. Sums of few pixels, as plain PyTorch makes them too, lose fewer digits than tiles of 4x4 cost: with 2,048
// and more these stay below 1.3 times its error, and fall (docs/performance.md).
inline How how_of_weights(int64_t images, int64_t inputs, int64_t height, int64_t width) {
  if (!takes_winograd(inputs)) return How::direct;
  if (inputs < 64 || height < 7 || width < 7) return How::tiles2x2;
  return images * height * width >= 2048 ? How::tiles4x4 : How::tiles2x4;
}

// The gradient of the filters. With Winograd, `sums` of the products of both transformed sides, frequency by frequency; directly,
// of parts of the images. A fixed order of additions either way, whoever does them.
struct Conv3x3WeightCall {
  int64_t images, height, width, inputs, outputs;
  const float* x;  // [images, height, width, inputs]
  const float* g;  // [images, height, width, outputs]
  float* sums;
  float* filters;  // [outputs, inputs, 3, 3], written
  const float *x2, *g2;  // with Winograd, a second pair whose gradient is added; or null

  How how() const { return how_of_weights(images, inputs, height, width); }
  bool winograd() const { return takes_winograd(inputs); }
  // Of work with Winograd: a row of frequencies, of some of the inputs.
  static constexpr int64_t kUnitInputs = 64;
  int64_t units() const { return (how() == How::tiles4x4 ? 6 : 4) * ((inputs + kUnitInputs - 1) / kUnitInputs); }
  int64_t parts() const { return images < 16 ? images : 16; }
  int64_t part_start(int64_t part) const { return part * images / parts(); }
};

}  // namespace fastdd

// Floats that the packed filters take.
FASTDD_DECLARE_VARIANTS(int64_t packed_size(int64_t outputs, int64_t inputs, How how))
// Input channels [begin, end) of the packed filters; [outputs, inputs, 3, 3], or, for the adjoint, [inputs, outputs, 3, 3].
FASTDD_DECLARE_VARIANTS(void pack_filters(const float* filters, int64_t outputs, int64_t inputs, How how, bool adjoint,
                                          int64_t begin, int64_t end, float* packed))
// Floats of scratch memory that a call of conv3x3_units needs, 64-byte aligned.
FASTDD_DECLARE_VARIANTS(int64_t conv3x3_scratch(const Conv3x3Call& call))
FASTDD_DECLARE_VARIANTS(void conv3x3_units(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch))
// Floats of `sums`.
FASTDD_DECLARE_VARIANTS(int64_t conv3x3_weight_sums(const Conv3x3WeightCall& call))
// Floats of scratch memory that a call of either function below needs, 64-byte aligned.
FASTDD_DECLARE_VARIANTS(int64_t conv3x3_weight_scratch(const Conv3x3WeightCall& call))
// Winograd: the sums of units [begin, end).
FASTDD_DECLARE_VARIANTS(void conv3x3_weight_winograd(const Conv3x3WeightCall& call, int64_t begin, int64_t end, float* scratch))
// Direct: adds images [begin, end) to one part's sums.
FASTDD_DECLARE_VARIANTS(void conv3x3_weight_direct(const Conv3x3WeightCall& call, int64_t begin, int64_t end, float* sums,
                                                   float* scratch))
// Input channels [begin, end) of the result, from the sums.
FASTDD_DECLARE_VARIANTS(void conv3x3_weight_finish(const Conv3x3WeightCall& call, int64_t begin, int64_t end))
