// Dense convolution on Ampere, Ada and every later card: implicit GEMM with mma.sync, fed by cp.async.
// TF32 (operands rounded to nearest), fp16, bf16; sums in fp32; groups of 16 input channels and more.
//
// D[o][position] += W[o][channel] * X[channel][position, shifted by the tap], for each tap. A step of the
// reduction is a chunk of channels x a group of taps. cp.async brings, some steps ahead, the weights
// (packed in the order in which lanes hold operand A) and each channel's window of x as it lies in memory,
// from the 16-byte boundary before it: rows of any alignment move in whole pieces, and x leaves L2 once for
// all taps of a group. The block then rounds or pairs the windows into the step's tile, a Window (tile.cuh)
// that operand B is read from. The tile is gathered from global memory instead where positions are not
// neighbours there, where windows would not fit, and where rows are so short that a tile runs on from one
// sample to the next ("flat").
#pragma once
#include <cstring>
#include <type_traits>

#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace gemm_sm80 {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kMmaWords = 8;
constexpr int kMaxTaps = 4;  // of a step

// Blocks that share a multiprocessor.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
constexpr int kBlocks = 2;  // 100 KB of shared memory hold no more
#else
constexpr int kBlocks = 3;
#endif

template <class Element_, int kWarpsO_, int kMTiles_, int kNTiles_>
struct Tile {
    using Element = Element_;
    static constexpr int kWarpsO = kWarpsO_;
    static constexpr int kMTiles = kMTiles_;  // of 16 output channels, of one warp
    static constexpr int kNTiles = kNTiles_;  // of 8 positions, of one warp
    static constexpr int kWarpO = 16 * kMTiles;
    static constexpr int kWarpP = 8 * kNTiles;
    static constexpr int kO = kWarpO * kWarpsO;
    static constexpr int kP = kWarpP * (kWarps / kWarpsO);
    static constexpr int kStagePitch = kWarpP + 8;  // floats; 8 mod 32: fragments land in different banks
    static constexpr int kEpilogueBytes = kWarps * 16 * kStagePitch * 4;
    static_assert(kWarpP % 32 == 0, "staged rows must be 8 mod 32 banks apart");
};

// Hopper has a GEMM of its own and takes this one for strides beyond 32 only, where one tile will do.
template <class Element>
using HopperTile = Tile<Element, 2, 2, 8>;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <class Tile>
constexpr bool kCompiled = std::is_same<Tile, HopperTile<typename Tile::Element>>::value;
#else
template <class Tile>
constexpr bool kCompiled = true;
#endif

template <class Element>
constexpr int kChannelsPerWord = 4 / sizeof(Element);

struct Params {
    Problem problem;
    const uint4* w_packed;  // [G][o_tiles][chunks][K][chunk_words / 8][kO / 16][32 lanes]
    Window<kMaxTaps> window;
    int32_t taps;  // of a step; the last group of a chunk may have fewer
    int32_t tap_groups;
    int32_t chunk_words;
    int32_t chunks;
    int32_t row_slots;  // pitch of the tile's rows; 4 mod 8: a half warp reads from all banks
    int32_t pieces;     // of 16 bytes, of one channel's window; 0 where x is gathered
    int32_t stages;
    int32_t w_stage_bytes;
    int32_t stage_bytes;  // weights and windows of one step
    int32_t smem_bytes;
    bool flat;     // positions count through all samples
    bool y_pairs;  // rows of y start at multiples of two elements
    int64_t o_tiles, p_tiles;
};

// What one block computes. Kept in shared memory: the sums leave few registers.
struct Place {
    int64_t n, g, o_begin, p_begin;
    int64_t l_begin;  // input position of the window's start at tap 0
    const uint4* w_packed;
};

// What one step reduces over: the tap groups of a chunk, then the next chunk.
struct Step {
    int chunk, tap_group;
};

__device__ __forceinline__ Step step_at(const Params& params, int index) {
    return {index / params.tap_groups, index % params.tap_groups};
}

__device__ __forceinline__ int taps_of(const Params& params, const Step& step) {
    return min(params.taps, static_cast<int>(params.problem.K) - step.tap_group * params.taps);
}

// Depth of a chunk in mma's: the last one may have fewer.
template <class Element>
__device__ __forceinline__ int depth_of(const Params& params, const Step& step) {
    const int words = static_cast<int>(ceil_div(params.problem.C, kChannelsPerWord<Element>));
    return (min(words - step.chunk * params.chunk_words, params.chunk_words) + kMmaWords - 1) / kMmaWords;
}

// One word of depth from its channels, the first in the low half.
__device__ __forceinline__ uint32_t pack_word(const float (&channel)[1]) {
    return round_tf32(__float_as_uint(channel[0]));
}
template <class Element>
__device__ __forceinline__ uint32_t pack_word(const Element (&channel)[2]) {
    uint16_t bits[2];
    static_assert(sizeof(channel) == 4, "two channels fill a word");
    memcpy(bits, channel, 4);
    return bits[0] | static_cast<uint32_t>(bits[1]) << 16;
}

// Weights in the order of w_packed, with zeros for the channels that C and O lack. One thread, one uint4.
template <class Element>
__global__ void __launch_bounds__(256)
    gemm_sm80_pack_kernel(const Element* __restrict__ w,  // [G*O, C, K]
                          uint4* __restrict__ w_packed,   // as Params has it
                          int64_t O, int64_t C, uint32_t K, uint32_t m_tiles, uint32_t o_tiles,
                          uint32_t depth, uint32_t chunks, uint32_t count) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const uint32_t index = blockIdx.x * 256 + threadIdx.x;
    if (index >= count) return;
    // Taps run fastest, then channels, so that a warp reads neighbours.
    uint32_t rest = index;
    const uint32_t k = rest % K;
    rest /= K;
    const uint32_t t = rest % 4;
    rest /= 4;
    const uint32_t step = rest % depth;
    rest /= depth;
    const uint32_t chunk = rest % chunks;
    rest /= chunks;
    const uint32_t g = rest % 8;
    rest /= 8;
    const uint32_t m_tile = rest % m_tiles;
    rest /= m_tiles;
    const uint32_t o_tile = rest % o_tiles;
    const uint32_t group = rest / o_tiles;

    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int64_t o = (static_cast<int64_t>(o_tile) * m_tiles + m_tile) * 16 + g + i % 2 * 8;
        const int64_t word = (static_cast<int64_t>(chunk) * depth + step) * kMmaWords + t + i / 2 * 4;
        Element channel[kChannelsPerWord<Element>];
#pragma unroll
        for (int c = 0; c < kChannelsPerWord<Element>; ++c) {
            const int64_t place = word * kChannelsPerWord<Element> + c;
            channel[c] = o < O && place < C ? w[((group * O + o) * C + place) * K + k] : Element{};
        }
        words[i] = pack_word(channel);
    }
    const int64_t tile = (static_cast<int64_t>(group) * o_tiles + o_tile) * chunks + chunk;
    w_packed[(((tile * K + k) * depth + step) * m_tiles + m_tile) * 32 + g * 4 + t] =
        make_uint4(words[0], words[1], words[2], words[3]);
#endif
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// Starts the copies of one step into its stage: the weights, then each channel's window.
template <class Tile>
__device__ __forceinline__ void fetch(const Params& params, const Place& place, const Step& step,
                                      unsigned char* stage) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int tap_begin = step.tap_group * params.taps;

    const int tap_vectors = params.chunk_words / kMmaWords * (Tile::kO / 16) * 32;
    const uint4* w = place.w_packed + (step.chunk * problem.K + tap_begin) * tap_vectors;
    const uint32_t w_stage = ptx::smem_address(stage);
    for (int i = threadIdx.x; i < taps_of(params, step) * tap_vectors; i += kThreads) {
        ptx::cp_async_16(w_stage + i * 16, w + i, 16);
    }
    if (params.pieces == 0) return;

    const int chunk_channels = params.chunk_words * kChannelsPerWord<Element>;
    const int64_t l_begin = place.l_begin + tap_begin * problem.dilation;
    const int64_t channel_begin = static_cast<int64_t>(step.chunk) * chunk_channels;
#pragma unroll 1
    for (int c = warp; c < chunk_channels; c += kWarps) {
        const int64_t channel = place.g * problem.C + channel_begin + c;
        // Addresses, in bytes: of the row, and of the 16-byte boundary at or before the window.
        const int64_t row =
            reinterpret_cast<int64_t>(static_cast<const Element*>(problem.x) +
                                      (place.n * problem.x_stride_n + channel * problem.x_stride_c));
        const int64_t row_end = row + problem.L * static_cast<int64_t>(sizeof(Element));
        const int64_t start = (row + l_begin * static_cast<int64_t>(sizeof(Element))) & ~int64_t{15};
        const uint32_t target = w_stage + params.w_stage_bytes + c * params.pieces * 16;
#pragma unroll 1
        for (int piece = lane; piece < params.pieces; piece += 32) {
            const int64_t address = start + piece * 16;
            int64_t bytes = min(row_end - address, int64_t{16});
            if (bytes < 0 || address + 16 <= row || channel_begin + c >= problem.C) bytes = 0;
            if (bytes > 0 && bytes < 16) {  // the row's end, perhaps the memory's: nothing behind it is read
                constexpr int kSize = sizeof(Element), kElements = 16 / kSize;
                Element* const end = reinterpret_cast<Element*>(stage + params.w_stage_bytes) +
                                     (c * params.pieces + piece) * kElements;
                const Element* const source = reinterpret_cast<const Element*>(address);
                for (int i = 0; i < kElements; ++i) end[i] = i * kSize < bytes ? source[i] : Element{};
                continue;
            }
            const void* source = bytes == 0 ? problem.x : reinterpret_cast<const void*>(address);
            ptx::cp_async_16(target + piece * 16, source, static_cast<uint32_t>(bytes));
        }
    }
}

// Rounds or pairs the windows of a stage into the step's tile. A word of depth is one TF32 channel or a
// pair of 16-bit ones, one mma takes 8, and the two that a lane needs at a slot lie together, one LDS.64:
//
//   tile[word / 8][word % 4][slot] = {word, word + 4}
template <class Tile>
__device__ __forceinline__ void convert(const Params& params, const Place& place, const Step& step,
                                        const unsigned char* stage, uint2* tile) {
    using Element = typename Tile::Element;
    constexpr int kPerWord = kChannelsPerWord<Element>;
    constexpr int kBatch = 4 / kPerWord;  // slots that a thread reads before it writes
    const Problem& problem = params.problem;
    const int t = threadIdx.x / 32;  // this warp's words modulo 4
    const int lane = threadIdx.x % 32;
    const int64_t l_begin = place.l_begin + step.tap_group * params.taps * problem.dilation;
    // Offsets from the window's start that lie in the row and, wherever in its first piece it starts, in its
    // own pieces: some planes are longer than their taps need. A window is short enough for 32 bits.
    const int64_t window_end = (params.pieces - 1) * (16 / static_cast<int>(sizeof(Element))) + 1;
    const int offset_begin = static_cast<int>(min(max(-l_begin, int64_t{0}), window_end));
    const int offset_end = static_cast<int>(max(min(problem.L - l_begin, window_end), int64_t{0}));
    const int stride = static_cast<int>(problem.stride);
    const Element* x = static_cast<const Element*>(problem.x) + place.n * problem.x_stride_n + l_begin;
    const int64_t channel_begin =
        place.g * problem.C + static_cast<int64_t>(step.chunk) * params.chunk_words * kPerWord;

    const int depths = depth_of<Element>(params, step);
#pragma unroll 1
    for (int depth = 0; depth < depths; ++depth) {
        const Element* window[2 * kPerWord];  // of the channels of words t and t + 4
#pragma unroll
        for (int i = 0; i < 2 * kPerWord; ++i) {
            const int c = (depth * kMmaWords + t + i / kPerWord * 4) * kPerWord + i % kPerWord;
            const int64_t address = reinterpret_cast<int64_t>(x + (channel_begin + c) * problem.x_stride_c);
            const int place_in_stage = params.w_stage_bytes + c * params.pieces * 16 + (address & 15);
            window[i] = reinterpret_cast<const Element*>(stage + place_in_stage);
        }
        for (int plane = 0; plane < params.window.planes; ++plane) {
            const int plane_offset = static_cast<int>(params.window.plane_offset[plane]);
            uint2* target = tile + (depth * 4 + t) * params.row_slots + plane * params.window.plane_rows;
            for (int row = lane; row < params.window.plane_rows; row += 32 * kBatch) {
                uint2 slot[kBatch];
#pragma unroll
                for (int j = 0; j < kBatch; ++j) {
                    const int offset = plane_offset + (row + 32 * j) * stride;
                    const bool inside = row + 32 * j < params.window.plane_rows && offset >= offset_begin &&
                                        offset < offset_end;
                    Element channel[2][kPerWord] = {};
                    if (inside) {
#pragma unroll
                        for (int i = 0; i < 2 * kPerWord; ++i)
                            channel[i / kPerWord][i % kPerWord] = window[i][offset];
                    }
                    slot[j] = make_uint2(pack_word(channel[0]), pack_word(channel[1]));
                }
#pragma unroll
                for (int j = 0; j < kBatch; ++j) {
                    if (row + 32 * j < params.window.plane_rows) target[row + 32 * j] = slot[j];
                }
            }
        }
    }
}

// The same tile straight from global memory: any strides, and rows of several samples.
template <class Tile>
__device__ __forceinline__ void gather(const Params& params, const Place& place, const Step& step,
                                       uint2* tile) {
    using Element = typename Tile::Element;
    constexpr int kPerWord = kChannelsPerWord<Element>;
    const Problem& problem = params.problem;
    const uint32_t t = threadIdx.x / 32;
    const int64_t channel_begin = static_cast<int64_t>(step.chunk) * params.chunk_words * kPerWord;
    const int64_t channels = problem.C - channel_begin;  // that remain
    const int depths = depth_of<Element>(params, step);
    for (uint32_t row = threadIdx.x % 32; row < params.window.plane_rows; row += 32) {
        int64_t n = place.n;
        int64_t p = place.p_begin + row;
        if (params.flat) {
            n = p / problem.P;
            p -= n * problem.P;
        }
        for (int plane = 0; plane < params.window.planes; ++plane) {
            const int64_t l = p * problem.stride + step.tap_group * params.taps * problem.dilation +
                              params.window.plane_offset[plane] - problem.pad_left;
            const bool inside = n < problem.N && l >= 0 && l < problem.L;
            const Element* x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
                               l * problem.x_stride_l +
                               (place.g * problem.C + channel_begin + t * kPerWord) * problem.x_stride_c;
            uint2* target = tile + t * params.row_slots + plane * params.window.plane_rows + row;
#pragma unroll 1
            for (int depth = 0; depth < depths; ++depth) {
                Element channel[2][kPerWord];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
#pragma unroll
                    for (int i = 0; i < kPerWord; ++i) {
                        const uint32_t c = (depth * kMmaWords + half * 4 + t) * kPerWord + i;
                        channel[half][i] = inside && c < channels ? x[i * problem.x_stride_c] : Element{};
                    }
                    x += 4 * kPerWord * problem.x_stride_c;
                }
                *target = make_uint2(pack_word(channel[0]), pack_word(channel[1]));
                target += 4 * params.row_slots;
            }
        }
    }
}

template <class Tile>
__device__ __forceinline__ void multiply(const Params& params, const Step& step, const unsigned char* stage,
                                         const uint2* tile, float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    using Element = typename Tile::Element;
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int chunk_depth = params.chunk_words / kMmaWords;
    const uint4* w_lane =
        reinterpret_cast<const uint4*>(stage) + warp % Tile::kWarpsO * Tile::kMTiles * 32 + lane;
    const uint2* x_lane =
        tile + lane % 4 * params.row_slots + warp / Tile::kWarpsO * Tile::kWarpP + lane / 4;
    const int taps = taps_of(params, step);
    const int depths = depth_of<Element>(params, step);
    for (int tap = 0; tap < taps; ++tap) {
#pragma unroll 1
        for (int depth = 0; depth < depths; ++depth) {
            const uint4* w = w_lane + (tap * chunk_depth + depth) * (Tile::kO / 16) * 32;
            const uint2* x = x_lane + depth * 4 * params.row_slots + params.window.tap_slot[tap];
            uint4 w_frag[Tile::kMTiles];
#pragma unroll
            for (int m = 0; m < Tile::kMTiles; ++m) w_frag[m] = w[m * 32];
#pragma unroll
            for (int n = 0; n < Tile::kNTiles; ++n) {
                const uint2 x_frag = x[n * 8];
#pragma unroll
                for (int m = 0; m < Tile::kMTiles; ++m) ptx::mma<Element>(sum[m][n], w_frag[m], x_frag);
            }
        }
    }
}

// Stores 16 rows of y that a warp has staged: kVector neighbours a lane, along the rows.
template <class Tile, int kVector>
__device__ __forceinline__ void store_rows(const Params& params, const Place& place, const float* staged,
                                           int64_t o_begin, int64_t p_begin) {
    using Element = typename Tile::Element;
    constexpr int kLanes = Tile::kWarpP / kVector < 32 ? Tile::kWarpP / kVector : 32;  // along a row
    const Problem& problem = params.problem;
    const int lane = threadIdx.x % 32;
    const int rows = static_cast<int>(min(problem.O - o_begin, int64_t{16}));
#pragma unroll 1
    for (int column = lane % kLanes * kVector; column < Tile::kWarpP; column += kLanes * kVector) {
        int64_t n = place.n;
        int64_t p = p_begin + column;
        if (params.flat) {
            n = p / problem.P;
            p -= n * problem.P;
        }
        if (p >= problem.P || n >= problem.N) continue;
        const int64_t channel = place.g * problem.O + o_begin;
        const Element* bias = static_cast<const Element*>(problem.bias) + channel;
        Element* y =
            static_cast<Element*>(problem.y) + (n * problem.G * problem.O + channel) * problem.P + p;
        const auto store = [&](auto activated) {
            constexpr int kUnroll = decltype(activated)::value ? 1 : 4;
#pragma unroll kUnroll
            for (int row = lane / kLanes; row < rows; row += 32 / kLanes) {
                const auto sums = *reinterpret_cast<const Vector<float, kVector>*>(
                    staged + row * Tile::kStagePitch + column);
                const float bias_value = problem.bias == nullptr ? 0.0f : widen(bias[row]);
                Vector<Element, kVector> out;
#pragma unroll
                for (int v = 0; v < kVector; ++v) {
                    out.at[v] = finish<Element, decltype(activated)::value>(problem, sums.at[v] + bias_value);
                }
                *reinterpret_cast<Vector<Element, kVector>*>(y + row * problem.P) = out;
            }
        };
        if (problem.activation == Activation::none) store(std::false_type{});
        else store(std::true_type{});
    }
}

template <class Tile>
__device__ __forceinline__ void write(const Params& params, const Place& place, float* smem,
                                      const float (&sum)[Tile::kMTiles][Tile::kNTiles][4]) {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    float* staged = smem + warp * 16 * Tile::kStagePitch;
    float* fragment = staged + lane / 4 * Tile::kStagePitch + lane % 4 * 2;
    const int64_t p_begin = place.p_begin + warp / Tile::kWarpsO * Tile::kWarpP;
#pragma unroll
    for (int m = 0; m < Tile::kMTiles; ++m) {
        const int64_t o_begin = place.o_begin + warp % Tile::kWarpsO * Tile::kWarpO + m * 16;
#pragma unroll
        for (int n = 0; n < Tile::kNTiles; ++n) {
            *reinterpret_cast<float2*>(fragment + n * 8) = make_float2(sum[m][n][0], sum[m][n][1]);
            *reinterpret_cast<float2*>(fragment + n * 8 + 8 * Tile::kStagePitch) =
                make_float2(sum[m][n][2], sum[m][n][3]);
        }
        __syncwarp();
        if (params.y_pairs) {
            store_rows<Tile, 2>(params, place, staged, o_begin, p_begin);
        } else {
            store_rows<Tile, 1>(params, place, staged, o_begin, p_begin);
        }
        __syncwarp();
    }
}

#endif  // sm_80

template <class Tile>
__global__ void __launch_bounds__(kThreads, kBlocks)
    gemm_sm80_forward_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    if constexpr (!kCompiled<Tile>) return;
    extern __shared__ __align__(16) unsigned char smem[];
    // [stages]{weights, windows} then the tile; at the end each warp stages its rows of y over them.
    uint2* tile = reinterpret_cast<uint2*>(smem + params.stages * params.stage_bytes);
    __shared__ Place place;
    if (threadIdx.x == 0) {
        const Problem& problem = params.problem;
        const int64_t o_tile = blockIdx.x % params.o_tiles;
        const int64_t rest = blockIdx.x / params.o_tiles;
        place.o_begin = o_tile * Tile::kO;
        place.p_begin = rest % params.p_tiles * Tile::kP;
        place.g = rest / params.p_tiles % problem.G;
        place.n = rest / params.p_tiles / problem.G;  // 0 where tiles are flat
        place.l_begin = place.p_begin * problem.stride - problem.pad_left;
        place.w_packed = params.w_packed + (place.g * params.o_tiles + o_tile) * params.chunks * problem.K *
                                               (params.chunk_words / kMmaWords * (Tile::kO / 16) * 32);
    }
    __syncthreads();

    float sum[Tile::kMTiles][Tile::kNTiles][4] = {};
    const int steps = params.chunks * params.tap_groups;
    for (int i = 0; i < params.stages - 1; ++i) {
        if (i < steps) fetch<Tile>(params, place, step_at(params, i), smem + i * params.stage_bytes);
        ptx::cp_async_commit_group();
    }
    for (int i = 0; i < steps; ++i) {
        if (params.stages == 2) {
            ptx::cp_async_wait_group<0>();
        } else {
            ptx::cp_async_wait_group<1>();
        }
        __syncthreads();  // this step has landed; the tile and the stage of the step before have been read
        const int ahead = i + params.stages - 1;
        if (ahead < steps) {
            fetch<Tile>(params, place, step_at(params, ahead),
                        smem + ahead % params.stages * params.stage_bytes);
        }
        ptx::cp_async_commit_group();
        const Step step = step_at(params, i);
        const unsigned char* stage = smem + i % params.stages * params.stage_bytes;
        if (params.pieces != 0) {
            convert<Tile>(params, place, step, stage, tile);
        } else {
            gather<Tile>(params, place, step, tile);
        }
        __syncthreads();
        multiply<Tile>(params, step, stage, tile, sum);
    }
    __syncthreads();
    write<Tile>(params, place, reinterpret_cast<float*>(smem), sum);
#endif
}

// Plans steps of this size; false where they exceed a block's share of shared memory.
template <class Tile>
bool plan_steps(Params& params, int64_t taps, int64_t chunk_words, int64_t stages, bool copied) {
    using Element = typename Tile::Element;
    const Problem& problem = params.problem;
    params.tap_groups = static_cast<int32_t>(ceil_div(problem.K, taps));
    params.taps = static_cast<int32_t>(ceil_div(problem.K, params.tap_groups));
    params.window =
        plan_window<kMaxTaps>(params.taps, Tile::kP, problem.stride, problem.dilation, !params.flat);
    params.row_slots = params.window.slots() + ((4 - params.window.slots()) & 7);
    params.chunk_words = static_cast<int32_t>(chunk_words);
    params.chunks = static_cast<int32_t>(ceil_div(problem.C, chunk_words * kChannelsPerWord<Element>));
    params.stages = static_cast<int32_t>(stages);

    int64_t pieces = 0;
    if (copied) {
        // A window may start anywhere in its first piece.
        const int64_t window = (Tile::kP - 1) * problem.stride + (params.taps - 1) * problem.dilation + 1;
        pieces = ceil_div((window - 1) * static_cast<int64_t>(sizeof(Element)) + 16, 16);
    }
    const int64_t w_stage_bytes = params.taps * chunk_words * Tile::kO * 4;
    const int64_t stage_bytes = w_stage_bytes + chunk_words * kChannelsPerWord<Element> * pieces * 16;
    int64_t smem_bytes = stages * stage_bytes + chunk_words * params.row_slots * 4;
    if (smem_bytes < Tile::kEpilogueBytes) smem_bytes = Tile::kEpilogueBytes;

    // Three blocks share a multiprocessor, two where its memory is small; each block costs 1 KB more.
    const int64_t sm_bytes = problem.device.smem_bytes + 1024;
    const int64_t share = sm_bytes / (sm_bytes >= 160 * 1024 ? 3 : 2);
    if (smem_bytes + static_cast<int64_t>(sizeof(Place)) + 1024 > share) return false;
    params.pieces = static_cast<int32_t>(pieces);
    params.w_stage_bytes = static_cast<int32_t>(w_stage_bytes);
    params.stage_bytes = static_cast<int32_t>(stage_bytes);
    params.smem_bytes = static_cast<int32_t>(smem_bytes);
    return true;
}

// The most taps that fit, so that x is fetched least often; twice the channels where a step has only one
// tap.
template <class Tile>
Params plan(const Problem& problem) {
    Params params{};
    params.problem = problem;
    params.flat = 2 * problem.P <= Tile::kP;
    params.o_tiles = ceil_div(problem.O, Tile::kO);
    params.p_tiles = ceil_div(params.flat ? problem.N * problem.P : problem.P, Tile::kP);
    params.y_pairs = problem.P % 2 == 0 &&
                     reinterpret_cast<uintptr_t>(problem.y) % (2 * sizeof(typename Tile::Element)) == 0;
    const bool neighbours = problem.x_stride_l == 1 && !params.flat;
    for (const bool copied : {true, false}) {
        if (copied && !neighbours) continue;
        for (int64_t taps = problem.K < kMaxTaps ? problem.K : kMaxTaps; taps > 0; --taps) {
            for (int64_t mmas = taps == 1 ? 2 : 1; mmas > 0; --mmas) {
                for (const int64_t stages : {3, 2}) {
                    if (plan_steps<Tile>(params, taps, mmas * kMmaWords, stages, copied)) return params;
                }
            }
        }
    }
    return params;  // not reached: one gathered tap of one chunk takes 13 KB
}

inline size_t packed_vectors(const Params& params, int64_t tile_o) {
    return static_cast<size_t>(params.problem.G * params.o_tiles * params.chunks * params.problem.K *
                               (params.chunk_words / kMmaWords) * (tile_o / 16) * 32);
}

template <class Tile>
struct Launch {
    static size_t workspace_bytes(const Problem& problem) {
        return packed_vectors(plan<Tile>(problem), Tile::kO) * sizeof(uint4);
    }

    static Error run(const Problem& problem, cudaStream_t stream) {
        using Element = typename Tile::Element;
        Params params = plan<Tile>(problem);
        uint4* w_packed = static_cast<uint4*>(problem.workspace);
        params.w_packed = w_packed;
        const auto vectors = static_cast<uint32_t>(packed_vectors(params, Tile::kO));
        gemm_sm80_pack_kernel<Element><<<static_cast<unsigned>(ceil_div(vectors, 256)), 256, 0, stream>>>(
            static_cast<const Element*>(problem.w), w_packed, problem.O, problem.C,
            static_cast<uint32_t>(problem.K), Tile::kO / 16, static_cast<uint32_t>(params.o_tiles),
            params.chunk_words / kMmaWords, params.chunks, vectors);
        const int64_t samples = params.flat ? 1 : problem.N;
        const auto blocks = static_cast<unsigned>(params.o_tiles * params.p_tiles * problem.G * samples);
        const Error error = allow_smem<gemm_sm80_forward_kernel<Tile>>(problem.device);
        if (error != nullptr) return error;
        gemm_sm80_forward_kernel<Tile><<<blocks, kThreads, params.smem_bytes, stream>>>(params);
        return launch_error();
    }
};

// Calls Launch<Tile> of the tile that wastes least: wide in O, or, where O is small, in positions.
template <class Element, class Call>
auto with_tile(const Problem& problem, Call call) {
    if (problem.device.arch == 90) return call(Launch<HopperTile<Element>>{});
    if (problem.O <= 32) return call(Launch<Tile<Element, 1, 2, 8>>{});  // 32 x 256
    if (problem.O <= 64) return call(Launch<Tile<Element, 2, 2, 8>>{});  // 64 x 128
    // Short rows, or rows that end in the first half of a wide tile.
    const bool half_tiles = 4 * round_up(problem.P, 128) > 5 * round_up(problem.P, 64);
    if (half_tiles && problem.P > 32) return call(Launch<Tile<Element, 2, 4, 4>>{});  // 128 x 64
    return call(Launch<Tile<Element, 2, 4, 8>>{});                                    // 128 x 128
}

template <class Call>
auto with_launch(const Problem& problem, Call call) {
    switch (problem.dtype) {
        case Dtype::float16: return with_tile<__half>(problem, call);
        case Dtype::bfloat16: return with_tile<__nv_bfloat16>(problem, call);
        default: return with_tile<float>(problem, call);
    }
}

}  // namespace gemm_sm80

// TF32, fp16 and bf16 from sm_80 on; at least 16 input channels a group, below which fragments are half
// zeros, and 8 output channels.
inline bool fits_gemm_sm80(const Problem& problem) {
    const bool type = problem.dtype == Dtype::float16 || problem.dtype == Dtype::bfloat16 ||
                      (problem.dtype == Dtype::float32 && problem.precision == Precision::tf32);
    if (!type || problem.device.arch < 80 || problem.C < 16 || problem.O < 8) return false;
    // Blocks of at least 32 x 64 outputs, and packed weights, are counted in 32 bits.
    const int64_t blocks = problem.N * problem.G * ceil_div(problem.O, 32) * ceil_div(problem.P, 64);
    const int64_t weights = problem.G * round_up(problem.O, 128) * round_up(problem.C, 32) * problem.K;
    return blocks <= kMaxBlocks && weights < (int64_t{1} << 33);
}

inline size_t workspace_gemm_sm80(const Problem& problem) {
    const Problem same = canonical(problem);
    return gemm_sm80::with_launch(same, [&](auto launch) { return launch.workspace_bytes(same); });
}

inline Error launch_gemm_sm80(const Problem& problem, cudaStream_t stream) {
    const Problem same = canonical(problem);
    return gemm_sm80::with_launch(same, [&](auto launch) { return launch.run(same, stream); });
}

}  // namespace conv1d
