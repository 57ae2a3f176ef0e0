// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp.
//
// An image's activations stay in the core's cache from the convolution to the pooled result: of large images a strip of
// tiles (Winograd) at a time, and everywhere a panel of channels. Both convolutions are products of
// [pixels or tiles, K] and [K, outputs] matrices by one micro-kernel, whose rows are read with a stride and a table of
// offsets: the direct one needs no unfolded copy.
#include "conv_block_cpu.h"

#include "conv_winograd.h"

namespace fastdd {

namespace FASTDD_VARIANT {
void norm_act_pool_images(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch);  // of the same variant
}

namespace {

struct Sizes {
  int64_t height, width, pixels, outputs, out_pixels;  // of the convolution's output

  explicit Sizes(const ConvBlockCall& call)
      : height(call.tail.height), width(call.tail.width), pixels(height * width), outputs(call.tail.channels),
        out_pixels(call.tail.pool == Pool::none ? pixels : (height / 2) * (width / 2)) {}

  int64_t finish_scratch() const {
    return padded(out_pixels * kPanel) + padded(2 * kPanel) + norm_act_pool_scratch(kPanel);
  }
};

// A panel of channels of an image's convolution, [pixels, kPanel], to the pooled result y [out_pixels, outputs].
inline void finish(const ConvBlockCall& call, const Sizes& sizes, float* convolved, int64_t panel, float* y, float* scratch) {
  const int64_t first = panel * kPanel, count = std::min(kPanel, sizes.outputs - first);
  for (int64_t p = 1; count < kPanel && p < sizes.pixels; ++p) {
    std::memmove(convolved + p * count, convolved + p * kPanel, count * sizeof(float));
  }
  float *stats = scratch + padded(sizes.out_pixels * kPanel), *rest = stats + padded(2 * kPanel);
  NormActPoolCall tail = call.tail;
  tail.channels = count;
  tail.weight = static_cast<const float*>(call.tail.weight) + first;
  tail.bias = static_cast<const float*>(call.tail.bias) + first;
  tail.x = convolved;
  tail.y = scratch;
  tail.stats = stats;
  FASTDD_VARIANT::norm_act_pool_images(tail, 0, 1, rest);
  for (int64_t p = 0; p < sizes.out_pixels; ++p) {
    std::memcpy(y + p * sizes.outputs + first, scratch + p * count, count * sizeof(float));
  }
}

void direct(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch) {
  const Sizes sizes(call);
  const int64_t inputs = call.inputs, depth = 9 * inputs;
  const int64_t row = (call.width + 2 * call.padding) * inputs, rows = call.height + 2 * call.padding;
  float* image = scratch;
  float* convolved = image + padded(rows * row);                    // a panel of channels at a time: large images stay in the cache
  int32_t* at = reinterpret_cast<int32_t*>(convolved + padded(sizes.pixels * kPanel));
  float* rest = reinterpret_cast<float*>(at) + padded(depth);
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
      finish(call, sizes, convolved, panel, call.y + n * sizes.out_pixels * sizes.outputs, rest);
    }
  }
}

// Which tiles share a pass over the filters: those of several images, or of a part of one.
template <class T>
struct Groups {
  Grid<T> grid;
  int64_t images, strip, step, made;  // images, and rows of tiles of each

  explicit Groups(const ConvBlockCall& call) : grid(call.height, call.width) {
    images = std::max<int64_t>(1, T::kGroup / std::max<int64_t>(1, grid.tiles));
    strip = grid.tiles <= T::kGroup ? grid.rows : std::max<int64_t>(1, T::kGroup / grid.columns);
    const int64_t tiles = images * strip * grid.columns;
    step = transformed_step(tiles, call.inputs);
    made = made_step(tiles);
  }

  int64_t scratch() const { return T::kFrequencies * (step + made); }
};

// The pixels [height, width, kPanel] of a row of tiles, from their products with a panel.
template <class T>
void tile_row_pixels(const Groups<T>& groups, const float* made, int64_t i, float* convolved) {
  const Grid<T>& grid = groups.grid;
  const int64_t below = std::min<int64_t>(T::kRows, grid.height - T::kRows * i);
  for (int64_t j = 0; j < grid.columns; ++j, made += kPanel) {
    const int64_t beside = std::min<int64_t>(T::kColumns, grid.width - T::kColumns * j);
    float* corner = convolved + (T::kRows * i * grid.width + T::kColumns * j) * kPanel;
    for (int64_t c = 0; c < kPanel; c += kLanes) {
      Vec pixels[T::kRows][T::kColumns];
      tile_pixels<T>(made + c, groups.made, pixels);
      for (int64_t r = 0; r < below; ++r) {
        for (int64_t s = 0; s < beside; ++s) store(corner + (r * grid.width + s) * kPanel + c, pixels[r][s]);
      }
    }
  }
}

template <class T>
void winograd(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch) {
  const Sizes sizes(call);
  const Groups<T> groups(call);
  const Grid<T>& grid = groups.grid;
  const int64_t inputs = call.inputs, count = panels(sizes.outputs), size = T::kFrequencies * inputs * kPanel;
  const int64_t image_size = padded(sizes.pixels * kPanel);
  float* transformed = scratch;                                                // [frequency, tile, input]
  float* made = transformed + T::kFrequencies * groups.step;                   // [frequency, tile, column] of a panel
  float* convolved = made + T::kFrequencies * groups.made;                     // [panel, pixel, column] of an image
  float* rest = convolved + (groups.strip < grid.rows ? count : 1) * image_size;
  for (int64_t n = begin; n < end; n += groups.images) {
    const int64_t images = std::min(groups.images, end - n);
    for (int64_t first = 0; first < grid.rows; first += groups.strip) {
      const int64_t last = std::min(first + groups.strip, grid.rows), tiles = (last - first) * grid.columns;
      for (int64_t k = 0; k < images * tiles; ++k) {
        transform_patch(grid, call.x + (n + k / tiles) * call.height * call.width * inputs, inputs,
                        first + k % tiles / grid.columns, k % grid.columns, transformed + k * inputs, groups.step);
      }
      for (int64_t panel = 0; panel < count; ++panel) {
        panel_products<T>(images * tiles, inputs, transformed, groups.step, call.filters + panel * size, made, groups.made, false);
        // Of an image in strips, panel after panel waits for the last one.
        float* own = convolved + (groups.strip < grid.rows ? panel * image_size : 0);
        for (int64_t k = 0; k < images; ++k) {
          for (int64_t i = first; i < last; ++i) {
            tile_row_pixels(groups, made + (k * tiles + (i - first) * grid.columns) * kPanel, i, own);
          }
          if (last == grid.rows) finish(call, sizes, own, panel, call.y + (n + k) * sizes.out_pixels * sizes.outputs, rest);
        }
      }
    }
  }
}

template <class T>
int64_t winograd_scratch(const ConvBlockCall& call, const Sizes& sizes) {
  const Groups<T> groups(call);
  return groups.scratch() + (groups.strip < groups.grid.rows ? panels(sizes.outputs) : 1) * padded(sizes.pixels * kPanel);
}

}  // namespace

namespace FASTDD_VARIANT {

int64_t conv_block_scratch(const ConvBlockCall& call) {
  const Sizes sizes(call);
  if (call.how == How::tiles2x2) return winograd_scratch<Tiles2x2>(call, sizes) + sizes.finish_scratch();
  if (call.how == How::tiles2x4) return winograd_scratch<Tiles2x4>(call, sizes) + sizes.finish_scratch();
  return padded((call.height + 2 * call.padding) * (call.width + 2 * call.padding) * call.inputs) + padded(sizes.pixels * kPanel) +
         padded(9 * call.inputs) + sizes.finish_scratch();
}

void conv_block_images(const ConvBlockCall& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.how) {
    case How::tiles2x2: return winograd<Tiles2x2>(call, begin, end, scratch);
    case How::tiles2x4: return winograd<Tiles2x4>(call, begin, end, scratch);
    default: direct(call, begin, end, scratch);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
