// Scratch memory for a task.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace fastdd {

// The block that 64-byte aligned memory lies in is kept in front of it. An aligned block of malloc's own is cut out of a larger
// one, into which no block of the same size fits once it is free (glibc until 2.38): its heap would grow with every call.
struct FreeAligned {
  void operator()(float* p) const { ::operator delete(reinterpret_cast<void**>(p)[-1]); }
};
using Floats = std::unique_ptr<float, FreeAligned>;

// 64-byte aligned, with arbitrary contents.
inline Floats aligned(int64_t count) {
  void* block = ::operator new(count * sizeof(float) + 64 + sizeof(void*));
  const uintptr_t first = reinterpret_cast<uintptr_t>(block) + sizeof(void*);
  float* p = reinterpret_cast<float*>((first + 63) / 64 * 64);
  reinterpret_cast<void**>(p)[-1] = block;
  return Floats(p);
}

}  // namespace fastdd
