// "project": few outputs of few taps (O*K <= kRows). t[o, k, l] = sum over c of w[o, c, k] * x[c, l], which
// reads each x once; then y[o, p] = sum over k of t[o, k, l], through shared memory. Of fp32 a thread has
// some positions l, and multiplies in fp32; of 16 bits a warp has 256, and multiplies by tensor cores, x
// being transposed on the way from shared memory.
#pragma once
#include <algorithm>

#include "mma.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace few {

constexpr int kRows = 8;           // of t, at most: (o, k)
template <class Element>
constexpr int kProjectThreads = sizeof(Element) == 2 ? 64 : 128;
constexpr int64_t kMostChannels = 1024;  // whose weights of all rows share a block's memory with x
constexpr int kStageChannels = 16;       // 16 bits: of a stage of x, as many as a product sums
constexpr int kRowPad = 4;  // of t, so that lanes that hold several rows meet in no bank
template <class Element>
constexpr int kThreadL = 16 / sizeof(Element);  // neighbours that a thread loads
constexpr int kAhead = 16;                      // fp32: channels that are on their way

struct ProjectParams {
    Problem problem;
    int32_t threads;
    int32_t tile_p;  // output positions of a block
    int64_t p_tiles, tiles;
    size_t smem_bytes;
};

// What a block works on, and where its thread's x begins.
template <class Element>
struct ProjectPlace {
    int64_t n, g, p_begin;
    int32_t lead;  // positions between the block's first one, which is aligned, and the first that y needs
    bool in;       // whether the thread's positions lie in the row: all do, or none
    const Element* x;

    __device__ __forceinline__ explicit ProjectPlace(const ProjectParams& params) {
        const Problem& problem = params.problem;
        const uint32_t sample = blockIdx.x / static_cast<uint32_t>(params.p_tiles);
        n = sample / static_cast<uint32_t>(problem.G);
        g = sample - n * problem.G;
        p_begin = (blockIdx.x - sample * params.p_tiles) * params.tile_p;
        const int64_t l_needed = p_begin * problem.stride - problem.pad_left;
        lead = static_cast<int32_t>(l_needed & (kThreadL<Element> - 1));
        const int64_t l = l_needed - lead + static_cast<int64_t>(threadIdx.x) * kThreadL<Element>;
        in = static_cast<uint64_t>(l) < static_cast<uint64_t>(problem.L);
        x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n +
            g * problem.C * problem.x_stride_c + (in ? l : 0);
    }
};

// y from t, whose rows are `pitch` apart.
template <class Element>
__device__ __forceinline__ void sum_taps(const ProjectParams& params, const ProjectPlace<Element>& place,
                                         const float* t_smem, int32_t pitch) {
    const Problem& problem = params.problem;
    const int32_t taps = static_cast<int32_t>(problem.K), stride = static_cast<int32_t>(problem.stride);
    const int32_t tap_step = pitch + static_cast<int32_t>(problem.dilation);  // from a tap to the next
    const int32_t outputs = static_cast<int32_t>(min(problem.P - place.p_begin, int64_t{params.tile_p}));
    for (int32_t o = 0; o < problem.O; ++o) {
        const int64_t channel = place.g * problem.O + o;
        float bias = 0;
        if (problem.bias != nullptr) bias = widen(static_cast<const Element*>(problem.bias)[channel]);
        Element* y = static_cast<Element*>(problem.y) +
                     (place.n * problem.G * problem.O + channel) * problem.P + place.p_begin;
#pragma unroll 4
        for (int32_t p = threadIdx.x; p < outputs; p += params.threads) {
            const float* t = t_smem + o * taps * pitch + p * stride + place.lead;
            float total = 0;
            for (int32_t k = 0; k < taps; ++k) total += t[k * tap_step];
            y[p] = problem.activation == Activation::none
                       ? narrow<Element>(total + bias)
                       : activate<Element, true>(problem.activation, total + bias);
        }
    }
}

template <class Element>
__global__ void __launch_bounds__(kProjectThreads<Element>, 4)
    few_outputs_project_kernel(const __grid_constant__ ProjectParams params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    constexpr int kCount = kThreadL<Element>;
    using Values = Vector<Element, kCount>;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const int32_t tile_l = kCount * params.threads;
    const int32_t channels = static_cast<int32_t>(problem.C), taps = static_cast<int32_t>(problem.K);
    const int32_t rows = static_cast<int32_t>(problem.O) * taps;
    const int32_t w_count = channels * kRows;
    float* const w_smem = reinterpret_cast<float*>(smem);  // [channel][kRows]
    float* const t_smem = w_smem + w_count;                // [row][tile_l], and before that x
    ProjectPlace<Element> place(params);
    // Each thread copies for itself, kAhead channels ahead, what only it reads.
    auto* const ring = reinterpret_cast<Values*>(t_smem) + threadIdx.x;  // [kAhead][threads]
    const auto copy = [&](int32_t c, int32_t slot) {
        const bool exists = place.in && c < channels;
        ptx::cp_async_16(ptx::smem_address(ring + slot * params.threads), place.x, exists ? 16 : 0);
        ptx::cp_async_commit_group();
        if (c + 1 < channels) place.x += problem.x_stride_c;
    };
#pragma unroll 1
    for (int32_t c = 0; c < kAhead; ++c) copy(c, c);
    const Element* const w = static_cast<const Element*>(problem.w) + place.g * rows * channels;
    for (int32_t i = threadIdx.x; i < w_count; i += params.threads) {
        const int32_t c = i / kRows, row = i % kRows;
        const int32_t o = row / taps, k = row - o * taps;
        w_smem[i] = row < rows ? w[(o * channels + c) * taps + k] : 0;
    }
    __syncthreads();

    float sum[kRows][kCount] = {};
    int32_t slot = 0;
#pragma unroll 1
    for (int32_t c = 0; c < channels; ++c) {
        ptx::cp_async_wait_group<kAhead - 1>();
        const Values values = ring[slot * params.threads];
#pragma unroll
        for (int row = 0; row < kRows; row += 4) {
            const auto w_frag = *reinterpret_cast<const Vector<float, 4>*>(w_smem + c * kRows + row);
#pragma unroll
            for (int v = 0; v < 4; ++v) {
#pragma unroll
                for (int j = 0; j < kCount; ++j) sum[row + v][j] += w_frag.at[v] * values.at[j];
            }
        }
        copy(c + kAhead, slot);
        slot = slot + 1 < kAhead ? slot + 1 : 0;
    }
    ptx::cp_async_wait_all();
    __syncthreads();  // t may lie where x lay
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
        if (i >= rows) break;
        Values piece;
#pragma unroll
        for (int j = 0; j < kCount; ++j) piece.at[j] = sum[i][j];
        reinterpret_cast<Values*>(t_smem + i * tile_l)[threadIdx.x] = piece;
    }
    __syncthreads();
    sum_taps(params, place, t_smem, tile_l);
#endif
}

// Small blocks of one stage, so that others have theirs on the way while one multiplies or stores (two
// stages and half as many blocks: hifigan_post 46 us instead of 44). A stage holds kStageChannels rows of a
// warp's x, of 32 pieces of 16 bytes; piece i of row c lies at i ^ c % 8, so that the 8 rows of a matrix
// meet in no bank.
template <class Element>
__global__ void __launch_bounds__(kProjectThreads<Element>, 7)
    few_outputs_project_16bit_kernel(const __grid_constant__ ProjectParams params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    constexpr int kRowBytes = 512, kStageBytes = kStageChannels * kRowBytes;
    constexpr int kTiles = 16;  // of 16 positions, a product each
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const int32_t pitch = kThreadL<Element> * params.threads + kRowPad;
    const int32_t channels = static_cast<int32_t>(problem.C), taps = static_cast<int32_t>(problem.K);
    const int32_t rows = static_cast<int32_t>(problem.O) * taps;
    const int32_t stages = (channels + kStageChannels - 1) / kStageChannels;
    Element* const w_smem = reinterpret_cast<Element*>(smem);  // [stage][lane][4]: its b of a product
    const int32_t w_count = stages * kStageChannels * kRows;
    unsigned char* const x_smem = smem + w_count * sizeof(Element);  // [warp], and later t
    ProjectPlace<Element> place(params);
    const int32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t stage = ptx::smem_address(x_smem) + warp * kStageBytes;
    int32_t c_next = 0;
    const auto copy = [&] {
#pragma unroll
        for (int i = 0; i < kStageChannels; ++i) {
            const bool exists = place.in && c_next < channels;
            ptx::cp_async_16(stage + i * kRowBytes + ((lane ^ i % 8) * 16), place.x, exists ? 16 : 0);
            if (++c_next < channels) place.x += problem.x_stride_c;
        }
        ptx::cp_async_commit_group();
    };
    copy();
    const Element* const w = static_cast<const Element*>(problem.w) + place.g * rows * channels;
    for (int32_t i = threadIdx.x; i < w_count; i += params.threads) {
        const int32_t c = i / kRows, row = i % kRows;
        const int32_t o = row / taps, k = row - o * taps;
        const int32_t to_lane = row * 4 + c % 8 / 2, word = c % kStageChannels / 8;
        const bool exists = row < rows && c < channels;
        w_smem[((c / kStageChannels * 32 + to_lane) * 2 + word) * 2 + c % 2] =
            exists ? w[(o * channels + c) * taps + k] : narrow<Element>(0);
    }
    __syncthreads();

    // The row of a matrix whose address this lane gives: matrices are 8 channels by 8 positions, first the
    // two of the first 8 channels.
    const int32_t channel = lane / 16 * 8 + lane % 8, piece = lane / 8 % 2;
    const uint32_t x_row = stage + channel * kRowBytes;
    float sum[kTiles][4] = {};
#pragma unroll 1
    for (int32_t s = 0; s < stages; ++s) {
        ptx::cp_async_wait_group<0>();
        __syncwarp();
        const uint2 b = reinterpret_cast<const uint2*>(w_smem)[s * 32 + lane];
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            uint32_t words[4];
            ptx::ldmatrix_x4_trans(words, x_row + (((2 * tile + piece) ^ channel % 8) * 16));
            const uint4 a = {words[0], words[1], words[2], words[3]};
            ptx::mma<Element>(sum[tile], a, b);
        }
        __syncwarp();  // x has been read by all lanes
        copy();
    }
    ptx::cp_async_wait_all();
    __syncthreads();  // t may lie where x lay
    float* const t_smem = reinterpret_cast<float*>(x_smem);  // [row][pitch]
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int32_t row = lane % 4 * 2 + i % 2;
            const int32_t position = warp * 256 + tile * 16 + i / 2 * 8 + lane / 4;
            if (row < rows) t_smem[row * pitch + position] = sum[tile][i];
        }
    }
    __syncthreads();
    sum_taps(params, place, t_smem, pitch);
#endif
}

// tiles is 0 where the problem does not suit.
template <class Element>
ProjectParams plan_project(const Problem& problem) {
    constexpr bool k16Bit = sizeof(Element) == 2;
    ProjectParams params{};
    params.problem = problem;
    if (problem.O > kRows || problem.K > kRows || problem.O * problem.K > kRows ||
        problem.C > kMostChannels || problem.stride > problem.K || problem.dilation > 512) {
        return params;
    }
    const auto in_vectors = [](int64_t count) { return count % kThreadL<Element> == 0; };
    if (problem.device.arch < 80 || problem.x_stride_l != 1 || !in_vectors(problem.L) ||
        !in_vectors(problem.x_stride_c) || !in_vectors(problem.x_stride_n) ||
        reinterpret_cast<uintptr_t>(problem.x) % 16 != 0) {
        return params;
    }
    const int64_t span = (problem.K - 1) * problem.dilation + kThreadL<Element> - 1;
    const int64_t most_bytes = k16Bit ? problem.device.smem_bytes : kPlainSmemBytes;
    const auto set = [&](int64_t threads) {
        const int64_t tile_l = threads * kThreadL<Element>;
        params.threads = static_cast<int32_t>(threads);
        params.tile_p = static_cast<int32_t>(tile_l > span ? (tile_l - 1 - span) / problem.stride + 1 : 0);
        const int64_t t_bytes = problem.O * problem.K * (tile_l + kRowPad) * sizeof(float);
        const int64_t x_bytes = threads * 16 * (k16Bit ? kStageChannels : kAhead);
        const int64_t w_count = (k16Bit ? round_up(problem.C, kStageChannels) : problem.C) * kRows;
        params.smem_bytes = w_count * sizeof(Element) + std::max(t_bytes, x_bytes);
        if (static_cast<int64_t>(params.smem_bytes) > most_bytes || 2 * span > tile_l) return false;
        params.p_tiles = ceil_div(problem.P, params.tile_p);
        params.tiles = params.p_tiles * problem.G * problem.N;
        if (params.tiles > kMaxBlocks) params.tiles = 0;
        return params.tiles > 0;
    };
    // The largest block that fits, or a smaller one where that leaves multiprocessors without work or is much
    // longer than a row.
    int64_t threads = kProjectThreads<Element>;
    while (threads > 64 && !set(threads)) threads /= 2;
    if (!set(threads)) {
        params.tiles = 0;
        return params;
    }
    while (threads > 64 && 8 * span <= threads * kThreadL<Element> &&
           (params.tiles < 4 * problem.device.sm_count || 2 * problem.P < params.tile_p))
        set(threads /= 2);
    // Rows much shorter than the smallest block: the general kernel, which counts through samples.
    if (2 * problem.P < params.tile_p) params.tiles = 0;
    return params;
}

template <class Element>
Error launch_project(const ProjectParams& params, cudaStream_t stream) {
    const auto blocks = static_cast<unsigned>(params.tiles);
    if constexpr (sizeof(Element) == 4) {
        few_outputs_project_kernel<Element>
            <<<blocks, params.threads, params.smem_bytes, stream>>>(params);
    } else {
        const Error error = allow_smem<few_outputs_project_16bit_kernel<Element>>(params.problem.device);
        if (error != nullptr) return error;
        few_outputs_project_16bit_kernel<Element>
            <<<blocks, params.threads, params.smem_bytes, stream>>>(params);
    }
    return launch_error();
}

}  // namespace few
}  // namespace conv1d
