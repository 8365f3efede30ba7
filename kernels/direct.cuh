// The route that is right for every valid problem, in plain multiply-adds: fp32 at full accuracy, fp64,
// 16-bit with fp32 sums; any strides, any sizes, sm_75 and later. Three kernels: "short" for few products an
// output (bound by stores), "small" for problems that fill no multiprocessors otherwise, and the general one.
//
// A block of the general one computes kO output channels x kP output positions; a step of the reduction
// brings some channels x some taps into shared memory: x as a Window (tile.cuh), w as [channel][tap][kO]. A
// warp owns kThreadO output channels and 256 positions, a thread 8 of those, 32 apart: x is read and y
// written along rows, w is read by broadcast. Where rows are short, a tile runs on from one sample to the
// next ("flat"); no taps share x then. Sums of fp32 are cut into pieces of about 512 products, added up in
// y: the error stays that of a short sum. Cost: at 64 x 256 outputs 10 shared reads for 64 multiply-adds.
#pragma once
#include <algorithm>
#include <type_traits>

#include "problem.h"
#include "tile.cuh"

namespace conv1d {
namespace direct {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kThreadP = 8;
constexpr int kMaxTaps = 32;       // of a step
constexpr int kMaxProducts = 32;   // (channel, tap) pairs of a step
constexpr int kSmemBytes = 46080;  // below the 48 KB that need no permission
constexpr int kPieceProducts = 512;

template <class Element_, int kThreadO_, int kWarpsO>
struct Tile {
    using Element = Element_;
    using Sum = typename SumOf<Element>::Type;
    static constexpr int kThreadO = kThreadO_;
    static constexpr int kO = kThreadO * kWarpsO;
    static constexpr int kWarpP = 32 * kThreadP;
    static constexpr bool kPieces = std::is_same<Element, float>::value;  // whether long sums are cut
    static constexpr int kMaxChannels = 32 / sizeof(Sum);  // of a step: 32 bytes of x wait in registers
    static constexpr int kP = kWarpP * (kWarps / kWarpsO);
    static constexpr int kWPitch = kO + 4;  // 4 mod 32 where kO is 32 or 64: filled without bank conflicts
    static constexpr int kMaxXSlots = kSmemBytes / static_cast<int>(sizeof(Sum)) - kMaxProducts * kWPitch;
    static_assert(kMaxXSlots >= kP, "one channel of one tap must fit into shared memory");
};

struct Params {
    Problem problem;
    Window<kMaxTaps> window;
    int32_t taps;       // of a step; the last may have fewer
    int32_t channels;   // of a step; the last may have fewer
    int64_t tap_steps;  // steps that share channels
    int64_t steps;
    bool flat;  // positions count through all samples
    int64_t o_tiles, p_tiles, tiles;
    int32_t rounds;  // of the grid over all tiles
};

// What one block computes. Kept in shared memory: the sums leave few registers.
struct Place {
    int64_t n, g, o_begin, p_begin;
};

// One output position: its sample, and where in the sample.
struct Position {
    int64_t n, p;
    bool valid;
};

__device__ __forceinline__ Position position_at(const Params& params, const Place& place, int64_t index) {
    const Problem& problem = params.problem;
    if (!params.flat) return {place.n, index, index < problem.P};
    const int64_t sample = index / problem.P;
    return {sample, index - sample * problem.P, sample < problem.N};
}

// Both fills load all that a thread brings before they store any of it.
template <class Tile>
__device__ __forceinline__ void fill_x(const Params& params, const Place& place, typename Tile::Sum* x_smem,
                                       int64_t channel_begin, int channels, int64_t tap_begin) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const Window<kMaxTaps>& window = params.window;
    const Element* x =
        static_cast<const Element*>(problem.x) + (place.g * problem.C + channel_begin) * problem.x_stride_c;
    for (int row = threadIdx.x; row < window.plane_rows; row += kThreads) {
        // Rows past the last position of a tile that is not flat hold what later taps read.
        const Position at = position_at(params, place, place.p_begin + row);
        const int64_t l0 = at.p * problem.stride - problem.pad_left + tap_begin * problem.dilation;
        for (int plane = 0; plane < window.planes; ++plane) {
            const int64_t l = l0 + window.plane_offset[plane];
            const bool inside = l >= 0 && l < problem.L && (at.valid || !params.flat);
            const Element* source = x + at.n * problem.x_stride_n + l * problem.x_stride_l;
            typename Tile::Sum* target = x_smem + plane * window.plane_rows + row;
            Element value[Tile::kMaxChannels];
#pragma unroll
            for (int c = 0; c < Tile::kMaxChannels; ++c) {
                value[c] = inside && c < channels ? source[c * problem.x_stride_c] : Element{};
            }
#pragma unroll
            for (int c = 0; c < Tile::kMaxChannels; ++c) {
                if (c < channels) target[c * window.slots()] = widen(value[c]);
            }
        }
    }
}

template <class Tile>
__device__ __forceinline__ void fill_w(const Params& params, const Place& place, typename Tile::Sum* w_smem,
                                       int64_t channel_begin, int channels, int64_t tap_begin, int taps) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const Element* w = static_cast<const Element*>(problem.w);
    // A warp reads 8 neighbours of 4 rows, which fall into 32 different banks.
    const int lane_o = threadIdx.x / 32 * 4 + threadIdx.x % 4;
    const int lane_product = threadIdx.x % 32 / 4;
    const int products = channels * taps;
    for (int o = lane_o; o < Tile::kO; o += kWarps * 4) {
        const bool inside = place.o_begin + o < problem.O;
        const int64_t channel = place.g * problem.O + place.o_begin + o;
        const Element* row = w + (channel * problem.C + channel_begin) * problem.K + tap_begin;
        Element value[kMaxProducts / 8];
#pragma unroll
        for (int i = 0; i < kMaxProducts / 8; ++i) {
            const int product = lane_product + 8 * i;
            const int64_t offset = taps == problem.K ? product : product / taps * problem.K + product % taps;
            value[i] = inside && product < products ? row[offset] : Element{};
        }
#pragma unroll
        for (int i = 0; i < kMaxProducts / 8; ++i) {
            const int product = lane_product + 8 * i;
            if (product < products) w_smem[product * Tile::kWPitch + o] = widen(value[i]);
        }
    }
}

template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const typename Tile::Sum* x_smem,
                                         const typename Tile::Sum* w_smem, int channels, int taps,
                                         typename Tile::Sum (&sum)[Tile::kThreadO][kThreadP]) {
    using Sum = typename Tile::Sum;
    constexpr int kVector = 16 / sizeof(Sum);
    for (int c = 0; c < channels; ++c) {
        for (int tap = 0; tap < taps; ++tap) {
            const Sum* x_row = x_smem + c * params.window.slots() + params.window.tap_slot[tap];
            Sum x_frag[kThreadP];
#pragma unroll
            for (int j = 0; j < kThreadP; ++j) x_frag[j] = x_row[32 * j];
#pragma unroll
            for (int i = 0; i < Tile::kThreadO; i += kVector) {
                const auto w_frag = *reinterpret_cast<const Vector<Sum, kVector>*>(w_smem + i);
#pragma unroll
                for (int v = 0; v < kVector; ++v) {
#pragma unroll
                    for (int j = 0; j < kThreadP; ++j) sum[i + v][j] += w_frag.at[v] * x_frag[j];
                }
            }
            w_smem += Tile::kWPitch;
        }
    }
}

// y = sum, or y + sum where earlier pieces lie there, with the bias if this is the last piece.
template <class Tile>
__device__ __forceinline__ void store(const Params& params, const Place& place, uint32_t thread_o,
                                      uint32_t thread_p, bool first_piece, bool last_piece,
                                      const typename Tile::Sum (&sum)[Tile::kThreadO][kThreadP]) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int64_t channel = place.g * problem.O + place.o_begin + thread_o;
    const int rows = static_cast<int>(min(problem.O - place.o_begin - thread_o, int64_t{Tile::kThreadO}));
    typename Tile::Sum bias[Tile::kThreadO];
#pragma unroll
    for (int i = 0; i < Tile::kThreadO; ++i) {
        const bool biased = last_piece && problem.bias != nullptr && i < rows;
        bias[i] = biased ? widen(static_cast<const Element*>(problem.bias)[channel + i]) : 0;
    }
    const int64_t p_begin = place.p_begin + thread_p;
#pragma unroll
    for (int j = 0; j < kThreadP; ++j) {
        const Position at = position_at(params, place, p_begin + 32 * j);
        if (!at.valid) continue;
        Element* y =
            static_cast<Element*>(problem.y) + (at.n * problem.G * problem.O + channel) * problem.P + at.p;
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; ++i) {
            if (i >= rows) break;
            typename Tile::Sum value = sum[i][j] + bias[i];
            if (Tile::kPieces && !first_piece) value += widen(*y);
            *y = narrow<Element>(value);
            y += problem.P;
        }
    }
}

// Activates what this thread has stored of its tile. Apart from store, whose 64 unrolled values would make
// that 1,000 instructions; next to the reduction, reading y back costs little.
template <class Tile>
__device__ __forceinline__ void activate_stored(const Params& params, const Place& place, uint32_t thread_o,
                                                uint32_t thread_p) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int64_t channel = place.g * problem.O + place.o_begin + thread_o;
    const int rows = static_cast<int>(min(problem.O - place.o_begin - thread_o, int64_t{Tile::kThreadO}));
#pragma unroll 1
    for (int j = 0; j < kThreadP; ++j) {
        const Position at = position_at(params, place, place.p_begin + thread_p + 32 * j);
        if (!at.valid) continue;
        Element* y =
            static_cast<Element*>(problem.y) + (at.n * problem.G * problem.O + channel) * problem.P + at.p;
        Element value[Tile::kThreadO];
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; ++i) value[i] = i < rows ? y[i * problem.P] : Element{};
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; ++i) {
            value[i] = activate<Element, true>(problem.activation, widen(value[i]));
            if (i < rows) y[i * problem.P] = value[i];
        }
    }
}

// Blocks that share a multiprocessor's registers. With two, ptxas for sm_120 spills some of the largest tile.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kBlocksPerSm = 1;
#else
constexpr int kBlocksPerSm = 2;
#endif

template <class Tile>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    direct_forward_kernel(const __grid_constant__ Params params) {
    using Sum = typename Tile::Sum;
    extern __shared__ __align__(16) unsigned char smem[];
    Sum* w_smem = reinterpret_cast<Sum*>(smem);           // [channel][tap][kWPitch]
    Sum* x_smem = w_smem + kMaxProducts * Tile::kWPitch;  // [channel][slot]

    __shared__ Place place;
    const Problem& problem = params.problem;
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t thread_o = warp % (Tile::kO / Tile::kThreadO) * Tile::kThreadO;
    const uint32_t thread_p = warp / (Tile::kO / Tile::kThreadO) * Tile::kWarpP + threadIdx.x % 32;

    for (int round = 0; round < params.rounds; ++round) {
        const int64_t index = blockIdx.x + static_cast<int64_t>(round) * gridDim.x;
        if (index >= params.tiles) break;
        __syncthreads();  // the tile before has been computed
        if (threadIdx.x == 0) {
            const int64_t row = index / params.o_tiles;
            place.o_begin = index % params.o_tiles * Tile::kO;
            place.p_begin = row % params.p_tiles * Tile::kP;
            place.g = row / params.p_tiles % problem.G;
            place.n = row / params.p_tiles / problem.G;  // 0 where tiles are flat
        }
        __syncthreads();

        for (int64_t step = 0; step < params.steps;) {
            const bool first_piece = step == 0;
            Sum sum[Tile::kThreadO][kThreadP] = {};
            int products = 0;
            do {
                const int64_t channel = step / params.tap_steps * params.channels;
                const int64_t tap = step % params.tap_steps * params.taps;
                const int channels = min(params.channels, static_cast<int>(problem.C - channel));
                const int taps = min(params.taps, static_cast<int>(problem.K - tap));
                fill_x<Tile>(params, place, x_smem, channel, channels, tap);
                fill_w<Tile>(params, place, w_smem, channel, channels, tap, taps);
                __syncthreads();
                multiply<Tile>(params, x_smem + thread_p, w_smem + thread_o, channels, taps, sum);
                __syncthreads();  // this step has been read
                products += channels * taps;
            } while (++step < params.steps && (!Tile::kPieces || products < kPieceProducts));
            store<Tile>(params, place, thread_o, thread_p, first_piece, step == params.steps, sum);
        }
        if (problem.activation != Activation::none) {
            activate_stored<Tile>(params, place, thread_o, thread_p);
        }
    }
}

template <class Tile>
Params plan(const Problem& problem) {
    Params params{};
    params.problem = problem;
    params.flat = 2 * problem.P < Tile::kP;
    const auto fits = [&](int64_t channels) {
        return channels * params.taps <= kMaxProducts &&
               channels * params.window.slots() <= Tile::kMaxXSlots;
    };
    // The most taps that leave room for a channel; one tap always does.
    for (int64_t most = problem.K < kMaxTaps ? problem.K : kMaxTaps;; --most) {
        params.taps = static_cast<int32_t>(ceil_div(problem.K, ceil_div(problem.K, most)));
        params.window =
            plan_window<kMaxTaps>(params.taps, Tile::kP, problem.stride, problem.dilation, !params.flat);
        if (fits(1)) break;
    }
    params.channels = 1;
    while (params.channels < problem.C && params.channels < Tile::kMaxChannels && fits(params.channels + 1))
        ++params.channels;
    params.tap_steps = ceil_div(problem.K, params.taps);
    params.steps = ceil_div(problem.C, params.channels) * params.tap_steps;
    params.o_tiles = ceil_div(problem.O, Tile::kO);
    params.p_tiles = ceil_div(params.flat ? problem.N * problem.P : problem.P, Tile::kP);
    params.tiles = params.o_tiles * params.p_tiles * problem.G * (params.flat ? 1 : problem.N);
    params.rounds = static_cast<int32_t>(ceil_div(params.tiles, kMaxBlocks));
    return params;
}

template <class Tile>
Error launch_tile(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Tile>(problem);
    const auto blocks = static_cast<unsigned>(params.tiles < kMaxBlocks ? params.tiles : kMaxBlocks);
    const size_t smem_bytes = (kMaxProducts * Tile::kWPitch + params.channels * params.window.slots()) *
                              sizeof(typename Tile::Sum);
    direct_forward_kernel<Tile><<<blocks, kThreads, smem_bytes, stream>>>(params);
    return launch_error();
}

// Few products an output (C*K up to some hundreds): the whole reduction lies in shared memory at once, so a
// block fills and waits once, then each warp goes its own way over its outputs, stores overlapping products.
// x lies as [channel][phase][row], l - l_begin = row*stride + phase: a tap of every stride is a shift.
template <class Element_, int kThreadO_, int kThreadP_>
struct ShortTile {
    using Element = Element_;
    using Sum = typename SumOf<Element>::Type;
    static constexpr int kThreadO = kThreadO_;
    static constexpr int kThreadP = kThreadP_;
    static constexpr int kWarpP = 32 * kThreadP;  // positions of a warp, a thread's 32 apart
};

struct ShortParams {
    Problem problem;
    int32_t warps_o, warps_p;  // of a block
    int32_t rounds;            // runs of warps_p warps that a block computes
    int32_t products;          // C*K
    Divisor w_rows;            // products + 1: the last is the bias
    Divisor positions;         // of x that a block reads
    Divisor stride;
    int32_t plane_rows;        // of one phase of one channel
    int32_t w_pitch;           // output channels of a block + 4
    int32_t x_slot;            // where x begins in shared memory: after products + 1 rows of weights
    int32_t x_slots;
    int64_t o_tiles, p_tiles, tiles;
    size_t smem_bytes;
};

// Brings weights and bias, then x, in one run of items: all loads of a thread are in flight at once.
template <class Tile>
__device__ __forceinline__ void fill_short(const ShortParams& params, int64_t n, int64_t g, int64_t o_begin,
                                           int64_t l_begin, typename Tile::Sum* smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int64_t channel = g * problem.O + o_begin;
    const Element* w = static_cast<const Element*>(problem.w) + channel * params.products;
    const Element* bias = static_cast<const Element*>(problem.bias) + (problem.bias == nullptr ? 0 : channel);
    const Element* x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                       g * problem.C * problem.x_stride_c + l_begin * problem.x_stride_l;
    // Whole warps bring either weights or x.
    const uint32_t w_items = (params.w_rows.divisor * (params.w_pitch - 4) + 31) / 32 * 32;
    const uint32_t items = w_items + static_cast<uint32_t>(problem.C) * params.positions.divisor;
    constexpr int kBatch = 8;
    for (uint32_t begin = threadIdx.x; begin < items; begin += kBatch * blockDim.x) {
        Element value[kBatch];
        int32_t slot[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            const uint32_t item = begin + i * blockDim.x;
            const Element* source = nullptr;
            slot[i] = -1;
            if (item < w_items) {
                const uint32_t o = params.w_rows.quotient(item);
                const uint32_t product = item - o * params.w_rows.divisor;
                const bool is_bias = product + 1 == params.w_rows.divisor;
                if (o + 4 < params.w_pitch) slot[i] = product * params.w_pitch + o;
                if (o_begin + o < problem.O && !(is_bias && problem.bias == nullptr))
                    source = is_bias ? bias + o : w + (o * params.products + product);
            } else if (item < items) {
                const uint32_t c = params.positions.quotient(item - w_items);
                const uint32_t offset = item - w_items - c * params.positions.divisor;
                const uint32_t row = params.stride.quotient(offset);
                const uint32_t plane = (c - row) * params.stride.divisor + offset;
                slot[i] = params.x_slot + plane * params.plane_rows + row;
                if (static_cast<uint64_t>(l_begin + offset) < static_cast<uint64_t>(problem.L))
                    source = x + c * problem.x_stride_c + offset * problem.x_stride_l;
            }
            value[i] = source == nullptr ? Element{} : *source;
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            if (slot[i] >= 0) smem[slot[i]] = widen(value[i]);
        }
    }
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, 2)
    direct_short_kernel(const __grid_constant__ ShortParams params) {
    using Element = typename Tile::Element;
    using Sum = typename Tile::Sum;
    constexpr int kVector = 16 / sizeof(Sum);
    extern __shared__ __align__(16) unsigned char smem[];
    Sum* w_smem = reinterpret_cast<Sum*>(smem);  // [product][w_pitch], then the bias
    Sum* x_smem = w_smem + params.x_slot;        // [channel][phase][row]
    int32_t* slot_smem = reinterpret_cast<int32_t*>(x_smem + params.x_slots);  // [product]: where row 0 lies

    const Problem& problem = params.problem;
    const uint32_t tile = blockIdx.x / static_cast<uint32_t>(params.o_tiles);
    const uint32_t sample = tile / static_cast<uint32_t>(params.p_tiles);
    const int64_t n = sample / static_cast<uint32_t>(problem.G);
    const int64_t g = sample - n * problem.G;
    const int64_t o_begin =
        (blockIdx.x - tile * params.o_tiles) * static_cast<int64_t>(params.w_pitch - 4);
    const int32_t round_p = params.warps_p * Tile::kWarpP;
    const int64_t p_begin = (tile - sample * params.p_tiles) * params.rounds * round_p;

    fill_short<Tile>(params, n, g, o_begin, p_begin * problem.stride - problem.pad_left, w_smem);
    for (uint32_t product = threadIdx.x; product < params.products; product += blockDim.x) {
        const uint32_t c = product / static_cast<uint32_t>(problem.K);
        const uint32_t offset = (product - c * static_cast<uint32_t>(problem.K)) * problem.dilation;
        const uint32_t row = params.stride.quotient(offset);
        slot_smem[product] = ((c - row) * params.stride.divisor + offset) * params.plane_rows + row;
    }
    __syncthreads();

    const uint32_t warp = threadIdx.x / 32;
    const uint32_t thread_o = warp % params.warps_o * Tile::kThreadO;
    const int rows = static_cast<int>(min(problem.O - o_begin - thread_o, int64_t{Tile::kThreadO}));
    if (rows <= 0) return;
    for (int32_t round = 0; round < params.rounds; ++round) {
        const int32_t warp_p = round * round_p + warp / params.warps_o * Tile::kWarpP;
        if (p_begin + warp_p >= problem.P) break;
        const int32_t thread_p = warp_p + threadIdx.x % 32;
        const Sum* w_row = w_smem + thread_o;
        Sum sum[Tile::kThreadO][Tile::kThreadP] = {};
#pragma unroll 2
        for (int32_t product = 0; product < params.products; ++product) {
            const Sum* x_row = x_smem + slot_smem[product] + thread_p;
            Sum x_frag[Tile::kThreadP];
#pragma unroll
            for (int j = 0; j < Tile::kThreadP; ++j) x_frag[j] = x_row[32 * j];
#pragma unroll
            for (int i = 0; i < Tile::kThreadO; i += kVector) {
                const auto w_frag = *reinterpret_cast<const Vector<Sum, kVector>*>(w_row + i);
#pragma unroll
                for (int v = 0; v < kVector; ++v) {
#pragma unroll
                    for (int j = 0; j < Tile::kThreadP; ++j) sum[i + v][j] += w_frag.at[v] * x_frag[j];
                }
            }
            w_row += params.w_pitch;
        }
        // w_row is the bias now.
        const int64_t p = p_begin + thread_p;
        const int left = static_cast<int>(min(problem.P - p, int64_t{Tile::kWarpP}));
        Element* y = static_cast<Element*>(problem.y) +
                     ((n * problem.G + g) * problem.O + o_begin + thread_o) * problem.P + p;
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; ++i) {
            if (i >= rows) break;
            const Sum bias = w_row[i];
#pragma unroll
            for (int j = 0; j < Tile::kThreadP; ++j) {
                if (32 * j < left) y[32 * j] = narrow<Element>(sum[i][j] + bias);
            }
            y += problem.P;
        }
        if (problem.activation != Activation::none) {  // reads back what this thread has stored
#pragma unroll 1
            for (int i = 0; i < min(rows, Tile::kThreadO); ++i) {
                y -= problem.P;
                Element value[Tile::kThreadP];
#pragma unroll
                for (int j = 0; j < Tile::kThreadP; ++j) value[j] = 32 * j < left ? y[32 * j] : Element{};
#pragma unroll
                for (int j = 0; j < Tile::kThreadP; ++j) {
                    value[j] = activate<Element, true>(problem.activation, widen(value[j]));
                    if (32 * j < left) y[32 * j] = value[j];
                }
            }
        }
    }
}

// tiles is 0 where the problem does not suit: too much for shared memory, taps that leave most of x unread,
// or rows so short that a flat tile of the general kernel wins.
template <class Tile>
ShortParams plan_short(const Problem& problem) {
    using Sum = typename Tile::Sum;
    ShortParams params{};
    params.problem = problem;
    if (problem.P < 48 || problem.C > kPieceProducts || problem.K > kPieceProducts ||
        problem.C * problem.K > kPieceProducts || problem.stride > 2 * problem.K || problem.dilation > 64) {
        return params;
    }
    params.products = static_cast<int32_t>(problem.C * problem.K);
    // As many output channels a block as leave no more of the last block's empty than fewer would.
    const int64_t channel_warps = ceil_div(problem.O, Tile::kThreadO);
    params.warps_o = channel_warps <= 2 ? static_cast<int32_t>(channel_warps) : 4;
    if (round_up(channel_warps, kWarps) == round_up(channel_warps, 4)) params.warps_o = kWarps;
    params.w_pitch = params.warps_o * Tile::kThreadO + 4;
    params.w_rows = plan_divisor(params.products + 1);
    params.stride = plan_divisor(problem.stride);
    params.x_slot = (params.products + 1) * params.w_pitch;
    params.o_tiles = ceil_div(problem.O, params.warps_o * Tile::kThreadO);
    const auto set = [&](int64_t warps_p, int64_t rounds) {
        const int64_t rows = warps_p * rounds * Tile::kWarpP;
        const int64_t positions = (rows - 1) * problem.stride + (problem.K - 1) * problem.dilation + 1;
        // Neighbours in x, which fall into `stride` planes, fall into different banks.
        const int64_t bank = problem.stride == 1 ? 0 : ceil_div(32, problem.stride);
        const int64_t plane_rows = round_up(ceil_div(positions, problem.stride), 32) + bank;
        const int64_t x_slots = problem.C * problem.stride * plane_rows;
        params.warps_p = static_cast<int32_t>(warps_p);
        params.rounds = static_cast<int32_t>(rounds);
        params.positions = plan_divisor(positions);
        params.plane_rows = static_cast<int32_t>(plane_rows);
        params.x_slots = static_cast<int32_t>(x_slots);
        params.p_tiles = ceil_div(problem.P, rows);
        params.tiles = params.o_tiles * params.p_tiles * problem.G * problem.N;
        params.smem_bytes = (params.x_slot + x_slots) * sizeof(Sum) + params.products * sizeof(int32_t);
    };
    // As many warps as there are positions and shared memory for.
    const size_t room = std::min(problem.device.smem_bytes, 65536);
    int64_t warps_p = kWarps / params.warps_o;
    while (warps_p > 1 && warps_p / 2 * Tile::kWarpP >= problem.P) warps_p /= 2;
    for (;; warps_p /= 2) {
        set(warps_p, 1);
        if (params.smem_bytes <= room || warps_p == 1) break;
    }
    if (params.smem_bytes > room || params.tiles > kMaxBlocks) {
        params.tiles = 0;
        return params;
    }
    // More rounds share one filling while four waves of blocks remain.
    int64_t rounds = 1;
    while (rounds < kWarps) {
        set(warps_p, 2 * rounds);
        if (params.smem_bytes > kSmemBytes || params.tiles < 8 * problem.device.sm_count) break;
        rounds *= 2;
    }
    set(warps_p, rounds);
    return params;
}

template <class Tile>
Error launch_short(const ShortParams& params, cudaStream_t stream) {
    if (params.smem_bytes > kSmemBytes) {
        const Error error = allow_smem<direct_short_kernel<Tile>>(params.problem.device);
        if (error != nullptr) return error;
    }
    const int threads = 32 * params.warps_o * params.warps_p;
    direct_short_kernel<Tile>
        <<<static_cast<unsigned>(params.tiles), threads, params.smem_bytes, stream>>>(params);
    return launch_error();
}

// Problems whose general tiles would leave multiprocessors without work: a block computes 8 output channels x
// 32 positions, counted through all samples, and its warps share the reduction. One position a lane; x comes
// straight from global memory, and a warp's next 32 products of weights by way of its shared memory.
constexpr int kSmallO = 8;
constexpr int kSmallP = 32;
constexpr int kMaxSmallWarps = 16;
constexpr int kSmallProducts = 32;  // of weights in a warp's shared memory
constexpr int kSmallPiece = 256;    // products summed before they join the sum of all
constexpr int kShortSum = 64;       // products up to which one warp sums all, in the order of other kernels

// Blocks that registers are shared by. With two, ptxas for sm_100 spills some.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kSmallBlocks = 1;
#else
constexpr int kSmallBlocks = 2;
#endif

struct SmallParams {
    Problem problem;
    int32_t warps;     // of a block
    int32_t products;  // of a warp
    int64_t o_tiles, p_tiles, tiles;
};

struct alignas(16) SmallMemory {
    float w[kMaxSmallWarps][kSmallProducts][kSmallO];  // and then the warps' sums, [warp][channel][position]
};

template <class Element>
__global__ void __launch_bounds__(32 * kMaxSmallWarps, kSmallBlocks)
    direct_small_kernel(const __grid_constant__ SmallParams params) {
    __shared__ SmallMemory memory;
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t row = blockIdx.x / static_cast<uint32_t>(params.o_tiles);
    const int64_t o_begin = (blockIdx.x - row * params.o_tiles) * kSmallO;
    const int64_t g = row / static_cast<uint32_t>(params.p_tiles);
    const int64_t index = (row - g * params.p_tiles) * kSmallP + lane;
    const int64_t n = index / problem.P, p = index - n * problem.P;
    const int rows = static_cast<int>(min(problem.O - o_begin, int64_t{kSmallO}));
    const int K = static_cast<int>(problem.K), all = static_cast<int>(problem.C) * K;
    const int end = min((warp + 1) * params.products, all);
    const Element* const w = static_cast<const Element*>(problem.w) + (g * problem.O + o_begin) * all;
    const int64_t l_begin = p * problem.stride - problem.pad_left;
    const Element* const x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                             g * problem.C * problem.x_stride_c;
    float(&w_smem)[kSmallProducts][kSmallO] = memory.w[warp];
    float total[kSmallO] = {}, sum[kSmallO] = {};
    int summed = 0;
    for (int begin = warp * params.products; begin < end; begin += kSmallProducts) {
        const int count = min(end - begin, kSmallProducts);
        float weight[kSmallO];
#pragma unroll
        for (int o = 0; o < kSmallO; ++o)
            weight[o] = o < rows && lane < count ? widen(w[o * all + begin + lane]) : 0.0f;
        __syncwarp();  // the products before have been read
#pragma unroll
        for (int o = 0; o < kSmallO; ++o) w_smem[lane][o] = weight[o];
        __syncwarp();
        int c = begin / K, k = begin - c * K;
        constexpr int kUnroll = 8;
#pragma unroll 1
        for (int i = 0; i < count; i += kUnroll) {
            float value[kUnroll];
#pragma unroll
            for (int j = 0; j < kUnroll; ++j) {
                const int64_t l = l_begin + k * problem.dilation;
                const bool inside = n < problem.N && i + j < count && l >= 0 && l < problem.L;
                value[j] = inside ? widen(x[c * problem.x_stride_c + l * problem.x_stride_l]) : 0.0f;
                if (++k == K) k = 0, ++c;
            }
#pragma unroll
            for (int j = 0; j < kUnroll; ++j) {
#pragma unroll
                for (int o = 0; o < kSmallO; ++o) sum[o] += w_smem[i + j][o] * value[j];
            }
        }
        summed += count;
        if (summed >= kSmallPiece) {
            summed = 0;
#pragma unroll
            for (int o = 0; o < kSmallO; ++o) total[o] += sum[o], sum[o] = 0.0f;
        }
    }
    if (params.warps > 1) {
        float* const sums = &memory.w[0][0][0];
        __syncthreads();  // all weights have been read
#pragma unroll
        for (int o = 0; o < kSmallO; ++o) sums[(warp * kSmallO + o) * kSmallP + lane] = total[o] + sum[o];
        __syncthreads();
    }
    for (int o = warp; o < rows; o += params.warps) {
        float value = 0.0f;
        if (params.warps > 1) {
            for (int i = 0; i < params.warps; ++i)
                value += (&memory.w[0][0][0])[(i * kSmallO + o) * kSmallP + lane];
        } else {
#pragma unroll
            for (int i = 0; i < kSmallO; ++i) value = i == o ? total[i] + sum[i] : value;
        }
        const int64_t channel = g * problem.O + o_begin + o;
        if (problem.bias != nullptr) value += widen(static_cast<const Element*>(problem.bias)[channel]);
        if (n >= problem.N) continue;
        Element* const y =
            static_cast<Element*>(problem.y) + (n * problem.G * problem.O + channel) * problem.P + p;
        *y = problem.activation == Activation::none ? narrow<Element>(value)
                                                    : activate<Element, true>(problem.activation, value);
    }
}

// tiles is 0 where the problem does not suit.
inline SmallParams plan_small(const Problem& problem) {
    SmallParams params{};
    params.problem = problem;
    const int64_t products = problem.C * problem.K;
    params.o_tiles = ceil_div(problem.O, kSmallO);
    params.p_tiles = ceil_div(problem.N * problem.P, kSmallP);
    const int64_t tiles = params.o_tiles * params.p_tiles * problem.G;
    if (products * kSmallO > kMaxBlocks || tiles > kMaxBlocks || problem.N * problem.P > kMaxBlocks)
        return params;
    // Not by the number of samples: a sample's sums must not depend on others.
    const int64_t sample_tiles = params.o_tiles * ceil_div(problem.P, kSmallP) * problem.G;
    params.warps = 1;
    while (params.warps < kMaxSmallWarps && products > kShortSum * params.warps &&
           sample_tiles * params.warps < 8 * problem.device.sm_count)
        params.warps *= 2;
    params.products = static_cast<int32_t>(ceil_div(products, params.warps));
    params.tiles = tiles;
    return params;
}

// Whether the busiest multiprocessor takes longer over its share of other tiles, of some 25 products a cycle
// and `least_cycles` each, than over its share of small ones, of some 10.
inline bool prefers_small(int64_t tiles, int64_t tile_outputs, double least_cycles,
                          const SmallParams& small) {
    if (small.tiles == 0) return false;
    const double products = static_cast<double>(small.problem.C * small.problem.K);
    const int64_t sms = small.problem.device.sm_count;
    const double other = std::max(products * static_cast<double>(tile_outputs) / 25, least_cycles);
    return static_cast<double>(ceil_div(small.tiles, sms)) * (products * kSmallO * kSmallP / 10) <
           static_cast<double>(ceil_div(tiles, sms)) * other;
}

template <class Element>
Error launch_small(const SmallParams& params, cudaStream_t stream) {
    direct_small_kernel<Element>
        <<<static_cast<unsigned>(params.tiles), 32 * params.warps, 0, stream>>>(params);
    return launch_error();
}

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    if constexpr (std::is_same<Element, double>::value) {
        if (problem.O <= 4) return launch_tile<Tile<double, 2, 2>>(problem, stream);
        return launch_tile<Tile<double, 4, 8>>(problem, stream);
    } else {
        using Short = ShortTile<Element, 8, 2>;
        const SmallParams small = plan_small(problem);
        // Where sums differ by the kernel, it is chosen as for one sample.
        Problem sample = problem;
        sample.N = 1;
        const bool sums_alike = problem.C * problem.K <= kShortSum;
        const Problem& probe = sums_alike ? problem : sample;
        if (problem.O > 4) {
            const ShortParams params = plan_short<Short>(problem), probed = plan_short<Short>(probe);
            const int64_t warps = probed.rounds * probed.warps_o * probed.warps_p;
            const int64_t outputs = warps * Short::kThreadO * Short::kWarpP;
            // Bringing x, 8 elements a thread at a time, takes some 1500 cycles each time.
            const double cycles = 1500.0 * probed.x_slots / (8 * 32 * probed.warps_o * probed.warps_p);
            if (params.tiles > 0 && !prefers_small(probed.tiles, outputs, cycles, plan_small(probe)))
                return launch_short<Short>(params, stream);
        }
        const auto launch_general = [&](auto tile) {
            using General = decltype(tile);
            const bool alike = sums_alike && (problem.C == 1 || plan<General>(problem).taps == problem.K);
            const Problem& chosen_for = alike ? problem : sample;
            const int64_t tiles = plan<General>(chosen_for).tiles;
            if (prefers_small(tiles, General::kO * General::kP, 0, plan_small(chosen_for)))
                return launch_small<Element>(small, stream);
            return launch_tile<General>(problem, stream);
        };
        if (problem.O <= 4) return launch_general(Tile<Element, 4, 1>{});
        if (problem.O <= 16) return launch_general(Tile<Element, 4, 4>{});
        return launch_general(Tile<Element, 8, 8>{});
    }
}

}  // namespace direct

inline bool fits_direct(const Problem&) { return true; }

inline Error launch_direct(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    switch (problem.dtype) {
        case Dtype::float32:
            return direct::launch_element<float>(problem, stream);
        case Dtype::float64:
            return direct::launch_element<double>(problem, stream);
        case Dtype::float16:
            return direct::launch_element<__half>(problem, stream);
        default:
            return direct::launch_element<__nv_bfloat16>(problem, stream);
    }
}

}  // namespace conv1d
