// The operands of the Hopper GEMM (gemm_sm90.cuh) as wgmma takes them, K-major in swizzled rows of 128 bytes:
// weights packed once a launch, x converted by seven warps of each block.
#pragma once
#include "gemm_sm90_pipeline.cuh"
#include "gemm_sm90_plan.cuh"
#include "problem.h"
#include "ptx.cuh"

namespace conv1d {
namespace sm90 {

// fp32 bits to nearest TF32, ties away from zero as cuDNN has them. What is left in the low 13 bits wgmma
// ignores.
__device__ __forceinline__ uint32_t round_tf32(uint32_t bits) {
    return fabsf(__uint_as_float(bits)) < __int_as_float(0x7F800000) ? bits + 0x1000 : bits;
}

// Packs w [G*O][C][K] into blocks of 16 KB in the order in which tiles use them, [G][o_tile][tap
// group][chunk][tap]; a block is the shared-memory image of 128 output channels x one row. Zeroes the ticket
// that the product kernel draws.
template <Mode kMode>
__global__ void __launch_bounds__(256)
    pack_weights_kernel(const void* __restrict__ w,  // [G*O][C][K]
                        uint4* __restrict__ image,   // [blocks][128][8] pieces
                        int* __restrict__ ticket, Geometry geometry, int32_t C, int32_t O, int32_t K,
                        int64_t pieces) {
#if __CUDA_ARCH__ == 900
    using Traits = ModeTraits<kMode>;
    if (blockIdx.x == 0 && threadIdx.x == 0) *ticket = 0;
    const int64_t index = blockIdx.x * int64_t{256} + threadIdx.x;
    if (index >= pieces) return;
    // Consecutive threads take consecutive output channels of one piece: index = (block*8 + piece)*128 + row.
    const int row = static_cast<int>(index % kTileO);
    const int piece = static_cast<int>(index / kTileO % 8);
    int64_t block = index / kTileO / 8;
    const int64_t block_of_image = block;
    const int blocks_of_full_group = geometry.chunks * geometry.taps_per_group;
    const int64_t blocks_of_tile = int64_t{geometry.chunks} * K;
    const int64_t tile = block / blocks_of_tile;
    block -= tile * blocks_of_tile;
    const int tap_group = static_cast<int>(block / blocks_of_full_group);
    block -= int64_t{tap_group} * blocks_of_full_group;
    const int first_tap = tap_group * geometry.taps_per_group;
    const int taps = min(geometry.taps_per_group, K - first_tap);
    const int chunk = static_cast<int>(block / taps);
    const int tap = first_tap + static_cast<int>(block % taps);
    const int group = static_cast<int>(tile / geometry.o_tiles);
    const int o = static_cast<int>(tile % geometry.o_tiles) * kTileO + row;
    const int part = piece / Traits::kPieces;  // 0: value or high part, 1: low part
    const int c = chunk * Traits::kChunkChannels + piece % Traits::kPieces * Traits::kPieceChannels;

    uint32_t words[4] = {0, 0, 0, 0};
    if (o < O) {
        const int64_t offset = ((int64_t{group} * O + o) * C + c) * K + tap;
#pragma unroll
        for (int j = 0; j < Traits::kPieceChannels; ++j) {
            if (c + j >= C) break;
            if constexpr (Traits::kIsFloat) {
                const float value = static_cast<const float*>(w)[offset + int64_t{j} * K];
                if constexpr (Traits::kIsSplit) {
                    const uint32_t high = ptx::cvt_rn_tf32(value);
                    words[j] = part == 0 ? high : ptx::cvt_rn_tf32(value - __uint_as_float(high));
                } else {
                    words[j] = round_tf32(__float_as_uint(value));
                }
            } else {
                const uint32_t value = static_cast<const uint16_t*>(w)[offset + int64_t{j} * K];
                words[j / 2] |= value << (16 * (j % 2));
            }
        }
    }
    image[(block_of_image * kTileO + row) * 8 + (piece ^ (row & 7))] =
        make_uint4(words[0], words[1], words[2], words[3]);
#endif
}

// A batch is 64 positions with all channels of a row, loaded and then stored; the batches of all stages go
// round the warps. Neighbouring lanes take neighbouring positions, so global loads run along the rows of x.
// Where rows begin at even elements a lane takes two neighbours, with one load a channel.
template <Mode kMode>
struct Converter {
    using Traits = ModeTraits<kMode>;
    using Bits = typename Traits::Bits;

    const Geometry& geometry;
    const Problem& problem;
    const Barriers& barriers;
    uint8_t* const x_smem;
    const int lane;
    int32_t batch;  // of the current stage

    Ring tiles, stages;
    bool claimed = false;
    Announcement place;
    const Bits* x_tile;  // x at the tile's sample and group
    int32_t tap_group = 0, chunk = 0;

    __device__ __forceinline__ Converter(const Geometry& geometry, const Problem& problem,
                                         const Barriers& barriers, uint8_t* x_smem, int warp, int lane)
        : geometry(geometry), problem(problem), barriers(barriers), x_smem(x_smem), lane(lane), batch(warp) {
        stages.parity = 1;
    }

    __device__ __forceinline__ void next_tile() {
        ptx::mbarrier_wait(barriers.tile_full(tiles.stage), tiles.parity);
        place = barriers.tile[tiles.stage];
        __syncwarp();
        if (lane == 0) ptx::mbarrier_arrive(barriers.tile_empty(tiles.stage));
        tiles.advance(kTileSlots);
        x_tile = static_cast<const Bits*>(problem.x) + place.sample * problem.x_stride_n +
                 place.group * problem.C * problem.x_stride_c;
    }

    // Position of x at q = 0 of the window; row t of a sample begins at t*stride.
    __device__ __forceinline__ int32_t window_begin() const {
        return place.row * static_cast<int32_t>(problem.stride) - static_cast<int32_t>(problem.pad_left) +
               tap_group * geometry.taps_per_group * static_cast<int32_t>(problem.dilation);
    }

    // All channels of the chunk at position q of the window, and, where Word holds two elements, at q + 1.
    template <class Word>
    __device__ __forceinline__ void load(Word (&value)[Traits::kChunkChannels], int32_t q) {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t c = chunk * Traits::kChunkChannels;
        int32_t l = window_begin() + q;
        const Bits* source = x_tile;
        bool valid = q < geometry.window;
        if (geometry.flat) {
            int32_t t = place.row + divide_by_stride(geometry, q, stride);
            const int32_t samples = wrap_row(geometry, t);
            source += samples * problem.x_stride_n;
            l -= samples * geometry.rows_per_sample * stride;
            valid = valid && place.sample + samples < problem.N;
        }
        valid = valid && static_cast<uint32_t>(l) < static_cast<uint32_t>(problem.L);
        const int32_t channels = valid ? static_cast<int32_t>(problem.C) - c : 0;
        source += int64_t{l} * geometry.x_stride_l + int64_t{c} * geometry.x_stride_c;
#pragma unroll
        for (int i = 0; i < Traits::kChunkChannels; ++i, source += geometry.x_stride_c)
            value[i] = i < channels ? __ldg(reinterpret_cast<const Word*>(source)) : Word{};
    }

    // Rounds or splits the channels at position q into their row of the current stage. get_word(i) is channel
    // i's element, or, of 16 bits each, those of channels 2*i and 2*i + 1.
    template <class GetWord>
    __device__ __forceinline__ void store(int32_t q, GetWord get_word) {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t row = divide_by_stride(geometry, q, stride), plane = q - row * stride;
        if (q < 0 || q >= geometry.window || !(geometry.plane_mask >> plane & 1)) return;
        const int32_t stored_row = row + plane_row(geometry, plane);
        uint8_t* const target = x_smem + stages.stage * geometry.x_stage_bytes + stored_row * kRowBytes;
        const int32_t swizzle = stored_row & 7;
#pragma unroll
        for (int piece = 0; piece < Traits::kPieces; ++piece) {
            uint32_t word[4], high[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                word[j] = get_word(4 * piece + j);
                high[j] = round_element(word[j]);
            }
            *reinterpret_cast<uint4*>(target + ((piece ^ swizzle) << 4)) =
                make_uint4(high[0], high[1], high[2], high[3]);
            if constexpr (Traits::kIsSplit) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    word[j] = ptx::cvt_rn_tf32(__uint_as_float(word[j]) - __uint_as_float(high[j]));
                *reinterpret_cast<uint4*>(target + (((piece + Traits::kPieces) ^ swizzle) << 4)) =
                    make_uint4(word[0], word[1], word[2], word[3]);
            }
        }
    }

    static __device__ __forceinline__ uint32_t round_element(uint32_t word) {
        if constexpr (Traits::kIsSplit) return ptx::cvt_rn_tf32(__uint_as_float(word));
        else if constexpr (Traits::kIsFloat) return round_tf32(word);
        else return word;
    }

    __device__ __forceinline__ void convert_pairs() {
        const int32_t q = 2 * lane + 64 * batch - (window_begin() & 1);
        typename Traits::BitsPair value[Traits::kChunkChannels];
        load(value, q);
        claim();
        if constexpr (Traits::kIsFloat) {
            store(q, [&](int i) { return value[i].x; });
            store(q + 1, [&](int i) { return value[i].y; });
        } else {
            store(q, [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x5410); });
            store(q + 1, [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x7632); });
        }
    }

    __device__ __forceinline__ void convert_singles() {
        constexpr int kTogether = Traits::kIsFloat ? 2 : 1;  // runs of 32 positions, as registers allow
#pragma unroll 1
        for (int first = 0; first < 2; first += kTogether) {
            const int32_t q = lane + 64 * batch + 32 * first;
            Bits value[kTogether][Traits::kChunkChannels];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) load(value[i], q + 32 * i);
            claim();
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                store(q + 32 * i, [&](int j) -> uint32_t {
                    if constexpr (Traits::kIsFloat) return value[i][j];
                    else return value[i][2 * j] | static_cast<uint32_t>(value[i][2 * j + 1]) << 16;
                });
            }
        }
    }

    // Waits until the current stage is free, once.
    __device__ __forceinline__ void claim() {
        if (!claimed) ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);
        claimed = true;
    }

    // Brings `batch` back into a stage, leaving those before it; false once there are no more tiles. Every
    // warp claims and leaves every stage, also one in which it has no batch: else the barriers could run two
    // phases ahead of it, which to a parity looks like none.
    __device__ __forceinline__ bool find_stage() {
        while (batch >= geometry.batches) {
            batch -= geometry.batches;
            claim();
            claimed = false;
            ptx::fence_proxy_async();
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
            stages.advance(geometry.x_stages);
            if (++chunk == geometry.chunks) {
                chunk = 0;
                if (++tap_group == geometry.tap_groups) {
                    tap_group = 0;
                    next_tile();
                    if (place.tile < 0) return false;
                }
            }
        }
        return true;
    }

    __device__ __forceinline__ void run() {
        next_tile();
        while (find_stage()) {
            if (geometry.pairs) convert_pairs();
            else convert_singles();
            batch += kConverterWarps;
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
