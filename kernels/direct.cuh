// The route that is right for every valid problem, in plain multiply-adds: fp32 at full accuracy, fp64,
// 16-bit with fp32 sums; any strides, any sizes, sm_75 and later. Two kernels: "chunk" for few products, few
// channels or few outputs, and the general one.
//
// A block of the general one computes kO output channels x kP output positions; a step of the reduction
// brings some channels x some taps into shared memory: x as a Window (tile.cuh), w as [channel][tap][kO]. A
// warp owns kThreadO output channels and 256 positions, a thread 8 of those, 32 apart: x is read and y
// written along rows, w is read by broadcast. Where rows are short, a tile runs on from one sample to the
// next ("flat"); no taps share x then. Sums of fp32 are cut into pieces of about 512 products, added up in
// y: the error stays that of a short sum. Cost: at 64 x 256 outputs 10 shared reads for 64 multiply-adds.
#pragma once
#include <algorithm>
#include <numeric>
#include <type_traits>

#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace direct {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kThreadP = 8;
constexpr int kMaxTaps = 32;       // of a step
constexpr int kMaxProducts = 32;   // (channel, tap) pairs of a step
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
    static constexpr int kMaxXSlots =
        kPlainSmemBytes / static_cast<int>(sizeof(Sum)) - kMaxProducts * kWPitch;
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

// Few products an output, few channels or few outputs: a block brings a chunk of the reduction, weights and
// the window of x, into shared memory at once; often that is all of it. Then each warp goes its own way over
// its outputs, kThreadO channels x 128 positions. x lies as [channel][plane][row]: a plane holds positions
// `stride` apart, so that a tap is a shift. Samples too short for a warp lie one after another, `pitch` rows
// apart, and positions count through them. Sums are cut into pieces of up to 64 products, added up in order;
// where one sample makes little work, warps share the pieces of the same outputs.
constexpr int kPieceSize = 64;
constexpr int64_t kChunkP = 128;  // positions of a warp

// Where ptxas spills some registers otherwise, one block less shares them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 800 && __CUDA_ARCH__ != 900
constexpr int kFewerBlocks = 1;
#else
constexpr int kFewerBlocks = 0;
#endif

template <class Element_, int kThreadO_>
struct ChunkTile {
    using Element = Element_;
    static constexpr int kThreadO = kThreadO_;
    static constexpr int kThreadP = kChunkP / 32;  // 32 apart
    static constexpr int kValues = kThreadO * kThreadP;
    // Blocks that registers are shared by; elements that a thread loads before it stores any, unless copies
    // go straight to shared memory. How many are in flight bounds 16 bits: 5x663x19661 to 204, K4 g51 takes
    // 284, 226 and 175 us with 2 blocks and 8 elements, 3 and 8, 3 and 16.
    static constexpr int kBlocks = kValues > 16 ? 2 : 3;
    static constexpr int kBatch = kValues > 16 ? 6 : 16;
    static_assert(kThreadO % 4 == 0, "weights are read 4 at a time");
};

struct ChunkParams {
    Problem problem;
    int32_t threads;
    int32_t warps_p;            // of a block, along positions
    Divisor warps_o, warps_k;   // along output channels; warps_k share the pieces of the same outputs
    int32_t rounds;             // runs of warps_p warps that a block computes, where one chunk is all
    int32_t channels;           // of a chunk: more than one only with all taps
    Divisor taps;               // of a chunk
    Divisor tap_chunks;
    int32_t chunks;
    int32_t piece;              // products of a piece, at most
    int32_t group;              // products that pieces begin anew with
    Divisor group_pieces;
    int32_t chunk_pieces;
    int32_t w_pitch;            // output channels of a block + 4
    // Planes are all residues of l modulo the stride, a tap's that of its offset ("dense"), or those of the
    // first taps, which repeat after some, `cycle_rows` rows on.
    bool dense;
    Divisor cycle;              // positions, or taps, after which planes repeat
    int32_t cycle_rows;
    Divisor samples;            // of a block
    Divisor planes;
    int32_t line_rows;          // of one plane of one channel of one sample
    // What threads bring at a time: of x [line][row][plane], of weights [8 products][4 output channels]. A
    // line is a channel of a sample.
    Divisor step_rows;
    int32_t parts;              // of a line
    int32_t step_lines;
    Divisor step_quads;
    int32_t step_eights;
    int32_t plane_step;         // input positions from a plane's row 0 to the next's
    int32_t plane_rows, channel_slots;
    Divisor pitch;              // rows from a sample to the next
    int32_t w_slot, x_slot;     // in shared memory, after the bias and the products' slots
    IndexDivisor o_tiles, p_tiles, g_tiles;  // tiles count in [sample][group][position][output channel]
    int64_t tiles;
    size_t smem_bytes;

    // Where row 0 of a product's x lies in shared memory.
    __device__ __forceinline__ int32_t slot_of(uint32_t product) const {
        const uint32_t c = taps.quotient(product), k = product - c * taps.divisor;
        const uint32_t at = dense ? k * static_cast<uint32_t>(problem.dilation) : k;
        const uint32_t turn = cycle.quotient(at), plane = at - turn * cycle.divisor;
        return x_slot + c * channel_slots + plane * plane_rows + turn * cycle_rows;
    }
};

// What one block computes: some outputs of `samples` samples.
struct ChunkPlace {
    int64_t n, g, o_begin, p_begin;
    int32_t outputs, samples;  // that there are
};

// Each thread finds it where it needs it: registers do not last for it, and to wait until one thread has put
// it into shared memory would cost tiny problems 5 % of their time. (That would be better for many rounds:
// encodec_stem in fp32 .162, not .171.)
__device__ __forceinline__ ChunkPlace find_place(const ChunkParams& params) {
    const Problem& problem = params.problem;
    const uint32_t block = ptx::anew(blockIdx.x);
    const uint32_t run = params.o_tiles.quotient(block), run_g = params.p_tiles.quotient(run);
    const uint32_t run_n = params.g_tiles.quotient(run_g);
    const int32_t block_o = params.w_pitch - 4, block_n = params.samples.divisor;
    const int32_t block_p = params.rounds * params.warps_p * static_cast<int32_t>(kChunkP);
    ChunkPlace place;
    place.n = static_cast<int64_t>(run_n) * block_n;
    place.g = run_g - run_n * params.g_tiles.divisor;
    place.o_begin = static_cast<int64_t>(block - run * params.o_tiles.divisor) * block_o;
    place.p_begin = static_cast<int64_t>(run - run_g * params.p_tiles.divisor) * block_p;
    place.outputs = static_cast<int32_t>(min(problem.O - place.o_begin, int64_t{block_o}));
    place.samples = static_cast<int32_t>(min(problem.N - place.n, int64_t{block_n}));
    return place;
}

// Brings `count` elements, `step` apart, to slots of shared memory; zeros for those whose positions, counted
// from `position` on, are not below `size`. 4 bytes go straight, others through registers, several in flight.
template <class Tile>
__device__ __forceinline__ void bring(float* target, int32_t target_step,
                                      const typename Tile::Element* source, int64_t step, int32_t count,
                                      uint32_t position, uint32_t position_step, uint32_t size) {
    using Element = typename Tile::Element;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    constexpr bool kAsync = sizeof(Element) == 4;
#else
    constexpr bool kAsync = false;
#endif
    if constexpr (kAsync) {
#pragma unroll 4
        for (int32_t i = 0; i < count; ++i) {
            ptx::cp_async<4>(ptx::smem_address(target), source, position < size ? 4 : 0);
            source += step;
            target += target_step;
            position += position_step;
        }
    } else {
#pragma unroll 1
        for (; count > 0; count -= Tile::kBatch) {
            Element value[Tile::kBatch];
#pragma unroll
            for (int i = 0; i < Tile::kBatch; ++i) {
                value[i] = i < count && position < size ? *source : Element{};
                source += step;
                position += position_step;
            }
#pragma unroll
            for (int i = 0; i < Tile::kBatch; ++i) {
                if (i < count) *target = widen(value[i]);
                target += target_step;
            }
        }
    }
}

// Weights of `products` products from a channel's tap on. A warp brings 8 neighbours of 4 rows, which fall
// into different banks.
template <class Tile>
__device__ __forceinline__ void fill_chunk_w(const ChunkParams& params, const ChunkPlace& place,
                                             int32_t channel, int32_t tap, int32_t products, float* smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t step_quads = params.step_quads.divisor, step_products = params.step_eights * 8;
    const int32_t eight = params.step_quads.quotient(threadIdx.x / 32);
    const int32_t first = eight * 8 + threadIdx.x % 32 / 4;
    if (eight >= params.step_eights || first >= products) return;
    const int32_t count = static_cast<uint32_t>(products - first + step_products - 1) / step_products;
    const int64_t row_products = problem.C * problem.K;
    const Element* const w = static_cast<const Element*>(problem.w) + channel * problem.K + tap + first +
                             (place.g * problem.O + place.o_begin) * row_products;
    const int32_t slot = params.w_slot + first * params.w_pitch;
#pragma unroll 1
    for (int32_t o = (threadIdx.x / 32 - eight * step_quads) * 4 + threadIdx.x % 4; o < params.w_pitch - 4;
         o += step_quads * 4)
        bring<Tile>(smem + slot + o, step_products * params.w_pitch, w + o * row_products, step_products,
                    count, 0, 0, o < place.outputs);
}

// The x that taps from `tap` on of some channels need, zeros outside 0 <= l < L.
template <class Tile>
__device__ __forceinline__ void fill_chunk_x(const ChunkParams& params, const ChunkPlace& place,
                                             int32_t channel, int32_t tap, int32_t channels, float* smem) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t step_rows = params.step_rows.divisor, stride = static_cast<int32_t>(problem.stride);
    const uint32_t index = params.planes.quotient(threadIdx.x);
    const int32_t plane = threadIdx.x - index * params.planes.divisor;
    const int32_t first_line = params.step_rows.quotient(index), row = index - first_line * step_rows;
    if (first_line >= params.step_lines) return;
    const int32_t count = params.parts - (row + (params.parts - 1) * step_rows >= params.line_rows);
    const int32_t lines = channels * params.samples.divisor;
    const int64_t l = place.p_begin * stride - problem.pad_left + tap * problem.dilation +
                      row * stride + plane * params.plane_step;
    const Element* const x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n +
                             (place.g * problem.C + channel) * problem.x_stride_c + l * problem.x_stride_l;
    const int32_t slot = params.x_slot + plane * params.plane_rows + row;
    const Inside range = inside_row(l, problem.L, 1 << 30);
    const uint32_t size = range.end - range.begin;
#pragma unroll 1
    for (int32_t line = first_line; line < lines; line += params.step_lines) {
        const int32_t c = params.samples.quotient(line), sample = line - c * params.samples.divisor;
        bring<Tile>(smem + slot + c * params.channel_slots + sample * params.pitch.divisor, step_rows,
                    x + c * problem.x_stride_c + sample * problem.x_stride_n,
                    step_rows * stride * problem.x_stride_l, count, -range.begin, step_rows * stride,
                    sample < place.samples ? size : 0);
    }
}

// total += the sum of `count` products of this thread, whose x begins at `slots` bytes from x.
template <class Tile>
__device__ __forceinline__ void multiply_piece(const ChunkParams& params, const float* x,
                                               const int32_t* slots, const float* w_row, int32_t count,
                                               float (&total)[Tile::kThreadO][Tile::kThreadP]) {
    float sum[Tile::kThreadO][Tile::kThreadP] = {};
    const auto multiply_one = [&](int32_t slot) {
        const float* const x_row = reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + slot);
        float x_frag[Tile::kThreadP];
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) x_frag[j] = x_row[32 * j];
#pragma unroll
        for (int i = 0; i < Tile::kThreadO; i += 4) {
            const auto w_frag = *reinterpret_cast<const Vector<float, 4>*>(w_row + i);
#pragma unroll
            for (int v = 0; v < 4; ++v) {
#pragma unroll
                for (int j = 0; j < Tile::kThreadP; ++j) sum[i + v][j] += w_frag.at[v] * x_frag[j];
            }
        }
        w_row += params.w_pitch;
    };
    int32_t product = 0;
#pragma unroll 1
    for (; product + 4 <= count; product += 4) {
        const auto four = *reinterpret_cast<const Vector<int32_t, 4>*>(slots + product);
#pragma unroll
        for (int i = 0; i < 4; ++i) multiply_one(four.at[i]);
    }
#pragma unroll 1
    for (; product < count; ++product) multiply_one(slots[product]);
#pragma unroll
    for (int i = 0; i < Tile::kThreadO; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) total[i][j] += sum[i][j];
    }
}

// What one warp computes: some outputs of its block, or its share of their sums.
struct ChunkWarp {
    int32_t first;   // of the warps that share these outputs
    int32_t k;       // among them
    int32_t o, row;  // first output channel and position in the block
    int32_t rows;    // output channels that there are from o on
    bool active;     // some warps only bring
};

template <class Tile>
__device__ __forceinline__ ChunkWarp find_warp(const ChunkParams& params, const ChunkPlace& place,
                                               int32_t warp, int32_t round) {
    const int32_t warp_op = params.warps_k.quotient(warp), warp_p = params.warps_o.quotient(warp_op);
    ChunkWarp found;
    found.first = warp_op * params.warps_k.divisor;
    found.k = warp - found.first;
    found.o = (warp_op - warp_p * params.warps_o.divisor) * Tile::kThreadO;
    found.row = (round * params.warps_p + warp_p) * static_cast<int32_t>(kChunkP);
    found.rows = place.outputs - found.o;
    found.active = warp_p < params.warps_p && found.rows > 0 &&
                   (params.samples.divisor > 1
                        ? found.row < place.samples * static_cast<int32_t>(params.pitch.divisor)
                        : place.p_begin + found.row < params.problem.P);
    return found;
}

// Outputs to y. All threads of a block call this.
template <class Tile>
__device__ __forceinline__ void store_chunk(const ChunkParams& params, const ChunkPlace& place, int32_t round,
                                            float* bias_smem,
                                            const float (&total)[Tile::kThreadO][Tile::kThreadP]) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int32_t thread = ptx::anew(threadIdx.x);  // registers do not last for what was known of it
    const ChunkWarp warp = find_warp<Tile>(params, place, thread / 32, round);
    // Where the thread's position of index j lies in y, and whether it is there.
    const auto find = [&](int j, int64_t& offset) {
        const int32_t at = warp.row + thread % 32 + 32 * j;
        const int32_t sample = params.pitch.quotient(at);
        const int64_t p = place.p_begin + at - sample * static_cast<int32_t>(params.pitch.divisor);
        offset = sample * (problem.G * problem.O * problem.P) + p;
        return warp.active && sample < place.samples && p < problem.P;
    };
    Element* y = static_cast<Element*>(problem.y) +
                 ((place.n * problem.G + place.g) * problem.O + place.o_begin + warp.o) * problem.P;
    const int32_t warps_k = params.warps_k.divisor;
    if (warps_k > 1) {  // the sums of warps that share outputs, [warp][value][lane]
        float* const sums = bias_smem + params.w_slot + thread % 32;
        __syncthreads();  // all products have been read
#pragma unroll
        for (int value = 0; value < Tile::kValues; ++value) {
            if (warp.active)
                sums[((warp.first + warp.k) * Tile::kValues + value) * 32] =
                    total[value / Tile::kThreadP][value % Tile::kThreadP];
        }
        __syncthreads();
#pragma unroll 1
        for (int value = warp.k; value < Tile::kValues; value += warps_k) {
            const int i = value / Tile::kThreadP;
            int64_t offset;
            if (!find(value % Tile::kThreadP, offset) || i >= warp.rows) continue;
            float sum = bias_smem[warp.o + i];
            for (int k = 0; k < warps_k; ++k)
                sum += sums[((warp.first + k) * Tile::kValues + value) * 32];
            y[i * problem.P + offset] = problem.activation == Activation::none
                                            ? narrow<Element>(sum)
                                            : activate<Element, true>(problem.activation, sum);
        }
        return;
    }
    int64_t first, offset;
    int32_t step[Tile::kThreadP];  // from index 0 on
    bool valid[Tile::kThreadP];
    valid[0] = find(0, first);
    step[0] = 0;
#pragma unroll
    for (int j = 1; j < Tile::kThreadP; ++j) {
        valid[j] = find(j, offset);
        step[j] = static_cast<int32_t>(offset - first);
    }
    y += first;
#pragma unroll
    for (int i = 0; i < Tile::kThreadO; ++i) {
        if (i >= warp.rows) break;
        const float bias = bias_smem[warp.o + i];
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) {
            if (valid[j]) y[step[j]] = narrow<Element>(total[i][j] + bias);
        }
        y += problem.P;
    }
    if (problem.activation == Activation::none) return;
#pragma unroll 1
    for (int i = 0; i < min(warp.rows, Tile::kThreadO); ++i) {  // reads back what this thread has stored
        y -= problem.P;
#pragma unroll
        for (int j = 0; j < Tile::kThreadP; ++j) {
            if (valid[j]) y[step[j]] = activate<Element, true>(problem.activation, widen(y[step[j]]));
        }
    }
}

template <class Tile>
__global__ void __launch_bounds__(kThreads, Tile::kBlocks - kFewerBlocks)
    direct_chunk_kernel(const __grid_constant__ ChunkParams params) {
    using Element = typename Tile::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    float* const bias_smem = reinterpret_cast<float*>(smem);
    int32_t* const slots_smem = reinterpret_cast<int32_t*>(bias_smem + params.w_pitch);  // [product]
    float* const w_smem = bias_smem + params.w_slot;                                    // [product][w_pitch]

    const Problem& problem = params.problem;
    bool ready = false;  // whether bias and slots lie in shared memory
#pragma unroll 1
    for (int32_t round = 0; round < params.rounds; ++round) {
        const ChunkWarp warp = find_warp<Tile>(params, find_place(params), threadIdx.x / 32, round);
        // Taps of a piece that meet nothing but padding add nothing.
        const auto meets = [&](int32_t tap) {
            const int64_t p = params.samples.divisor > 1 ? 0 : find_place(params).p_begin + warp.row;
            const int64_t l = p * problem.stride - problem.pad_left + tap * problem.dilation;
            return l < problem.L && l + kChunkP * problem.stride + (params.piece - 1) * problem.dilation > 0;
        };
        float total[Tile::kThreadO][Tile::kThreadP] = {};
        int32_t piece = 0;  // modulo warps_k
#pragma unroll 1
        for (int32_t chunk = 0; chunk < params.chunks; ++chunk) {
            const int32_t run = params.tap_chunks.quotient(chunk), channel = run * params.channels;
            const int32_t chunk_taps = params.taps.divisor;
            const int32_t tap = (chunk - run * params.tap_chunks.divisor) * chunk_taps;
            const int32_t channels = min(static_cast<int32_t>(problem.C) - channel, params.channels);
            const int32_t taps = min(static_cast<int32_t>(problem.K) - tap, chunk_taps);
            const int32_t products = channels * taps;
            if (round == 0) {
                const ChunkPlace place = find_place(params);
                const int64_t l_begin =
                    place.p_begin * problem.stride - problem.pad_left + tap * problem.dilation;
                const int64_t l_end = l_begin + params.line_rows * problem.stride +
                                      int64_t{taps - 1} * problem.dilation;
                const bool needed = l_end > 0 && l_begin < problem.L;
                if (!needed && (ready || chunk + 1 < params.chunks)) {
                    piece += params.chunk_pieces;
                    continue;
                }
                __syncthreads();  // the chunk before has been read
                fill_chunk_w<Tile>(params, place, channel, tap, products, bias_smem);
                fill_chunk_x<Tile>(params, place, channel, tap, channels, bias_smem);
                if (!ready) {
                    for (int32_t i = threadIdx.x; i < params.chunk_pieces * kPieceSize; i += params.threads) {
                        const int32_t index = i / kPieceSize, group = params.group_pieces.quotient(index);
                        const int32_t part = index - group * params.group_pieces.divisor;
                        const int32_t in_group = part * params.piece + i % kPieceSize;
                        if (i % kPieceSize < params.piece && in_group < params.group)
                            slots_smem[i] = 4 * params.slot_of(group * params.group + in_group);
                    }
                    if (static_cast<int32_t>(threadIdx.x) < place.outputs) {
                        const Element* const bias = static_cast<const Element*>(problem.bias) +
                                                    place.g * problem.O + place.o_begin + threadIdx.x;
                        bias_smem[threadIdx.x] = problem.bias != nullptr ? widen(*bias) : 0.0f;
                    }
                    ready = true;
                }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
                ptx::cp_async_wait_all();
#endif
                __syncthreads();
            }
            if (!warp.active) continue;
            const int32_t* slots = slots_smem;
            for (int32_t begin = 0; begin < products; begin += params.group) {
                const int32_t end = min(begin + params.group, products);
                for (int32_t at = begin; at < end; at += params.piece, ++piece, slots += kPieceSize) {
                    if ((piece & (params.warps_k.divisor - 1)) != warp.k) continue;
                    if (params.piece < params.group && !meets(tap + at - begin)) continue;
                    multiply_piece<Tile>(params, bias_smem + warp.row + threadIdx.x % 32, slots,
                                         w_smem + at * params.w_pitch + warp.o,
                                         min(params.piece, end - at), total);
                }
            }
        }
        store_chunk<Tile>(params, find_place(params), round, bias_smem, total);
    }
}

// The pieces that sums of C*K products are cut into: whole channels, or equal parts of one's taps.
struct Pieces {
    int64_t channels, taps;
    int64_t parts;     // of a channel's taps
    int64_t met_taps;  // that a warp's positions meet, the others lie in padding
};
inline Pieces plan_pieces(const Problem& problem) {
    const int64_t parts = ceil_div(problem.K, kPieceSize);
    const int64_t channels = std::min(std::max(kPieceSize / problem.K, int64_t{1}), problem.C);
    const int64_t met = ceil_div(problem.L + kChunkP * problem.stride, problem.dilation);
    return {channels, ceil_div(problem.K, parts), parts, std::min(met, problem.K)};
}

// Warps that share the pieces of the same outputs: so many that one sample makes some work for each
// multiprocessor. Not by the number of samples: a sample's sums must not depend on others.
inline int32_t plan_warps_k(const Problem& problem) {
    const Pieces plan = plan_pieces(problem);
    const int64_t pieces = ceil_div(problem.C, plan.channels) * ceil_div(plan.met_taps, plan.taps);
    const int64_t warps = ceil_div(problem.O, 4) * ceil_div(problem.P, kChunkP) * problem.G;
    const int64_t sms = problem.device.sm_count;
    const auto is_few = [&](int64_t warps_k) {
        return (2 * warps_k <= pieces && warps * warps_k < 2 * sms) ||
               (8 * warps_k <= pieces && warps * warps_k < 8 * sms);
    };
    int32_t warps_k = 1;
    while (warps_k < kWarps && is_few(warps_k)) warps_k *= 2;
    return warps_k;
}

// tiles is 0 where the problem does not suit.
template <class Tile>
ChunkParams plan_chunk(const Problem& problem) {
    ChunkParams params{};
    params.problem = problem;
    if (problem.C * problem.K > 1 << 20 || problem.stride > 4096 || problem.dilation > 4096) return params;
    const Pieces pieces = plan_pieces(problem);
    const int64_t warps_k = plan_warps_k(problem);
    params.warps_k = plan_divisor(warps_k);
    // As many output channels a block as leave few of the last block's empty.
    const int64_t channel_warps = ceil_div(problem.O, Tile::kThreadO);
    int64_t warps_o = std::min(kWarps / warps_k, channel_warps);
    while (warps_o > 1 && 8 * round_up(channel_warps, warps_o) > 9 * channel_warps) --warps_o;
    const int64_t cycle = problem.stride / std::gcd(problem.stride, problem.dilation);

    // Whether chunks of so many channels and taps fit.
    const int64_t room = std::min<int64_t>(problem.device.smem_bytes, 72 * 1024) / 4;
    const auto set = [&](int64_t warps_p, int64_t rounds, int64_t channels, int64_t taps) {
        const int64_t tile_rows = warps_p * rounds * kChunkP;
        params.dense = cycle == problem.stride && taps >= problem.stride;
        params.cycle = plan_divisor(cycle);
        params.cycle_rows =
            static_cast<int32_t>(params.dense ? 1 : cycle * problem.dilation / problem.stride);
        const int64_t planes = std::min(taps, cycle);
        const int64_t reach = (taps - 1) * (params.dense ? problem.dilation : 1);
        const int64_t turns = reach / cycle * params.cycle_rows;
        const int64_t short_rows = problem.P + turns;
        const bool flat = 2 * short_rows <= tile_rows;
        const int64_t samples = flat ? std::min(tile_rows / short_rows, problem.N) : 1;
        const int64_t line_rows = std::min(tile_rows, problem.P) + turns;
        const int64_t pitch = samples > 1 ? short_rows : tile_rows + turns;
        const int64_t rows = std::max((samples - 1) * pitch + line_rows, tile_rows + turns);
        const int64_t plane_rows = round_up(rows, 32) + (planes > 1 ? ceil_div(32, planes) : 0);
        const int64_t items = channels * samples * planes * line_rows;
        params.warps_o = plan_divisor(warps_o);
        params.w_pitch = static_cast<int32_t>(warps_o * Tile::kThreadO + 4);
        params.warps_p = static_cast<int32_t>(warps_p);
        params.rounds = static_cast<int32_t>(rounds);
        params.channels = static_cast<int32_t>(channels);
        const int64_t tap_chunks = ceil_div(problem.K, taps);
        params.taps = plan_divisor(taps);
        params.tap_chunks = plan_divisor(tap_chunks);
        params.chunks = static_cast<int32_t>(ceil_div(problem.C, channels) * tap_chunks);
        params.group = static_cast<int32_t>(problem.K > kPieceSize ? taps : pieces.channels * problem.K);
        params.piece = static_cast<int32_t>(problem.K > kPieceSize ? pieces.taps : params.group);
        params.group_pieces = plan_divisor(ceil_div(params.group, params.piece));
        params.chunk_pieces = static_cast<int32_t>(ceil_div(taps, pieces.taps) *
                                                    ceil_div(channels, pieces.channels));
        params.planes = plan_divisor(planes);
        params.plane_step = static_cast<int32_t>(params.dense ? 1 : problem.dilation);
        params.plane_rows = static_cast<int32_t>(plane_rows);
        params.channel_slots = static_cast<int32_t>(planes * plane_rows);
        params.line_rows = static_cast<int32_t>(line_rows);
        params.samples = plan_divisor(samples);
        params.pitch = plan_divisor(pitch);
        params.w_slot = params.w_pitch + params.chunk_pieces * kPieceSize;
        params.x_slot = static_cast<int32_t>(params.w_slot + channels * taps * params.w_pitch);
        const int64_t o_tiles = ceil_div(problem.O, params.w_pitch - 4);
        const int64_t p_tiles = samples > 1 ? 1 : ceil_div(problem.P, tile_rows);
        params.tiles = o_tiles * p_tiles * problem.G * ceil_div(problem.N, samples);
        params.o_tiles = plan_index_divisor(o_tiles);
        params.p_tiles = plan_index_divisor(p_tiles);
        params.g_tiles = plan_index_divisor(problem.G);
        const int64_t warps = warps_o * warps_p * warps_k;
        const int64_t sums = warps_k > 1 ? warps * Tile::kValues * 32 : 0;
        const int64_t slots = std::max(params.x_slot + channels * planes * plane_rows, params.w_slot + sums);
        params.smem_bytes = slots * 4;
        // Warps that only bring, so that no thread brings more than some 16 elements.
        const int64_t all_items = items + channels * taps * warps_o * Tile::kThreadO;
        const int64_t block_warps = std::max(warps, std::min<int64_t>(kWarps, ceil_div(all_items, 512)));
        params.threads = static_cast<int32_t>(32 * block_warps);
        const int64_t quads = std::min(warps_o * Tile::kThreadO / 4, block_warps);
        params.step_quads = plan_divisor(quads);
        params.step_eights = static_cast<int32_t>(block_warps / quads);
        return slots <= room && reach * cycle <= INT32_MAX &&
               samples * problem.G * problem.O * problem.P <= INT32_MAX;
    };
    // How threads share x: equal parts of as many lines as leave few threads idle; several parts, of 32
    // elements or more, so that as many elements are in flight.
    const auto share = [&] {
        const int64_t threads = params.threads, planes = params.planes.divisor, line_rows = params.line_rows;
        const int64_t all_lines = int64_t{params.channels} * params.samples.divisor;
        const int64_t fewest = ceil_div(line_rows * planes, threads);
        int64_t most = 0;
        for (int64_t parts = fewest; parts <= std::max<int64_t>(fewest + 3, Tile::kBatch); ++parts) {
            const int64_t rows = ceil_div(line_rows, parts);
            if (parts > fewest + 3 && rows * planes < 32) break;
            const int64_t lines = std::min(threads / (rows * planes), all_lines);
            const int64_t active = lines * line_rows / parts;
            if (8 * active <= 7 * most) continue;
            most = std::max(most, active);
            params.step_rows = plan_divisor(rows);
            params.parts = static_cast<int32_t>(ceil_div(line_rows, rows));
            params.step_lines = static_cast<int32_t>(lines);
        }
        return most > 0;
    };
    // All of the reduction, or else as many channels, or as many parts of one channel's taps, as fit.
    const auto cut = [&](int64_t warps_p) {
        const bool padded = pieces.parts > 1 && problem.K > 2 * pieces.met_taps;
        for (int64_t count = 1; !padded && count <= ceil_div(problem.C, pieces.channels); ++count) {
            const int64_t channels = round_up(ceil_div(problem.C, count), pieces.channels);
            if (set(warps_p, 1, std::min(channels, problem.C), problem.K)) return true;
        }
        const int64_t least = padded ? 2 * problem.K / pieces.met_taps : 2;  // so that chunks can be left out
        for (int64_t count = std::min(least, pieces.parts); pieces.parts > 1; ++count) {
            if (set(warps_p, 1, 1, ceil_div(pieces.parts, count) * pieces.taps)) return true;
            if (count >= pieces.parts) break;
        }
        return false;
    };
    // No more positions a block than there are.
    const int64_t rows = 2 * problem.P > kChunkP
                             ? problem.P
                             : problem.N * (problem.P + (problem.K - 1) * problem.dilation / problem.stride);
    const int64_t row_warps = ceil_div(rows, kChunkP);
    int64_t warps_p = std::min(kWarps / (warps_k * warps_o), row_warps);
    warps_p = ceil_div(row_warps, ceil_div(row_warps, warps_p));
    // Fewer where that brings all at once.
    if (problem.C * problem.K <= kPieceProducts) {
        int64_t fewer = warps_p;
        while (fewer > 1 && !set(fewer, 1, problem.C, problem.K)) fewer /= 2;
        if (set(fewer, 1, problem.C, problem.K)) warps_p = fewer;
    }
    while (!cut(warps_p)) {
        if (warps_p == 1) {
            params.tiles = 0;
            return params;
        }
        warps_p /= 2;
    }
    // Smaller blocks where multiprocessors would have less than two, or none.
    while (params.tiles < 2 * problem.device.sm_count) {
        const bool very_few = 4 * params.tiles < 3 * problem.device.sm_count;
        if (warps_p > 1) warps_p = ceil_div(warps_p, 2);
        else if (warps_o > 1 && very_few) warps_o = ceil_div(warps_o, 2);
        else break;
        cut(warps_p);
    }
    // More rounds share one filling while four waves of blocks remain.
    if (params.chunks == 1 && warps_k == 1) {
        int64_t rounds = 1;
        while (rounds < kWarps && warps_p * rounds * kChunkP < problem.P &&
               set(warps_p, 2 * rounds, problem.C, problem.K) && params.smem_bytes <= kPlainSmemBytes &&
               params.tiles >= 8 * problem.device.sm_count)
            rounds *= 2;
        set(warps_p, rounds, problem.C, problem.K);
    }
    if (params.tiles > kMaxBlocks || !share()) params.tiles = 0;
    return params;
}

template <class Tile>
Error launch_chunk(const ChunkParams& params, cudaStream_t stream) {
    if (params.smem_bytes > kPlainSmemBytes) {
        const Error error = allow_smem<direct_chunk_kernel<Tile>>(params.problem.device);
        if (error != nullptr) return error;
    }
    direct_chunk_kernel<Tile>
        <<<static_cast<unsigned>(params.tiles), params.threads, params.smem_bytes, stream>>>(params);
    return launch_error();
}

template <class Element>
Error launch_element(const Problem& problem, cudaStream_t stream) {
    if constexpr (std::is_same<Element, double>::value) {
        if (problem.O <= 4) return launch_tile<Tile<double, 2, 2>>(problem, stream);
        return launch_tile<Tile<double, 4, 8>>(problem, stream);
    } else {
        if (problem.C * problem.K <= kPieceProducts || problem.C < 16 || problem.O <= 32) {
            // Tiles of 8 channels where there are enough of them, and they leave fewer empty.
            const int64_t wide_warps = ceil_div(problem.O, 8) * ceil_div(problem.P, kChunkP) * problem.G *
                                       problem.N * plan_warps_k(problem);
            const bool narrow = 8 * round_up(problem.O, 4) < 7 * round_up(problem.O, 8) ||
                                wide_warps < 8 * problem.device.sm_count;
            using Narrow = ChunkTile<Element, 4>;
            using Wide = ChunkTile<Element, 8>;
            const ChunkParams params = narrow ? plan_chunk<Narrow>(problem) : plan_chunk<Wide>(problem);
            if (params.tiles > 0)
                return narrow ? launch_chunk<Narrow>(params, stream) : launch_chunk<Wide>(params, stream);
        }
        if (problem.O <= 16) return launch_tile<Tile<Element, 4, 4>>(problem, stream);
        return launch_tile<Tile<Element, 8, 8>>(problem, stream);
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
