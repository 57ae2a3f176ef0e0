// Which part of which stored image a decoded one is, and where its pixels sample the part: shared by the CPU and the CUDA
// kernels of formation, and of augment where it decodes on the way.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace fastdd {

struct Formation {
  int64_t stored;             // images, M
  int factor;
  int height, width;          // of a stored image
  int rows, columns;          // of a part
  int out_height, out_width;  // of a decoded image
  const int64_t* parts;       // [N, 2]: stored image and part of every decoded one; null: image n % M, part n / M
  const double* fill;         // [C], beside a stored image; null: zeros
};

struct Address {
  int64_t image;
  int row, column;  // of the part's first pixel in the stored image
  bool exists;
};

FASTDD_HD Address address_of(const Formation& f, int64_t n) {
  const int64_t image = f.parts != nullptr ? f.parts[2 * n] : n % f.stored;
  const int64_t part = f.parts != nullptr ? f.parts[2 * n + 1] : n / f.stored;
  Address a;
  a.image = image;
  a.exists = image >= 0 && image < f.stored && part >= 0 && part < int64_t(f.factor) * f.factor;
  a.row = a.exists ? static_cast<int>(part / f.factor) * f.rows : 0;
  a.column = a.exists ? static_cast<int>(part % f.factor) * f.columns : 0;
  return a;
}

// Pixel i of a side of `size` pixels, enlarged from `side` of them: value[low] + weight (value[high] - value[low]).
template <class T>
struct Tap {
  int low, high;
  T weight;
};

// It samples ((i + 1/2) side / size - 1/2)+; in whole numbers, so that only the weight is rounded.
template <class T>
FASTDD_HD Tap<T> tap_of(int i, int side, int size) {
  const int64_t twice = 2 * int64_t(size);
  int64_t at = (2 * int64_t(i) + 1) * side - size;
  at = at > 0 ? at : 0;
  Tap<T> tap;
  tap.low = static_cast<int>(at / twice);
  tap.high = tap.low + (tap.low < side - 1);
  tap.weight = static_cast<T>(static_cast<double>(at % twice) / static_cast<double>(twice));
  return tap;
}

// Weight of the part's pixel j in pixel i of the result.
template <class T>
FASTDD_HD T weight_in(const Tap<T>& tap, int j) {
  return (tap.low == j ? T(1) - tap.weight : T(0)) + (tap.high == j ? tap.weight : T(0));
}

// The pixels of the result that can have sampled pixel j of a part: [first_of(j), end_of(j)).
FASTDD_HD int first_of(int j, int side, int size) {
  // The least i with (2 i + 1) side - size > 2 size (j - 1).
  const int64_t above = int64_t(size) * (2 * int64_t(j) - 1) - side;
  return above < 0 ? 0 : static_cast<int>(above / (2 * int64_t(side))) + 1;
}

FASTDD_HD int end_of(int j, int side, int size) {
  if (j == side - 1) return size;
  // Behind the largest i with (2 i + 1) side - size < 2 size (j + 1).
  const int64_t below = int64_t(size) * (2 * int64_t(j) + 3) - side;
  const int64_t end = (below + 2 * int64_t(side) - 1) / (2 * int64_t(side));
  return end < size ? static_cast<int>(end) : size;
}

}  // namespace fastdd
