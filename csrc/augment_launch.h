// Launches of the CUDA kernels in augment.cu, free of torch and CUDA types. Each returns a cudaError_t, 0 on success.
#pragma once

#include <cstdint>

#include "augment_cpu.h"

namespace fastdd {

// `call` holds device pointers.
int augment_launch(const AugmentCall& call, int64_t images, void* stream);
int augment_adjoint_launch(const AugmentCall& call, int64_t images, void* stream);
const char* cuda_error(int code);

}  // namespace fastdd
