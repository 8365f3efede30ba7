// The route that is right for every valid problem, in plain multiply-adds: fp32 at full accuracy, fp64,
// 16-bit with fp32 sums; any strides, any sizes, sm_75 and later.
//
// A block computes kO output channels x kP output positions; a step of the reduction brings some channels x
// some taps into shared memory: x as a Window (tile.cuh), w as [channel][tap][kO]. A warp owns kThreadO
// output channels and 256 positions, a thread 8 of those, 32 apart: x is read and y written along rows, w
// is read by broadcast. Where rows are short, a tile runs on from one sample to the next ("flat"); no taps
// share x then. Long sums of fp32 are cut into pieces of about 512 products, added up in y: the error stays
// that of a short sum. Cost: at 64 x 256 outputs 10 shared-memory reads for 64 multiply-adds.
#pragma once
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

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    if (problem.O <= 4) return launch_tile<Tile<Element, 4, 1>>(problem, stream);
    if (problem.O <= 16) return launch_tile<Tile<Element, 4, 4>>(problem, stream);
    return launch_tile<Tile<Element, 8, 8>>(problem, stream);
}

}  // namespace direct

inline bool fits_direct(const Problem&) { return true; }

inline Error launch_direct(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    using direct::launch_element;
    using direct::launch_tile;
    using direct::Tile;
    switch (problem.dtype) {
        case Dtype::float32: return launch_element<float>(problem, stream);
        case Dtype::float16: return launch_element<__half>(problem, stream);
        case Dtype::bfloat16: return launch_element<__nv_bfloat16>(problem, stream);
        case Dtype::float64: break;
    }
    // Sums of fp64 take two registers each, so half as many output channels a thread.
    if (problem.O <= 4) return launch_tile<Tile<double, 2, 2>>(problem, stream);
    return launch_tile<Tile<double, 4, 8>>(problem, stream);
}

}  // namespace conv1d
