// Scratch memory for a task.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace fastdd {

using Floats = std::unique_ptr<float, void (*)(float*)>;

// 64-byte aligned, with arbitrary contents.
inline Floats aligned(int64_t count) {
  return {static_cast<float*>(::operator new(count * sizeof(float), std::align_val_t(64))),
          [](float* p) { ::operator delete(p, std::align_val_t(64)); }};
}

}  // namespace fastdd
