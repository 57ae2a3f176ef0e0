// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp.
//
// An image's activations stay in the core's cache from the convolution to the pooled result: of large images a panel of
// channels (direct) or a strip of tiles (Winograd) at a time. Both convolutions are products of
// [pixels or tiles, K] and [K, outputs] matrices by one micro-kernel, whose rows are read with a stride and a table of
// offsets: the direct one needs no unfolded copy.
#include "conv_block_cpu.h"

#include "conv_tiles.h"

namespace fastdd {

namespace FASTDD_VARIANT {
void norm_act_pool_images(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch);  // of the same variant
}

namespace {

// Rows of a Winograd product that share a pass over the filters.
constexpr int64_t kGroupRows = 64;

struct Sizes {
  int64_t height, width, pixels, outputs, columns, out_pixels;  // of the convolution's output; columns: outputs padded to panels
  int64_t tile_rows, tile_columns, tiles;  // of Winograd
  int64_t group, strip;  // images, and tile rows of each, that share a pass over the filters: several images, or a part of one

  explicit Sizes(const ConvBlockCall& call)
      : height(call.tail.height), width(call.tail.width), pixels(height * width), outputs(call.tail.channels),
        columns(panels(outputs) * kPanel),
        out_pixels(call.tail.pool == Pool::none ? pixels : (height / 2) * (width / 2)),
        tile_rows(height / 2), tile_columns(width / 2), tiles(tile_rows * tile_columns),
        group(tiles >= kGroupRows ? 1 : kGroupRows / (tiles > 0 ? tiles : 1)),
        strip(tiles <= kGroupRows ? tile_rows : (tile_columns >= kGroupRows ? 1 : kGroupRows / tile_columns)) {}

  int64_t rows() const { return group * strip * tile_columns; }  // of a Winograd product
  // From a frequency to the next, of transformed tiles and of products: not a power of two, which would put all 16 into the same
  // cache set.
  int64_t v_step(int64_t inputs) const { return padded(rows() * inputs) + 16; }
  int64_t m_step() const { return rows() * columns + 16; }
};

// Channels first .. first + count of the convolution's output, [pixels, columns] with columns padded, to the pooled result at y.
inline void finish(const ConvBlockCall& call, const Sizes& sizes, float* convolved, int64_t columns, int64_t first, int64_t count,
                   float* y, float* stats, float* scratch) {
  if (columns != count) {
    for (int64_t p = 1; p < sizes.pixels; ++p) {
      std::memmove(convolved + p * count, convolved + p * columns, count * sizeof(float));
    }
  }
  NormActPoolCall tail = call.tail;
  tail.channels = count;
  tail.weight = static_cast<const float*>(call.tail.weight) + first;
  tail.bias = static_cast<const float*>(call.tail.bias) + first;
  tail.x = convolved;
  tail.y = y;
  tail.stats = stats;
  FASTDD_VARIANT::norm_act_pool_images(tail, 0, 1, scratch);
}

void direct(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch) {
  const Sizes sizes(call);
  const int64_t inputs = call.inputs, depth = 9 * inputs;
  const int64_t row = (call.width + 2 * call.padding) * inputs, rows = call.height + 2 * call.padding;
  float* image = scratch;
  float* convolved = image + padded(rows * row);                    // a panel of channels at a time: large images stay in the cache
  float* pooled = convolved + padded(sizes.pixels * kPanel);
  int32_t* at = reinterpret_cast<int32_t*>(pooled + padded(sizes.out_pixels * kPanel));
  float* stats = reinterpret_cast<float*>(at) + padded(depth);
  float* rest = stats + padded(2 * kPanel);
  for (int64_t k = 0; k < depth; ++k) {
    const int64_t tap = k / inputs;
    at[k] = static_cast<int32_t>((tap / 3) * row + (tap % 3) * inputs + k % inputs);
  }
  std::memset(image, 0, rows * row * sizeof(float));
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t i = 0; i < call.height; ++i) {
      std::memcpy(image + (i + call.padding) * row + call.padding * inputs,
                  call.x + (n * call.height + i) * call.width * inputs, call.width * inputs * sizeof(float));
    }
    for (int64_t panel = 0; panel < panels(sizes.outputs); ++panel) {
      const float* filters = call.filters + panel * depth * kPanel;
      for (int64_t i = 0; i < sizes.height; ++i) {
        product_of(sizes.width, image + i * row, inputs, at, depth, filters, convolved + i * sizes.width * kPanel, kPanel);
      }
      const int64_t first = panel * kPanel, count = sizes.outputs - first < kPanel ? sizes.outputs - first : kPanel;
      finish(call, sizes, convolved, kPanel, first, count, pooled, stats, rest);
      float* y = call.y + n * sizes.out_pixels * sizes.outputs + first;
      for (int64_t p = 0; p < sizes.out_pixels; ++p) {
        std::memcpy(y + p * sizes.outputs, pooled + p * count, count * sizeof(float));
      }
    }
  }
}

// B^T d B of the 4x4 input patch of every tile of rows first .. last - 1: to [16, tiles, inputs].
void transform_input(const ConvBlockCall& call, const Sizes& sizes, const float* x, int64_t first, int64_t last, float* to,
                     int64_t step) {
  const int64_t inputs = call.inputs;
  for (int64_t i = first; i < last; ++i) {
    for (int64_t j = 0; j < sizes.tile_columns; ++j) {
      float* tile = to + ((i - first) * sizes.tile_columns + j) * inputs;
      for (int64_t c = 0; c < inputs; c += kLanes) {
        // The last vector is moved back over channels already done rather than cut.
        const int64_t channel = c + kLanes <= inputs ? c : inputs - kLanes;
        transform_patch(x, call.height, call.width, inputs, i, j, channel, Whole{},
                        [&](int f, Vec v) { store(tile + f * step + channel, v); });
      }
    }
  }
}

// A^T m A of the 4x4 products, [16, tiles, columns], of every tile of rows first .. last - 1, to its 2x2 pixels.
void transform_output(const Sizes& sizes, const float* from, int64_t first, int64_t last, int64_t step, float* convolved) {
  const int64_t columns = sizes.columns;
  for (int64_t i = first; i < last; ++i) {
    for (int64_t j = 0; j < sizes.tile_columns; ++j) {
      const float* tile = from + ((i - first) * sizes.tile_columns + j) * columns;
      float* pixel = convolved + (2 * i * sizes.width + 2 * j) * columns;
      for (int64_t c = 0; c < columns; c += kLanes) {
        Vec rows[2][4];
        for (int s = 0; s < 4; ++s) {
          const Vec m0 = load(tile + s * step + c), m1 = load(tile + (4 + s) * step + c);
          const Vec m2 = load(tile + (8 + s) * step + c), m3 = load(tile + (12 + s) * step + c);
          rows[0][s] = m0 + m1 + m2;
          rows[1][s] = m1 - m2 - m3;
        }
        for (int r = 0; r < 2; ++r) {
          float* at = pixel + r * sizes.width * columns + c;
          store(at, rows[r][0] + rows[r][1] + rows[r][2]);
          store(at + columns, rows[r][1] - rows[r][2] - rows[r][3]);
        }
      }
    }
  }
}

void winograd(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch) {
  const Sizes sizes(call);
  const int64_t inputs = call.inputs;
  const int64_t v_step = sizes.v_step(inputs), m_step = sizes.m_step();
  float* transformed = scratch;                 // [16, rows, inputs]
  float* products = transformed + 16 * v_step;  // [16, rows, columns]
  float* convolved = products + 16 * m_step;
  int32_t* at = reinterpret_cast<int32_t*>(convolved + padded(sizes.pixels * sizes.columns));
  float* stats = reinterpret_cast<float*>(at) + padded(inputs);
  float* rest = stats + padded(2 * sizes.outputs);
  for (int64_t k = 0; k < inputs; ++k) at[k] = static_cast<int32_t>(k);
  for (int64_t n = begin; n < end; n += sizes.group) {
    const int64_t images = end - n < sizes.group ? end - n : sizes.group;
    for (int64_t first = 0; first < sizes.tile_rows; first += sizes.strip) {
      const int64_t last = first + sizes.strip < sizes.tile_rows ? first + sizes.strip : sizes.tile_rows;
      const int64_t tiles = (last - first) * sizes.tile_columns;
      for (int64_t image = 0; image < images; ++image) {
        transform_input(call, sizes, call.x + (n + image) * call.height * call.width * inputs, first, last,
                        transformed + image * tiles * inputs, v_step);
      }
      for (int f = 0; f < 16; ++f) {
        for (int64_t panel = 0; panel < panels(sizes.outputs); ++panel) {
          product_of(images * tiles, transformed + f * v_step, inputs, at, inputs,
                     call.filters + (f * panels(sizes.outputs) + panel) * inputs * kPanel,
                     products + f * m_step + panel * kPanel, sizes.columns);
        }
      }
      for (int64_t image = 0; image < images; ++image) {
        transform_output(sizes, products + image * tiles * sizes.columns, first, last, m_step, convolved);
        if (last == sizes.tile_rows) {
          finish(call, sizes, convolved, sizes.columns, 0, sizes.outputs,
                 call.y + (n + image) * sizes.out_pixels * sizes.outputs, stats, rest);
        }
      }
    }
  }
}

}  // namespace

namespace FASTDD_VARIANT {

int64_t conv_block_scratch(const ConvBlockCall& call) {
  const Sizes sizes(call);
  const int64_t tail = padded(9 * call.inputs) + padded(2 * sizes.columns) + norm_act_pool_scratch(sizes.outputs);
  if (call.winograd) {
    return tail + padded(sizes.pixels * sizes.columns) + 16 * (sizes.v_step(call.inputs) + sizes.m_step());
  }
  return tail + padded(sizes.pixels * kPanel) + padded(sizes.out_pixels * kPanel) +
         padded((call.height + 2 * call.padding) * (call.width + 2 * call.padding) * call.inputs);
}

void conv_block_images(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch) {
  if (call.winograd) {
    winograd(call, begin, end, scratch);
  } else {
    direct(call, begin, end, scratch);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
