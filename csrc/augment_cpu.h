// CPU kernels of augment and augment_adjoint, free of torch.
#pragma once

#include <cstdint>

#include "segment_mean_cpu.h"
#include "simd.h"

namespace fastdd {

struct FormationCall;

struct AugmentCall {
  const void* in;         // [N, C, H, W]
  void* out;              // [N, C, H, W]
  Dtype in_dtype;         // f32, f64, bf16; u8 in augment only
  Dtype out_dtype;        // f32, f64, bf16
  const void* params;     // [R, kColumns]
  bool params_f64;
  const int64_t* rows;    // [N], or null: image i uses row i, or row 0 when there is only one
  int64_t n_rows;
  const void* normalised;     // u8 on the CPU: every normalised value, [C][256] in the computing type
  const float *mean, *std;    // u8 on the GPU: [C]
  int channels, height, width;
  bool linear;
  const FormationCall* formation;  // what decodes the images on the way (in is then null), or null
};

}  // namespace fastdd

FASTDD_DECLARE_VARIANTS(bool augment_images(const AugmentCall& call, int64_t begin, int64_t end))
FASTDD_DECLARE_VARIANTS(bool augment_adjoint_images(const AugmentCall& call, int64_t begin, int64_t end))
// Of stored images [begin, end), where the images are decoded on the way: out is of the stored ones.
FASTDD_DECLARE_VARIANTS(bool augment_stored_adjoint_images(const AugmentCall& call, int64_t begin, int64_t end))
