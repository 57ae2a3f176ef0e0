// CPU kernels of conv3x3 and conv3x3_weight, and the filters that they and conv_block read, free of torch.
#pragma once

#include <cstdint>

#include "simd.h"

namespace fastdd {

// Below 16 channels the transforms of Winograd's F(2x2, 3x3) (Lavin and Gray 2016) cost more than they save.
inline bool takes_winograd(int64_t inputs) { return inputs >= 16; }

// y = conv(x, filters) + bias with stride 1 and padding 1. Its unit of work is a row of y, or a row of 2x2 tiles.
struct Conv3x3Call {
  int64_t images, height, width, inputs, outputs;
  const float* x;        // [images, height, width, inputs]
  const float* filters;  // from pack_filters
  const float* bias;     // [outputs] or null
  float* y;              // [images, height, width, outputs]

  int64_t units() const { return images * (takes_winograd(inputs) ? (height + 1) / 2 : height); }
};

// The gradient of the filters. With Winograd, block after block of rows of tiles: both sides transformed, then multiplied into
// `sums`. Directly, `sums` of parts of the images. A fixed order of additions either way, whoever does them.
struct Conv3x3WeightCall {
  int64_t images, height, width, inputs, outputs;
  const float* x;  // [images, height, width, inputs]
  const float* g;  // [images, height, width, outputs]
  float* v;        // transformed rows of x
  float* u;        // transformed rows of g
  float* sums;
  float* filters;  // [outputs, inputs, 3, 3], written

  bool winograd() const { return takes_winograd(inputs); }
  int64_t tile_columns() const { return (width + 1) / 2; }
  int64_t tile_rows() const { return images * ((height + 1) / 2); }
  // About 256 tiles a block: a slice of one frequency of both sides stays in the core's cache.
  int64_t block_rows() const {
    const int64_t rows = 256 / tile_columns() > 0 ? 256 / tile_columns() : 1;
    return rows < tile_rows() ? rows : tile_rows();
  }
  int64_t parts() const { return images < 16 ? images : 16; }
  int64_t part_start(int64_t part) const { return part * images / parts(); }
};

struct Conv3x3WeightSizes {
  int64_t v, u, sums;  // floats
};

}  // namespace fastdd

// Floats that the packed filters take.
FASTDD_DECLARE_VARIANTS(int64_t packed_size(int64_t outputs, int64_t inputs, bool winograd))
// Input channels [begin, end) of the packed filters; [outputs, inputs, 3, 3], or, for the adjoint, [inputs, outputs, 3, 3].
FASTDD_DECLARE_VARIANTS(void pack_filters(const float* filters, int64_t outputs, int64_t inputs, bool winograd, bool adjoint,
                                          int64_t begin, int64_t end, float* packed))
// Floats of scratch memory that a call of conv3x3_units needs, 64-byte aligned.
FASTDD_DECLARE_VARIANTS(int64_t conv3x3_scratch(const Conv3x3Call& call))
FASTDD_DECLARE_VARIANTS(void conv3x3_units(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch))
FASTDD_DECLARE_VARIANTS(Conv3x3WeightSizes conv3x3_weight_sizes(const Conv3x3WeightCall& call))
// Winograd: rows [begin, end) of the block of tile rows that starts at `first`.
FASTDD_DECLARE_VARIANTS(void conv3x3_weight_transform(const Conv3x3WeightCall& call, int64_t first, int64_t begin, int64_t end))
// Winograd: products [begin, end) of conv3x3_weight_products_count of a block of `rows` tile rows.
FASTDD_DECLARE_VARIANTS(int64_t conv3x3_weight_products_count(const Conv3x3WeightCall& call))
FASTDD_DECLARE_VARIANTS(void conv3x3_weight_products(const Conv3x3WeightCall& call, int64_t rows, bool add, int64_t begin, int64_t end))
// Direct: adds images [begin, end) to one part's sums.
FASTDD_DECLARE_VARIANTS(int64_t conv3x3_weight_scratch(const Conv3x3WeightCall& call))
FASTDD_DECLARE_VARIANTS(void conv3x3_weight_direct(const Conv3x3WeightCall& call, int64_t begin, int64_t end, float* sums,
                                                   float* scratch))
// Input channels [begin, end) of the result, from the sums.
FASTDD_DECLARE_VARIANTS(void conv3x3_weight_finish(const Conv3x3WeightCall& call, int64_t begin, int64_t end))
