// The operands of the Hopper GEMM (gemm_sm90.cuh) as wgmma takes them, K-major in swizzled rows of 128 bytes:
// weights packed once a launch, x converted by seven warps of each block.
#pragma once
#include <cuda_fp16.h>
#include <type_traits>

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

// A split of the two numbers, scaled already: the high parts, and the low parts times kLowScale.
__device__ __forceinline__ uint32_t split_f16(float first, float second, uint32_t& low) {
    const __half2 high = __floats2half2_rn(first, second);
    const float2 rest = __half22float2(high);
    const __half2 lows = __floats2half2_rn(fmaf(rest.x, -kLowScale, first * kLowScale),
                                           fmaf(rest.y, -kLowScale, second * kLowScale));
    low = *reinterpret_cast<const uint32_t*>(&lows);
    return *reinterpret_cast<const uint32_t*>(&high);
}

// fp32 bits of magnitudes, which are ordered as the numbers are: the largest seen, and how many are too small
// for a split by f16x3, but not zero.
struct Range {
    uint32_t largest = 0, small = 0;
    __device__ __forceinline__ void add(uint32_t bits, float scale) {
        const uint32_t magnitude = bits & 0x7FFFFFFF;
        largest = max(largest, magnitude);
        small += magnitude - 1 < __float_as_uint(kSmallestScaled / scale) - 1;
    }
};

// Weights w [G*O][C][K] are packed into blocks of 16 KB in the order in which tiles use them, [G][o_tile][tap
// group][chunk][tap]; a block is the shared-memory image of 128 output channels x one row of 8 pieces. Where
// a piece's weights come from:
struct PackedPlace {
    int32_t block;         // of the tile's blocks
    int32_t tap, c, part;  // first channel; part 0: value or high part, 1: low part
};

// Where piece `piece` of block `block` of a tile's weights comes from.
template <Mode kMode>
__device__ __forceinline__ PackedPlace packed_place(const Geometry& geometry, int32_t block, int32_t piece,
                                                    int32_t K) {
    using Traits = ModeTraits<kMode>;
    const int32_t blocks_of_full_group = geometry.chunks * geometry.taps_per_group;
    const int32_t tap_group = block / blocks_of_full_group;
    const int32_t rest = block - tap_group * blocks_of_full_group;
    const int32_t first_tap = tap_group * geometry.taps_per_group;
    const int32_t taps = min(geometry.taps_per_group, K - first_tap);
    const int32_t chunk = rest / taps;
    return {block, first_tap + rest % taps,
            chunk * Traits::kChunkChannels + piece % Traits::kPieces * Traits::kPieceChannels,
            piece / Traits::kPieces};
}

// 16 bytes of the image: kPieceChannels weights from `w` on, `stride` apart, of which `count` exist, times
// `scale`.
template <Mode kMode>
__device__ __forceinline__ uint4 pack_piece(const void* w, int64_t offset, int32_t stride, int32_t count,
                                            int32_t part, float scale) {
    using Traits = ModeTraits<kMode>;
    uint32_t words[4] = {0, 0, 0, 0};
    const auto value = [&](int j) {
        return j < count ? static_cast<const float*>(w)[offset + int64_t{j} * stride] * scale : 0.0f;
    };
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        if constexpr (kMode == Mode::f16x3) {
            uint32_t low;
            const uint32_t high = split_f16(value(2 * j), value(2 * j + 1), low);
            words[j] = part == 0 ? high : low;
        } else if constexpr (kMode == Mode::tf32x3) {
            const uint32_t high = ptx::cvt_rn_tf32(value(j));
            words[j] = part == 0 ? high : ptx::cvt_rn_tf32(value(j) - __uint_as_float(high));
        } else if constexpr (kMode == Mode::tf32) {
            words[j] = round_tf32(__float_as_uint(value(j)));
        } else {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                if (2 * j + i < count)
                    words[j] |= static_cast<uint32_t>(
                                    static_cast<const uint16_t*>(w)[offset + int64_t{2 * j + i} * stride])
                                << (16 * i);
            }
        }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// One piece a thread; consecutive threads take consecutive output channels of one piece: index =
// (block*8 + piece)*128 + row. Zeroes the tickets.
template <Mode kMode>
__global__ void __launch_bounds__(256)
    pack_weights_kernel(const void* __restrict__ w,  // [G*O][C][K]
                        Scratch scratch, Geometry geometry, int32_t C, int32_t O, int32_t K, int64_t pieces) {
#if __CUDA_ARCH__ == 900
    if (blockIdx.x == 0 && threadIdx.x < 2) scratch.tickets[threadIdx.x] = 0;
    const int64_t index = blockIdx.x * int64_t{256} + threadIdx.x;
    if (index >= pieces) return;
    const int row = static_cast<int>(index % kTileO), piece = static_cast<int>(index / kTileO % 8);
    const int64_t block = index / kTileO / 8;
    const int32_t blocks_of_tile = geometry.chunks * K;
    const int32_t tile = static_cast<int32_t>(block / blocks_of_tile);
    const PackedPlace from =
        packed_place<kMode>(geometry, static_cast<int32_t>(block - int64_t{tile} * blocks_of_tile), piece, K);
    const int32_t o = tile % geometry.o_tiles * kTileO + row;
    const int64_t offset = ((int64_t{tile / geometry.o_tiles} * O + o) * C + from.c) * K + from.tap;
    reinterpret_cast<uint4*>(scratch.image)[(block * kTileO + row) * 8 + (piece ^ (row & 7))] =
        pack_piece<kMode>(w, offset, K, o < O ? C - from.c : 0, from.part, 1.0f);
#endif
}

// One output channel a block: finds its scale and packs it for f16x3, and for kSafeMode. Zeroes the tickets
// and empties the list of tiles.
template <Mode kSafeMode>
__global__ void __launch_bounds__(128)
    pack_split_weights_kernel(const float* __restrict__ w,  // [G*O][C][K]
                              Scratch scratch, Geometry geometry, Geometry safe_geometry, int32_t C,
                              int32_t O, int32_t K) {
#if __CUDA_ARCH__ == 900
    if (blockIdx.x == 0 && threadIdx.x < 2) scratch.tickets[threadIdx.x] = 0;
    for (int64_t i = blockIdx.x * int64_t{128} + threadIdx.x; i < geometry.tiles;
         i += gridDim.x * int64_t{128})
        scratch.is_listed[i] = 0;
    const int32_t row = blockIdx.x % kTileO, tile = blockIdx.x / kTileO;
    const int32_t o = tile % geometry.o_tiles * kTileO + row;
    const int64_t first = (int64_t{tile / geometry.o_tiles} * O + o) * C * K;
    __shared__ uint32_t largest, small;
    if (threadIdx.x == 0) largest = small = 0;
    __syncthreads();
    const int32_t weights = o < O ? C * K : 0;
    Range range;
    for (int32_t i = threadIdx.x; i < weights; i += 128) range.add(__float_as_uint(w[first + i]), 1.0f);
    atomicMax(&largest, range.largest);
    __syncthreads();
    // The largest magnitude's exponent becomes 14; beyond 2^100 either way, the scale itself could overflow.
    const int32_t exponent = static_cast<int32_t>(largest >> 23) - 127;
    const bool scales = exponent > -100 && exponent < 100;
    const float scale = scales ? __uint_as_float(static_cast<uint32_t>(14 - exponent + 127) << 23) : 1.0f;
    range = {};
    for (int32_t i = threadIdx.x; i < weights; i += 128) range.add(__float_as_uint(w[first + i]), scale);
    atomicAdd(&small, range.small);
    __syncthreads();
    if (threadIdx.x == 0)
        scratch.row_scaling[blockIdx.x] = make_float2(
            (scales || largest == 0 ? 1.0f : -1.0f) / (scale * kXScale), static_cast<float>(small));

    const auto pack = [&](auto mode, const Geometry& cut, uint8_t* image, float by) {
        constexpr Mode kMode = decltype(mode)::value;
        const int32_t blocks = cut.chunks * K;
        for (int32_t i = threadIdx.x; i < blocks * 8; i += 128) {
            const int32_t piece = i % 8;
            const PackedPlace from = packed_place<kMode>(cut, i / 8, piece, K);
            const int64_t block = int64_t{tile} * blocks + from.block;
            reinterpret_cast<uint4*>(image)[(block * kTileO + row) * 8 + (piece ^ (row & 7))] =
                pack_piece<kMode>(w, first + int64_t{from.c} * K + from.tap, K, o < O ? C - from.c : 0,
                                  from.part, by);
        }
    };
    pack(std::integral_constant<Mode, Mode::f16x3>{}, geometry, scratch.image, scale);
    pack(std::integral_constant<Mode, kSafeMode>{}, safe_geometry, scratch.safe_image, 1.0f);
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
    const Scratch& scratch;
    uint8_t* const x_smem;
    const int lane;
    int32_t batch;  // of the current stage
    Range range;    // f16x3: of the batch

    Ring tiles, stages;
    bool claimed = false;
    Announcement place;
    const Bits* x_tile;  // x at the tile's sample and group
    int32_t tap_group = 0, chunk = 0;

    __device__ __forceinline__ Converter(const Geometry& geometry, const Problem& problem,
                                         const Barriers& barriers, const Scratch& scratch, uint8_t* x_smem,
                                         int warp, int lane)
        : geometry(geometry),
          problem(problem),
          barriers(barriers),
          scratch(scratch),
          x_smem(x_smem),
          lane(lane),
          batch(warp) {
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

    // Channels of the chunk from `first` on at position q of the window, and, where Word holds two elements,
    // at q + 1.
    template <class Word>
    __device__ __forceinline__ void load(Word (&value)[Traits::kLoadChannels], int32_t first, int32_t q) {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t c = chunk * Traits::kChunkChannels + first;
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
        for (int i = 0; i < Traits::kLoadChannels; ++i, source += geometry.x_stride_c)
            value[i] = i < channels ? __ldg(reinterpret_cast<const Word*>(source)) : Word{};
    }

    // Rounds or splits loaded channels at position q into their row of the current stage, from piece
    // `first_piece` on. get_word(i) is channel i's element, or, of 16 bits each, those of channels 2*i and
    // 2*i + 1.
    template <class GetWord>
    __device__ __forceinline__ void store(int32_t q, int32_t first_piece, GetWord get_word) {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t row = divide_by_stride(geometry, q, stride), plane = q - row * stride;
        if (q < 0 || q >= geometry.window || !(geometry.plane_mask >> plane & 1)) return;
        const int32_t stored_row = row + plane_row(geometry, plane);
        uint8_t* const target = x_smem + stages.stage * geometry.x_stage_bytes + stored_row * kRowBytes;
        const int32_t swizzle = stored_row & 7;
#pragma unroll
        for (int i = 0; i < Traits::kLoadChannels / Traits::kPieceChannels; ++i) {
            const int32_t piece = first_piece + i;
            uint32_t high[4], low[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if constexpr (kMode == Mode::f16x3) {
                    const uint32_t first = get_word(8 * i + 2 * j), second = get_word(8 * i + 2 * j + 1);
                    range.add(first, kXScale);
                    range.add(second, kXScale);
                    high[j] = split_f16(__uint_as_float(first) * kXScale, __uint_as_float(second) * kXScale,
                                        low[j]);
                } else if constexpr (kMode == Mode::tf32x3) {
                    const float value = __uint_as_float(get_word(4 * i + j));
                    high[j] = ptx::cvt_rn_tf32(value);
                    low[j] = ptx::cvt_rn_tf32(value - __uint_as_float(high[j]));
                } else if constexpr (kMode == Mode::tf32) {
                    high[j] = round_tf32(get_word(4 * i + j));
                } else {
                    high[j] = get_word(4 * i + j);
                }
            }
            *reinterpret_cast<uint4*>(target + ((piece ^ swizzle) << 4)) =
                make_uint4(high[0], high[1], high[2], high[3]);
            if constexpr (Traits::kIsSplit)
                *reinterpret_cast<uint4*>(target + (((piece + Traits::kPieces) ^ swizzle) << 4)) =
                    make_uint4(low[0], low[1], low[2], low[3]);
        }
    }

    __device__ __forceinline__ void convert_pairs(int32_t first) {
        const int32_t q = 2 * lane + 64 * batch - (window_begin() & 1);
        const int32_t first_piece = first / Traits::kPieceChannels;
        typename Traits::BitsPair value[Traits::kLoadChannels];
        load(value, first, q);
        claim();
        if constexpr (Traits::kIsFloat) {
            store(q, first_piece, [&](int i) { return value[i].x; });
            store(q + 1, first_piece, [&](int i) { return value[i].y; });
        } else {
            store(q, first_piece, [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x5410); });
            store(q + 1, first_piece,
                  [&](int i) { return __byte_perm(value[2 * i], value[2 * i + 1], 0x7632); });
        }
    }

    __device__ __forceinline__ void convert_singles(int32_t first_channel) {
        constexpr int kTogether = Traits::kIsFloat ? 2 : 1;  // runs of 32 positions, as registers allow
#pragma unroll 1
        for (int first = 0; first < 2; first += kTogether) {
            const int32_t q = lane + 64 * batch + 32 * first;
            Bits value[kTogether][Traits::kLoadChannels];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) load(value[i], first_channel, q + 32 * i);
            claim();
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
                store(q + 32 * i, first_channel / Traits::kPieceChannels, [&](int j) -> uint32_t {
                    if constexpr (Traits::kIsFloat) return value[i][j];
                    else return value[i][2 * j] | static_cast<uint32_t>(value[i][2 * j + 1]) << 16;
                });
            }
        }
    }

    __device__ __forceinline__ void convert_batch() {
        range = Range{};
#pragma unroll 1
        for (int32_t first = 0; first < Traits::kChunkChannels; first += Traits::kLoadChannels) {
            if (geometry.pairs) convert_pairs(first);
            else convert_singles(first);
        }
        if constexpr (kMode == Mode::f16x3) {
            if (__any_sync(0xFFFFFFFF, range.largest > __float_as_uint(kLargestScaled / kXScale)) &&
                lane == 0)
                list_tile(scratch, place.tile);
            if (range.small > 0)
                atomicAdd(&barriers.small_count[place.counter], static_cast<int32_t>(range.small));
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
        if (place.tile < 0) return;
        while (find_stage()) {
            convert_batch();
            batch += kConverterWarps;
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
