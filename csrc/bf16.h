// The bits of a bfloat16.
#pragma once

#include <cstdint>

namespace fastdd {
namespace {

struct bf16 {
  uint16_t bits;
};

}  // namespace
}  // namespace fastdd
