// Launches of the CUDA kernels in formation.cu, free of torch and CUDA types. Each returns a cudaError_t, 0 on success.
#pragma once

#include <cstdint>

#include "formation_cpu.h"

namespace fastdd {

// `call` holds device pointers, and no tables; n is the number of decoded images.
int formation_launch(const FormationCall& call, int64_t n, void* stream);
int formation_adjoint_launch(const FormationCall& call, int64_t n, void* stream);

}  // namespace fastdd
