// The CPU kernel: a direct convolution in registers, plain C++ without torch, for every valid problem.
//
// A task is (n, g, 64 output channels, 960 bytes of accumulators along p). It packs the window of x that it needs
// into scratch, a few input channels at a time: padded with zeros, widened to the accumulator's type, and split by
// stride, so that every tap reads consecutive elements. A register tile of 4 output channels x 3 vectors of
// positions then runs over (c, k). fp16 and bf16 accumulate in float.
//
// Sums are blocked: at most 256 products in one chain, chains added in the order of (c, k). The order depends on
// the problem alone, never on the threads. Vectors are chosen at run time (AVX-512, AVX2, or 16 bytes), so that a
// compiled file may move between machines. Everything must inline into the functions that carry the target
// attribute: hence always_inline, and no lambdas.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>

#include "problem.h"

namespace conv1d {
namespace cpu {

#define CONV1D_INLINE inline __attribute__((always_inline))

constexpr int64_t kOutputBlock = 64;           // output channels of one task
constexpr int64_t kPositionBlockBytes = 960;   // accumulators of one output channel in one task: 5 tiles of AVX-512
constexpr int64_t kChain = 256;                // products added one after the other
constexpr int64_t kScratchBytes = 256 * 1024;  // packed x of one task, at most, unless one channel needs more

template <typename To, typename From>
CONV1D_INLINE To bit_cast(From value) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To result;
    std::memcpy(&result, &value, sizeof(To));
    return result;
}

template <typename T>
struct Native {
    using Stored = T;
    using Acc = T;
    static CONV1D_INLINE Acc widen(Stored value) { return value; }
    static CONV1D_INLINE Stored narrow(Acc value) { return value; }
};

struct Bfloat16 {
    using Stored = uint16_t;
    using Acc = float;
    static CONV1D_INLINE Acc widen(Stored bits) { return bit_cast<float>(uint32_t(bits) << 16); }
    static CONV1D_INLINE Stored narrow(Acc value) {  // to nearest, ties to even
        const uint32_t bits = bit_cast<uint32_t>(value);
        const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        return uint16_t(value != value ? 0x7fc0 : rounded);
    }
};

// Written without branches, so that the compiler vectorises the loops over it.
struct Float16 {
    using Stored = uint16_t;
    using Acc = float;
    static CONV1D_INLINE Acc widen(Stored bits) {
        const uint32_t sign = uint32_t(bits & 0x8000) << 16;
        const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
        const uint32_t rebiased = magnitude + (112u << 23);  // exponent bias 15 -> 127
        const uint32_t special = magnitude + (224u << 23);   // inf and nan: all exponent bits set
        // A subnormal is fraction * 2^-24: written as 2^-14 * (1 + fraction/1024), less 2^-14.
        const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f);
        const uint32_t finite = magnitude < (1u << 23) ? subnormal : rebiased;
        return bit_cast<float>(sign | (magnitude >= (31u << 23) ? special : finite));
    }
    static CONV1D_INLINE Stored narrow(Acc value) {  // to nearest, ties to even
        const uint32_t bits = bit_cast<uint32_t>(value);
        const uint32_t magnitude = bits & 0x7fffffff;
        const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        // Below 2^-14 the unit is 2^-24, which is the unit of floats in [0.5, 1).
        const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - (126u << 23);
        const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
        const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
        return uint16_t((bits >> 16 & 0x8000) | (magnitude >= (143u << 23) ? special : finite));
    }
};

// Positions of one task.
inline int64_t position_block(const Problem& p) {
    return kPositionBlockBytes / std::max<int64_t>(sizeof(float), element_bytes(p.dtype));
}

struct Blocks {
    int64_t outputs, positions;  // how many along o and along p
    explicit Blocks(const Problem& p)
        : outputs((p.O + kOutputBlock - 1) / kOutputBlock),
          positions((p.P + position_block(p) - 1) / position_block(p)) {}
};

// How one input channel's window lies in scratch. Taps whose positions agree modulo the stride read the same
// elements, shifted, and share a row: there are stride / gcd(stride, dilation) rows, and row r holds
// x[l(p_begin, k = r) + i*stride] rounded down to the row's first tap. Where dilation is so wide that such rows would
// be mostly unread, each tap gets a row of its own.
struct Window {
    int64_t positions;  // of one task at most, whole vectors
    int64_t rows;       // rows a channel
    int64_t row_elems;  // elements a row

    Window(const Problem& p, int64_t lanes) {
        positions = (std::min(p.P, position_block(p)) + lanes - 1) / lanes * lanes;
        const int64_t shared_rows = std::min(p.K, p.stride / std::gcd(p.stride, p.dilation));
        const int64_t shared_elems = positions + (p.K - 1) * p.dilation / p.stride;
        const bool share = shared_elems <= p.K * positions / shared_rows;
        rows = share ? shared_rows : p.K;
        row_elems = share ? shared_elems : positions;
    }
    // Where row `row` starts, in elements of x after the first position's own input.
    int64_t row_shift(const Problem& p, int64_t row) const {
        return rows == p.K ? row * p.dilation : row * p.dilation % p.stride;
    }
    // Where tap k starts in a channel's scratch.
    int64_t tap_offset(const Problem& p, int64_t k) const {
        const int64_t row = k % rows;
        return row * row_elems + (k * p.dilation - row_shift(p, row)) / p.stride;
    }
};

// dst[i] = x[first + i*step] widened, and zero outside 0 <= l < L.
template <typename Type>
CONV1D_INLINE void pack_row(
        typename Type::Acc* __restrict__ dst,          // [count]
        const typename Type::Stored* __restrict__ src, // x[n, c, 0]
        int64_t count, int64_t first, int64_t step, int64_t L, int64_t x_stride_l) {
    const int64_t begin = std::min(count, first >= 0 ? 0 : (-first + step - 1) / step);
    const int64_t end = first >= L ? begin : std::max(begin, std::min(count, (L - 1 - first) / step + 1));
    for (int64_t i = 0; i < begin; ++i) dst[i] = 0;
    const int64_t hop = step * x_stride_l;
    if (hop == 1) {
        const typename Type::Stored* from = src + first;
        for (int64_t i = begin; i < end; ++i) dst[i] = Type::widen(from[i]);
    } else {
        for (int64_t i = begin; i < end; ++i) dst[i] = Type::widen(src[first * x_stride_l + i * hop]);
    }
    for (int64_t i = end; i < count; ++i) dst[i] = 0;
}

// sums[o][i] = sum over `channels` and `taps` of w * x for kO output channels and kV vectors of positions.
template <typename Acc, int kBytes, int kO, int kV>
CONV1D_INLINE void multiply_tile(
        const Acc* __restrict__ x,            // scratch at the tile's first position
        int64_t channel_elems,                // scratch elements a channel
        const int64_t* __restrict__ offsets,  // [taps] of each tap's row within a channel's scratch
        const Acc* __restrict__ w,            // [kO][channels][taps], w_stride_o apart
        int64_t w_stride_o, int64_t channels, int64_t taps,
        Acc* __restrict__ sums) {             // [kO][kV * lanes]
    typedef Acc Vector __attribute__((vector_size(kBytes)));
    constexpr int kLanes = kBytes / sizeof(Acc);
    for (int64_t k_begin = 0; k_begin < taps; k_begin += kChain) {
        const int64_t k_end = std::min(taps, k_begin + kChain);
        Vector acc[kO][kV] = {};
        for (int64_t c = 0; c < channels; ++c) {
            for (int64_t k = k_begin; k < k_end; ++k) {
                Vector x_frag[kV];
                for (int v = 0; v < kV; ++v)
                    std::memcpy(&x_frag[v], x + c * channel_elems + offsets[k] + v * kLanes, kBytes);
                for (int o = 0; o < kO; ++o) {
                    const Acc w_value = w[o * w_stride_o + c * taps + k];
                    for (int v = 0; v < kV; ++v) acc[o][v] += x_frag[v] * w_value;
                }
            }
        }
        for (int o = 0; o < kO; ++o) {
            for (int v = 0; v < kV; ++v) {
                Acc* sum = sums + (o * kV + v) * kLanes;
                Vector total = {};
                if (k_begin != 0) std::memcpy(&total, sum, kBytes);
                total += acc[o][v];
                std::memcpy(sum, &total, kBytes);
            }
        }
    }
}

template <typename Acc>
using Tile = void (*)(const Acc*, int64_t, const int64_t*, const Acc*, int64_t, int64_t, int64_t, Acc*);

constexpr int kTileOutputs = 4;  // 4 x 3 sums, 3 of x and 1 of w fill the 16 registers of AVX2
constexpr int kTileVectors = 3;

// Tasks [begin, end) on one thread.
template <typename Type, typename Target>
CONV1D_INLINE void run_tasks(const Problem& p, int64_t begin, int64_t end) {
    using Stored = typename Type::Stored;
    using Acc = typename Type::Acc;
    constexpr int64_t kLanes = Target::kBytes / sizeof(Acc);
    constexpr bool kWiden = !std::is_same<Stored, Acc>::value;

    const Blocks blocks(p);
    const Window window(p, kLanes);
    const int64_t channel_elems = window.rows * window.row_elems;
    const int64_t fitting = kScratchBytes / int64_t(sizeof(Acc)) / channel_elems;
    const int64_t chunk = std::max<int64_t>(1, std::min({p.C, kChain / p.K, fitting}));
    const int64_t block_outputs = std::min(p.O, kOutputBlock);

    const std::unique_ptr<int64_t[]> offsets(new int64_t[p.K]);
    for (int64_t k = 0; k < p.K; ++k) offsets[k] = window.tap_offset(p, k);
    const std::unique_ptr<Acc[]> x_scratch(new Acc[chunk * channel_elems]);
    const std::unique_ptr<Acc[]> w_scratch(kWiden ? new Acc[block_outputs * chunk * p.K] : nullptr);
    // Sums of the chunks so far, [block_outputs][window.positions].
    const std::unique_ptr<Acc[]> partial(chunk < p.C ? new Acc[block_outputs * window.positions] : nullptr);

    for (int64_t task = begin; task < end; ++task) {
        const int64_t p_begin = task % blocks.positions * position_block(p);
        const int64_t o_begin = task / blocks.positions % blocks.outputs * kOutputBlock;
        const int64_t g = task / blocks.positions / blocks.outputs % p.G;
        const int64_t n = task / blocks.positions / blocks.outputs / p.G;
        const int64_t positions = std::min(p.P - p_begin, position_block(p));
        const int64_t outputs = std::min(p.O - o_begin, kOutputBlock);
        const int64_t vectors = (positions + kLanes - 1) / kLanes;
        const int64_t packed = window.row_elems - window.positions + vectors * kLanes;
        const Stored* x = static_cast<const Stored*>(p.x) + n * p.x_stride_n + g * p.C * p.x_stride_c;
        const Stored* w = static_cast<const Stored*>(p.w) + (g * p.O + o_begin) * p.C * p.K;
        const Stored* bias = p.bias ? static_cast<const Stored*>(p.bias) + g * p.O + o_begin : nullptr;
        Stored* y = static_cast<Stored*>(p.y) + ((n * p.G + g) * p.O + o_begin) * p.P + p_begin;

        for (int64_t c_begin = 0; c_begin < p.C; c_begin += chunk) {
            const int64_t channels = std::min(chunk, p.C - c_begin);
            const bool first = c_begin == 0, last = c_begin + channels == p.C;
            for (int64_t c = 0; c < channels; ++c)
                for (int64_t row = 0; row < window.rows; ++row)
                    pack_row<Type>(&x_scratch[c * channel_elems + row * window.row_elems],
                                   x + (c_begin + c) * p.x_stride_c, packed,
                                   p_begin * p.stride - p.pad_left + window.row_shift(p, row), p.stride, p.L,
                                   p.x_stride_l);
            const Acc* w_chunk;
            int64_t w_stride_o;
            if constexpr (kWiden) {
                w_chunk = w_scratch.get();
                w_stride_o = channels * p.K;
                for (int64_t o = 0; o < outputs; ++o)
                    for (int64_t i = 0; i < w_stride_o; ++i)
                        w_scratch[o * w_stride_o + i] = Type::widen(w[(o * p.C + c_begin) * p.K + i]);
            } else {
                w_chunk = w + c_begin * p.K;
                w_stride_o = p.C * p.K;
            }

            for (int64_t v = 0, tile_v; v < vectors; v += tile_v) {
                tile_v = std::min<int64_t>(kTileVectors, vectors - v);
                for (int64_t o = 0, tile_o; o < outputs; o += tile_o) {
                    tile_o = std::min<int64_t>(kTileOutputs, outputs - o);
                    Acc sums[kTileOutputs * kTileVectors * kLanes];
                    Target::template kTiles<Acc>[tile_o - 1][tile_v - 1](
                        &x_scratch[v * kLanes], channel_elems, offsets.get(), w_chunk + o * w_stride_o, w_stride_o,
                        channels, p.K, sums);
                    const int64_t count = std::min(tile_v * kLanes, positions - v * kLanes);
                    for (int64_t i = 0; i < tile_o; ++i) {
                        Acc* sum = sums + i * tile_v * kLanes;
                        Acc* so_far = &partial[(o + i) * window.positions + v * kLanes];
                        if (!first) for (int64_t j = 0; j < count; ++j) sum[j] += so_far[j];
                        if (last) {
                            const Acc b = bias ? Type::widen(bias[o + i]) : Acc(0);
                            Stored* to = y + (o + i) * p.P + v * kLanes;
                            for (int64_t j = 0; j < count; ++j) to[j] = Type::narrow(sum[j] + b);
                        } else {
                            std::memcpy(so_far, sum, count * sizeof(Acc));
                        }
                    }
                }
            }
        }
    }
}

// One struct an instruction set. GCC and Clang inline into a function whatever its target attribute covers.
#define CONV1D_TARGET(name, bytes, attribute)                                                                     \
    struct name {                                                                                                 \
        static constexpr int kBytes = bytes;                                                                      \
        template <typename Acc, int kO, int kV>                                                                   \
        attribute static void tile(const Acc* x, int64_t channel_elems, const int64_t* offsets, const Acc* w,     \
                                   int64_t w_stride_o, int64_t channels, int64_t taps, Acc* sums) {               \
            multiply_tile<Acc, kBytes, kO, kV>(x, channel_elems, offsets, w, w_stride_o, channels, taps, sums);   \
        }                                                                                                         \
        template <typename Acc>                                                                                   \
        static constexpr Tile<Acc> kTiles[kTileOutputs][kTileVectors] = {                                         \
            {tile<Acc, 1, 1>, tile<Acc, 1, 2>, tile<Acc, 1, 3>}, {tile<Acc, 2, 1>, tile<Acc, 2, 2>, tile<Acc, 2, 3>}, \
            {tile<Acc, 3, 1>, tile<Acc, 3, 2>, tile<Acc, 3, 3>}, {tile<Acc, 4, 1>, tile<Acc, 4, 2>, tile<Acc, 4, 3>}}; \
        template <typename Type>                                                                                  \
        attribute static void run(const Problem& p, int64_t begin, int64_t end) {                                 \
            run_tasks<Type, name>(p, begin, end);                                                                 \
        }                                                                                                         \
    };

#if defined(__x86_64__)
CONV1D_TARGET(Avx512, 64, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))))
CONV1D_TARGET(Avx2, 32, __attribute__((target("avx2,fma"))))
#endif
CONV1D_TARGET(Portable, 16, )

template <typename Type>
inline void run_on_this_machine(const Problem& p, int64_t begin, int64_t end) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return Avx512::run<Type>(p, begin, end);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Avx2::run<Type>(p, begin, end);
#endif
    Portable::run<Type>(p, begin, end);
}

#undef CONV1D_TARGET
#undef CONV1D_INLINE

}  // namespace cpu

// How many independent tasks the problem makes.
inline int64_t cpu_task_count(const Problem& p) {
    const cpu::Blocks blocks(p);
    return p.N * p.G * blocks.outputs * blocks.positions;
}

// How many tasks are worth waking a thread for: about 10 us of work.
inline int64_t cpu_task_grain(const Problem& p) {
    const int64_t products = std::min(p.O, cpu::kOutputBlock) * p.C * p.K * std::min(p.P, cpu::position_block(p));
    return std::max<int64_t>(1, 500000 / products);
}

// Runs tasks [begin, end) on the calling thread.
inline void cpu_run_tasks(const Problem& p, int64_t begin, int64_t end) {
    switch (p.dtype) {
        case Dtype::float32: return cpu::run_on_this_machine<cpu::Native<float>>(p, begin, end);
        case Dtype::float64: return cpu::run_on_this_machine<cpu::Native<double>>(p, begin, end);
        case Dtype::float16: return cpu::run_on_this_machine<cpu::Float16>(p, begin, end);
        case Dtype::bfloat16: return cpu::run_on_this_machine<cpu::Bfloat16>(p, begin, end);
    }
}

}  // namespace conv1d
