// How x reaches the products of the streaming convolution (stream_sm90.cuh): one warp draws tickets and
// orders boxes of x, seven or three convert what has come.
#pragma once
#include "gemm_sm90_convert.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "stream_sm90_plan.cuh"
#include "tensor_map.cuh"

namespace conv1d {
namespace sm90 {

// Addresses of the barriers in the shared window, and what lies behind them.
struct StreamBarriers {
    uint32_t base;
    Announcement* tile;    // [kStreamTileSlots]
    int32_t* doubts;       // [kStreamCounters] f16x3: values of x too small, and too large, of one tile

    __device__ __forceinline__ uint32_t raw_full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t raw_empty(int stage) const {
        return base + 8 * (kMostRawStages + stage);
    }
    __device__ __forceinline__ uint32_t x_full(int stage) const {
        return base + 8 * (2 * kMostRawStages + stage);
    }
    __device__ __forceinline__ uint32_t x_empty(int stage) const {
        return base + 8 * (2 * kMostRawStages + kMostXStages + stage);
    }
    __device__ __forceinline__ uint32_t tile_full(int slot) const {
        return base + 8 * (2 * kMostRawStages + 2 * kMostXStages + slot);
    }
    __device__ __forceinline__ uint32_t tile_empty(int slot) const {
        return base + 8 * (2 * kMostRawStages + 2 * kMostXStages + kStreamTileSlots + slot);
    }
};

// The slot of announcement number `taken`, once it is there.
__device__ __forceinline__ int wait_for_tile(const StreamBarriers& barriers, uint32_t taken) {
    const int slot = taken % kStreamTileSlots;
    ptx::mbarrier_wait(barriers.tile_full(slot), taken / kStreamTileSlots % 2);
    return slot;
}
// Through shuffles, so that the compiler knows them to be the same in the whole warp.
__device__ __forceinline__ Announcement read_tile(const StreamBarriers& barriers, int slot) {
    Announcement place = barriers.tile[slot];
    place.tile = __shfl_sync(0xFFFFFFFF, place.tile, 0);
    place.sample = __shfl_sync(0xFFFFFFFF, place.sample, 0);
    place.row = __shfl_sync(0xFFFFFFFF, place.row, 0);
    return place;
}

// One thread: draws tickets, announces tiles, orders the boxes of x that each needs.
template <Mode kMode, int kN>
__device__ __forceinline__ void order_boxes(const StreamGeometry& geometry, const Problem& problem,
                                            const TensorMap& x_map, uint32_t raw_smem,
                                            const StreamBarriers& barriers, int32_t* tickets) {
    using Traits = StreamTraits<kMode>;
    Ring tiles, stages;
    tiles.parity = stages.parity = 1;  // an empty ring: the first waits return at once
    const uint32_t box_bytes = geometry.raw_stage_bytes / geometry.boxes;
    int32_t tile = blockIdx.x;
    int32_t ends = geometry.alternate ? 2 : 1;  // each product warpgroup needs one
    for (uint32_t announced = 0;; ++announced) {
        ptx::mbarrier_wait(barriers.tile_empty(tiles.stage), tiles.parity);
        Announcement place{-1, 0, 0, 0, 0, 0};
        if (tile < geometry.tiles) {
            place.tile = tile;
            place.sample = tile / geometry.tiles_per_sample;
            place.row = (tile - place.sample * geometry.tiles_per_sample) * (kN - Traits::kLead);
            place.row -= Traits::kLead;
        }
        // No one looks at that of kStreamCounters tiles ago.
        barriers.doubts[announced % kStreamCounters] = 0;
        barriers.tile[tiles.stage] = place;
        ptx::mbarrier_arrive(barriers.tile_full(tiles.stage));
        tiles.advance(kStreamTileSlots);
        if (place.tile < 0) {
            if (--ends == 0) return;
            continue;
        }
        if (announced > 0) tile = atomicAdd(tickets, 1) + gridDim.x;
        const int32_t l = place.row * static_cast<int32_t>(problem.stride) + geometry.begin;
        for (int32_t part = 0; part < 2 * Traits::kChunks; ++part) {
            const uint32_t full = barriers.raw_full(stages.stage);
            const uint32_t target = raw_smem + stages.stage * geometry.raw_stage_bytes;
            ptx::mbarrier_wait(barriers.raw_empty(stages.stage), stages.parity);
            ptx::mbarrier_arrive_expect_tx(full, geometry.raw_stage_bytes);
            for (int32_t box = 0; box < geometry.boxes; ++box)
                ptx::cp_async_bulk_tensor(target + box * box_bytes, &x_map, l + box * geometry.box_step,
                                          part * Traits::kRawChannels, place.sample, full);
            stages.advance(geometry.raw_stages);
        }
        if (announced == 0) {  // the kernel that packs weights zeroes the tickets
            ptx::griddepcontrol_wait();
            tile = atomicAdd(tickets, 1) + gridDim.x;
        }
    }
}

// A batch is 32 positions with all channels of a raw stage; the batches of all stages go round the warps.
// Position q of a window becomes row q / stride of plane q % stride.
template <Mode kMode, int kN>
struct StreamConverter {
    using Traits = StreamTraits<kMode>;
    static constexpr int kTogether = Traits::kIsSplit && kN < 100 ? 2 : 1;  // raw stages at once
    // Of fp32, loaded at once: as registers allow.
    static constexpr int kLoadChannels = Traits::kIsSplit && kN > 100 ? 8 : 16;

    const StreamGeometry& geometry;
    const Problem& problem;
    const StreamBarriers& barriers;
    const Scratch& scratch;
    uint8_t* const x_smem;
    uint8_t* const raw_smem;
    const int warp, lane;
    int32_t doubts;  // f16x3: how many values of a chunk are too small, kTooLarge where one is too large

    // Where position q belongs in a stage.
    __device__ __forceinline__ int32_t stored_row(int32_t q) const {
        const int32_t stride = static_cast<int32_t>(problem.stride);
        if (stride == 1) return q;
        const int32_t row = __umulhi(q, geometry.stride_magic);
        return row + (q - row * stride) * geometry.plane_rows;
    }

    // Where position q of the first channel lies in a raw stage, in elements: box behind box.
    __device__ __forceinline__ int32_t raw_place(int32_t q) const {
        const int32_t other_channels = (Traits::kRawChannels - 1) * geometry.box_positions;
        return q + static_cast<int32_t>(__umulhi(q, geometry.box_magic)) * other_channels;
    }

    // fp32: a lane takes one position, of kTogether raw stages.
    __device__ __forceinline__ void convert_floats(const uint32_t (&raw)[kTogether], uint8_t* stage,
                                                   int32_t q, int half) {
        if (q >= geometry.window) return;
        const int32_t row = stored_row(q);
        const int32_t channel_bytes = 4 * geometry.box_positions;
        uint32_t channel = 4 * raw_place(q);
        uint8_t* const target = stage + row * kRowBytes;
        constexpr int kPieces = Traits::kRawChannels / Traits::kPieceChannels;
#pragma unroll
        for (int first = 0; first < Traits::kRawChannels; first += kLoadChannels) {
            uint32_t source[kLoadChannels];
#pragma unroll
            for (int i = 0; i < kLoadChannels; ++i, channel += channel_bytes) {
                source[i] = channel;
                if (kTogether > 1) ptx::settle(source[i]);  // the compiler would compute them for each stage
            }
#pragma unroll
            for (int together = 0; together < kTogether; ++together) {
                uint32_t value[kLoadChannels];
#pragma unroll
                for (int i = 0; i < kLoadChannels; ++i) ptx::ld_shared(value[i], source[i] + raw[together]);
                uint32_t largest = 0, smallest = 0x7C007C00;  // f16x3: of the high parts, a pair of fp16
#pragma unroll
                for (int i = 0; i < kLoadChannels / Traits::kPieceChannels; ++i) {
                    const int32_t piece =
                        ((half + together) * kPieces + first / Traits::kPieceChannels + i) ^ (row & 7);
                    uint32_t high[4], low[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if constexpr (kMode == Mode::f16x3) {
                            const int k = 8 * i + 2 * j;
                            high[j] = split_f16(__uint_as_float(value[k]) * kXScale,
                                                __uint_as_float(value[k + 1]) * kXScale, low[j]);
                            largest = ptx::max_magnitude_f16(largest, high[j]);
                            smallest = ptx::min_magnitude_f16(smallest, high[j]);
                        } else {
                            high[j] = round_tf32(value[4 * i + j]);
                        }
                    }
                    *reinterpret_cast<uint4*>(target + piece * 16) =
                        make_uint4(high[0], high[1], high[2], high[3]);
                    if constexpr (Traits::kIsSplit)
                        *reinterpret_cast<uint4*>(target + (piece ^ Traits::kPieces) * 16) =
                            make_uint4(low[0], low[1], low[2], low[3]);
                }
                if constexpr (kMode == Mode::f16x3) {  // behind the stores: it branches
                    if (max(largest & 0xFFFF, largest >> 16) > kLargestHigh) doubts += kTooLarge;
                    if (min(smallest & 0xFFFF, smallest >> 16) <= kSmallestHigh) count_small(value);
                }
            }
        }
    }

    // f16x3: adds how many values are too small, but not zero. They are rare, and their high parts at most
    // kSmallestHigh: but so are those of zeros, so look for the smallest that is none first.
    // Twice the bits of a number, minus 1, is ordered as magnitudes are, but zero comes last.
    __device__ __forceinline__ void count_small(const uint32_t (&value)[kLoadChannels]) {
        const uint32_t limit = 2 * __float_as_uint(kSmallestScaled / kXScale) - 1;
        uint32_t smallest = 0xFFFFFFFF;
#pragma unroll
        for (int i = 0; i < kLoadChannels; ++i) smallest = min(smallest, 2 * value[i] - 1);
        if (smallest >= limit) return;
#pragma unroll
        for (int i = 0; i < kLoadChannels; ++i) doubts += 2 * value[i] - 1 < limit;
    }

    // 16 bits: four times eight positions of four times eight channels, transposed.
    __device__ __forceinline__ void convert_halves(uint32_t raw, uint8_t* stage, int32_t q, int half) {
        const int32_t row_bytes = geometry.box_positions * 2;
        const uint32_t source = raw + lane * row_bytes;
        const uint32_t target = ptx::smem_address(stage);
        const int32_t last = (geometry.window - 1) / 8 * 8;
        uint32_t words[4][4], place[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int32_t first = min(q + 8 * i, last);  // beyond the last eight: these once more
            ptx::ldmatrix_x4_trans(words[i], source + 2 * raw_place(first));
            const int32_t row = stored_row(first + lane % 8);
            place[i] = target + row * kRowBytes + ((half * 4 + lane / 8) ^ (row & 7)) * 16;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) ptx::stmatrix_x4(place[i], words[i]);
    }

    __device__ __forceinline__ void run() {
        Ring raws, stages;
        stages.parity = 1;
        int32_t q = 32 * warp, ends = geometry.alternate ? 2 : 1;
        for (uint32_t taken = 0;; ++taken) {
            const int slot = wait_for_tile(barriers, taken);
            const bool end = barriers.tile[slot].tile < 0;
            for (int32_t chunk = 0; chunk < Traits::kChunks; ++chunk) {
                if (end && chunk > 0) {
                    stages.advance(geometry.x_stages);
                    continue;
                }
                // Every warp waits for and leaves every stage, also one in which it has no batch: else the
                // barriers could run two phases ahead of it, which to a parity looks like none.
                ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);
                if (end) {  // the products look for it behind this barrier
                    if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
                    stages.advance(geometry.x_stages);
                    continue;
                }
                uint8_t* const stage = x_smem + stages.stage * geometry.x_stage_bytes;
#pragma unroll 1
                for (int half = 0; half < 2; half += kTogether) {
                    int32_t raw_stage[kTogether];
                    uint32_t raw[kTogether];
#pragma unroll
                    for (int i = 0; i < kTogether; ++i) {
                        ptx::mbarrier_wait(barriers.raw_full(raws.stage), raws.parity);
                        raw_stage[i] = raws.stage;
                        raw[i] = ptx::smem_address(raw_smem) + raws.stage * geometry.raw_stage_bytes;
                        raws.advance(geometry.raw_stages);
                    }
#pragma unroll 1
                    for (; q < geometry.window; q += 32 * StreamWarps<kN>::kConverters) {
                        if constexpr (Traits::kIsFloat) convert_floats(raw, stage, q + lane, half);
                        else convert_halves(raw[0], stage, q, half);
                    }
                    q -= static_cast<int32_t>(round_up(geometry.window, 32));
                    // Behind the stores: what they hold has been loaded by then.
                    if (half + kTogether == 2) ptx::fence_proxy_async();
                    __syncwarp();
#pragma unroll
                    for (int i = 0; i < kTogether; ++i)
                        if (lane == 0) ptx::mbarrier_arrive(barriers.raw_empty(raw_stage[i]));
                }
                if (kMode == Mode::f16x3 && doubts > 0) {
                    atomicAdd(&barriers.doubts[taken % kStreamCounters], doubts);
                    doubts = 0;
                }
                __syncwarp();
                if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
                stages.advance(geometry.x_stages);
            }
            if (end && --ends == 0) return;
            if (lane == 0) ptx::mbarrier_arrive(barriers.tile_empty(slot));
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
