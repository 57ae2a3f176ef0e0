// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp. Formulas: fastdd/reference/dual_blocks.py.
#include "dual_blocks_cpu.h"

#include "conv_tiles.h"
#include "norm_act_pool_image.h"

namespace fastdd {
namespace {

using DualImage = Image<float>;

constexpr int64_t kBlockPixels = 16;  // that are summed in registers
constexpr int64_t kFewBlocks = 16;    // from one flush to the next

// Sums of u, and of u times x - mean, over all pixels of an image, to the first two.
void tangent_sums(DualImage& image, const float* x, const float* u) {
  float *few_u = image.sum(2), *few_ux = image.sum(3);
  image.clear(4);
  int64_t blocks = 0;
  for (int64_t start = 0; start < image.pixels; start += kBlockPixels) {
    const int64_t count = image.pixels - start < kBlockPixels ? image.pixels - start : kBlockPixels;
    for_lanes<float>(image.channels, [&](int64_t c, auto part) {
      const Vec mean = load(image.mean + c);
      Vec sum = {}, product = {};
      for (int64_t p = start; p < start + count; ++p) {
        const Vec at = part.load(u + p * image.channels + c);
        sum += at;
        product += at * (part.load(x + p * image.channels + c) - mean);
      }
      add_to(few_u + c, sum);
      add_to(few_ux + c, product);
    });
    if (++blocks % kFewBlocks == 0) image.flush(2);
  }
  image.flush(2);
}

template <Pool P>
void forward(const DualNormCall& call, int64_t begin, int64_t end, void* scratch) {
  constexpr int K = P == Pool::none ? 1 : 4;
  DualImage image(call.values, scratch);
  const int64_t channels = image.channels;
  const int64_t out = P == Pool::none ? image.pixels : (image.height / 2) * (image.width / 2);
  float *mean_u = image.sum(0), *mean_ux = image.sum(1), *by_x = image.sum(2), *level = image.sum(3);
  for (int64_t n = begin; n < end; ++n) {
    const float *x = static_cast<const float*>(call.values.x) + n * image.pixels * channels, *u = call.u + n * image.pixels * channels;
    float *y = static_cast<float*>(call.values.y) + n * out * channels, *dy = call.dy + n * out * channels;
    image.find_stats(call.values, x, n);
    tangent_sums(image, x, u);
    float* stats = call.dual_stats + 2 * n * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float mu = mean_u[c] / static_cast<float>(image.pixels);
      const float ux = mean_ux[c] / static_cast<float>(image.pixels) * image.rstd[c];
      stats[c] = mu;
      stats[channels + c] = ux;
      // The tangent of the normalised x is scale u + by_x (x - mean) + level.
      by_x[c] = image.rstd[c] * (call.vw[c] - image.scale[c] * ux);
      level[c] = call.vb[c] - image.scale[c] * mu;
    }
    for_windows<K>(
        image,
        [&](const int64_t (&at)[K], int64_t window) {
          for_lanes<float>(channels, [&](int64_t c, auto part) {
            Vec centred[K], share[K];
            read_window<float, P, K>(image, x, at, c, part, centred, share);
            const Vec scale = load(image.scale + c), shift = load(image.shift + c), a = load(by_x + c), b = load(level + c);
            Vec value = positive(centred[0] * scale + shift), tangent = {};
            for (int k = 1; k < K; ++k) {
              const Vec z = positive(centred[k] * scale + shift);
              value = P == Pool::max ? (z > value ? z : value) : value + z;
            }
            for (int k = 0; k < K; ++k) tangent += share[k] * (scale * part.load(u + at[k] + c) + a * centred[k] + b);
            if (P == Pool::avg) value *= 0.25f;
            part.store(y + window + c, value);
            part.store(dy + window + c, tangent);
          });
        },
        [](int64_t) {});
  }
}

// What a pixel's gradients are made of, with G and dG those that reach it: dx = scale G + u_x (x - mean) + level, du = by_g G +
// scale dG + u_x u + by_x (x - mean) + dlevel.
struct Slopes {
  float *u_x, *level, *by_g, *by_x, *dlevel;
};

// From the sums of G, G (x - mean), dG, dG (x - mean) and G u, over the pixels of image n, which are the image's first five.
void slopes_of(const DualNormCall& call, DualImage& image, int64_t n, const Slopes& slopes) {
  const int64_t channels = image.channels;
  const float* stats = call.dual_stats + 2 * n * channels;
  float* sums = static_cast<float*>(call.values.sums) + 2 * n * channels;
  const float pixels = static_cast<float>(image.pixels), inverse = 1.0f / pixels;
  for (int64_t c = 0; c < channels; ++c) {
    const float scale = image.scale[c], rstd = image.rstd[c], mu = stats[c], ux = stats[channels + c];
    const float g = image.sum(0)[c] * inverse, gx = image.sum(1)[c] * inverse * rstd;
    const float dg = image.sum(2)[c] * inverse, dgx = image.sum(3)[c] * inverse * rstd;
    const float t = image.sum(4)[c] * inverse - mu * g - ux * gx;
    sums[c] = pixels * (dgx + rstd * t);
    sums[channels + c] = image.sum(2)[c];
    const float to_mask = call.vw[c] - scale * ux;
    slopes.u_x[c] = -scale * rstd * gx;
    slopes.level[c] = -scale * g;
    slopes.by_g[c] = rstd * to_mask;
    slopes.by_x[c] = -rstd * (rstd * ((to_mask - scale * ux) * gx + scale * t) + scale * dgx);
    slopes.dlevel[c] = -rstd * (to_mask * g - scale * mu * gx) - scale * dg;
  }
}

template <Pool P>
void backward_sums(DualImage& image, const float* x, const float* u, const float* g, const float* dg) {
  constexpr int K = P == Pool::none ? 1 : 4;
  image.clear(10);
  float* few = image.sum(5);
  const int64_t row = image.padded;
  int64_t windows = 0;
  for_windows<K>(
      image,
      [&](const int64_t (&at)[K], int64_t window) {
        for_lanes<float>(image.channels, [&](int64_t c, auto part) {
          Vec centred[K], share[K];
          read_window<float, P, K>(image, x, at, c, part, centred, share);
          Vec total = {}, product = {}, cross = {};
          for (int k = 0; k < K; ++k) {
            total += share[k];
            product += share[k] * centred[k];
            cross += share[k] * part.load(u + at[k] + c);
          }
          const Vec gradient = part.load(g + window + c), tangent = part.load(dg + window + c);
          add_to(few + c, gradient * total);
          add_to(few + row + c, gradient * product);
          add_to(few + 2 * row + c, tangent * total);
          add_to(few + 3 * row + c, tangent * product);
          add_to(few + 4 * row + c, gradient * cross);
        });
        if (++windows % kFew == 0) image.flush(5);
      },
      [](int64_t) {});
  image.flush(5);
}

template <Pool P>
void backward(const DualNormCall& call, int64_t begin, int64_t end, void* scratch) {
  constexpr int K = P == Pool::none ? 1 : 4;
  DualImage image(call.values, scratch);
  const int64_t channels = image.channels;
  const int64_t out = P == Pool::none ? image.pixels : (image.height / 2) * (image.width / 2);
  const Slopes slopes{image.sum(5), image.sum(6), image.sum(7), image.sum(8), image.sum(9)};
  for (int64_t n = begin; n < end; ++n) {
    const float *x = static_cast<const float*>(call.values.x) + n * image.pixels * channels, *u = call.u + n * image.pixels * channels;
    const float *g = static_cast<const float*>(call.values.g) + n * out * channels, *dg = call.dg + n * out * channels;
    float *dx = static_cast<float*>(call.values.dx) + n * image.pixels * channels, *du = call.du + n * image.pixels * channels;
    image.known_stats(call.values, n);
    backward_sums<P>(image, x, u, g, dg);
    slopes_of(call, image, n, slopes);
    // A pixel that G reaches with the given share of its window's gradient.
    const auto write = [&](int64_t at, int64_t c, auto part, Vec centred, Vec value, Vec tangent) {
      const Vec u_x = load(slopes.u_x + c), scale = load(image.scale + c);
      const Vec below = load(slopes.by_g + c) * value + scale * tangent + u_x * part.load(u + at + c);
      part.store(dx + at + c, scale * value + u_x * centred + load(slopes.level + c));
      part.store(du + at + c, below + load(slopes.by_x + c) * centred + load(slopes.dlevel + c));
    };
    for_windows<K>(
        image,
        [&](const int64_t (&at)[K], int64_t window) {
          for_lanes<float>(channels, [&](int64_t c, auto part) {
            Vec centred[K], share[K];
            read_window<float, P, K>(image, x, at, c, part, centred, share);
            const Vec gradient = part.load(g + window + c), tangent = part.load(dg + window + c);
            for (int k = 0; k < K; ++k) write(at[k], c, part, centred[k], gradient * share[k], tangent * share[k]);
          });
        },
        [&](int64_t pixel) {
          for_lanes<float>(channels, [&](int64_t c, auto part) {
            write(pixel, c, part, part.load(x + pixel + c) - load(image.mean + c), Vec{}, Vec{});
          });
        });
  }
}

}  // namespace

namespace FASTDD_VARIANT {

void dual_norm_images(const DualNormCall& call, int64_t begin, int64_t end, void* scratch) {
  switch (call.values.pool) {
    case Pool::avg: return forward<Pool::avg>(call, begin, end, scratch);
    case Pool::max: return forward<Pool::max>(call, begin, end, scratch);
    default: forward<Pool::none>(call, begin, end, scratch);
  }
}

void dual_norm_backward_images(const DualNormCall& call, int64_t begin, int64_t end, void* scratch) {
  switch (call.values.pool) {
    case Pool::avg: return backward<Pool::avg>(call, begin, end, scratch);
    case Pool::max: return backward<Pool::max>(call, begin, end, scratch);
    default: backward<Pool::none>(call, begin, end, scratch);
  }
}

int64_t taps_size(int64_t outputs, int64_t inputs) { return outputs * panels(9 * inputs) * kPanel; }

// [panel, output, column], of columns tap and input; those beyond the last are 0.
void pack_taps(const float* filters, int64_t outputs, int64_t inputs, float* packed) {
  std::memset(packed, 0, taps_size(outputs, inputs) * sizeof(float));
  for (int64_t o = 0; o < outputs; ++o) {
    for (int64_t i = 0; i < inputs; ++i) {
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t column = tap * inputs + i;
        packed[(column / kPanel * outputs + o) * kPanel + column % kPanel] = filters[(o * inputs + i) * 9 + tap];
      }
    }
  }
}

int64_t image_gradient_scratch(const ImageGradientCall& call) { return call.width * panels(9 * call.inputs) * kPanel; }

// What every pixel of a row gives its 3x3 neighbours, as one product, added to them.
void image_gradient(const ImageGradientCall& call, float* scratch) {
  const int64_t inputs = call.inputs, outputs = call.outputs, count = panels(9 * inputs), columns = count * kPanel;
  std::memset(call.to_x, 0, call.height * call.width * inputs * sizeof(float));
  for (int64_t h = 0; h < call.height; ++h) {
    const float *g = call.g + h * call.width * outputs, *dg = call.dg + h * call.width * outputs;
    for (int64_t panel = 0; panel < count; ++panel) {
      const int64_t taps = panel * outputs * kPanel;
      product_of(call.width, dg, outputs, Every{1}, outputs, call.taps + taps, scratch + panel * kPanel, columns);
      product_of<true>(call.width, g, outputs, Every{1}, outputs, call.dtaps + taps, scratch + panel * kPanel, columns);
    }
    for (int64_t w = 0; w < call.width; ++w) {
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t row = h + tap / 3 - 1, column = w + tap % 3 - 1;
        if (row < 0 || row >= call.height || column < 0 || column >= call.width) continue;
        float* to = call.to_x + (row * call.width + column) * inputs;
        const float* from = scratch + w * columns + tap * inputs;
        for (int64_t i = 0; i < inputs; ++i) to[i] += from[i];
      }
    }
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
