// Elements of any dtype as numbers, for *_cpu.cpp: internal linkage, because each variant must keep its own copy.
#pragma once

#include <cstdint>
#include <cstring>

#include "bf16.h"

namespace fastdd {
namespace {

inline float load(const float* p) { return *p; }
inline double load(const double* p) { return *p; }
inline float load(const bf16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace
}  // namespace fastdd
