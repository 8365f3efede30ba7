// Dense convolution on Hopper as an implicit GEMM: D[o][position] = sum over (c, k) of W[o][c, k] * X[c, k][position].
//
// Chosen for 16 channels a group and more. Persistent blocks draw tiles of 128 output channels x kN positions from a
// ticket. Two converter warpgroups read x once from global memory, round or split it and store it K-major in rows of
// 128 bytes, one row a position; position q of the window is row q / stride of plane q % stride, so every tap of every
// stride and dilation is a plane and a row shift of the same tile. One warp streams the packed weights; two product
// warpgroups of 64 output channels each run wgmma and store through shared memory along the rows of y.
// Cost: each element of x leaves L2 once per 128 output channels, each weight once per tile (once per block where all
// of them fit in shared memory).
#pragma once
#include "problem.h"
#include "ptx.cuh"
#include "wgmma.cuh"

#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace conv1d {
namespace sm90 {

constexpr int kRowBytes = 128;    // one position's channels: 8 pieces of 16 bytes, swizzled by the row's index mod 8
constexpr int kTileO = 128;       // output channels of a tile
constexpr int kProductWarps = 8;  // two warpgroups, 64 output channels each
constexpr int kConverterWarps = 7;
constexpr int kThreads = 32 * (kProductWarps + kConverterWarps + 1);  // and one warp for tickets and weights
constexpr int kTileSlots = 4;  // tiles announced ahead; with 2, converters waited for 39 % of kb67
constexpr int kMaxStages = 12;
constexpr int kWeightBytes = kTileO * kRowBytes;  // weights of one tap and one chunk of channels
constexpr int kBarrierReady = 1, kBarrierTaken = 2;  // hardware barriers between the product warpgroups

// D is staged for its stores 8 rows at a time, in one pass or two; the second also holds the last columns of the first,
// which a sector offset moves into it.
constexpr int kPassLead = 16;

enum class Mode { tf32, tf32x3, f16, bf16 };

template <Mode kMode>
struct ModeTraits {
    static constexpr bool kIsFloat = kMode == Mode::tf32 || kMode == Mode::tf32x3;
    static constexpr bool kIsSplit = kMode == Mode::tf32x3;  // a row holds the high parts, then the low parts
    static constexpr Operand kOperand = kIsFloat                 ? Operand::tf32
                                        : kMode == Mode::f16 ? Operand::f16
                                                             : Operand::bf16;
    static constexpr int kPieceChannels = kIsFloat ? 4 : 8;                     // channels in 16 bytes
    static constexpr int kPieces = kIsSplit ? 4 : 8;                            // pieces of a row that carry channels
    static constexpr int kChunkChannels = kPieces * kPieceChannels;             // channels in a row
    using Bits = std::conditional_t<kIsFloat, uint32_t, uint16_t>;  // of one element of x, w and y
    using BitsPair = std::conditional_t<kIsFloat, uint2, uint32_t>;
    static constexpr int kElementBytes = sizeof(Bits);
    // Of a staged row of D, in elements: the columns of a pass behind their lead, room for a sector offset, and no bank
    // conflicts between eight rows.
    static __host__ __device__ constexpr int pass_columns(int columns) {
        return kIsFloat && columns > 128 ? columns / 2 : columns;
    }
    static __host__ __device__ constexpr int stage_pitch(int columns) {
        return pass_columns(columns) + kPassLead + (kIsFloat ? 8 : 24);
    }
    // Bulk copies still read one buffer while the next is written; two of fp32 would cost x a stage.
    static constexpr int kBuffers = kIsFloat ? 1 : 2;
    static __host__ __device__ constexpr int warp_staging_bytes(int columns) {
        return kBuffers * 8 * stage_pitch(columns) * static_cast<int>(sizeof(Bits));
    }
};

// Whether the product warpgroups need more than the 128 registers a thread that the launch gives.
template <Mode kMode, int kN>
constexpr bool kNeedsRegisters = kN * (ModeTraits<kMode>::kIsSplit ? 2 : 1) > 128;

// How one launch cuts its problem; written by the host, read by every role.
struct Geometry {
    int32_t rows_per_sample;  // flat: a sample's rows on the common row axis, outputs and then halo
    uint32_t stride_magic;    // ceil(2^32 / stride)
    uint32_t rows_magic;      // ceil(2^32 / rows_per_sample) where that is small
    int32_t flat;             // 1: tiles run over all samples' rows in a line. 0: each tile lies in one sample
    int32_t tiles_per_sample; // of one sample; of the whole batch where flat
    int32_t lead;             // columns computed for stores to begin on a 32-byte sector: 0, 8 or 16
    uint32_t sector_mask;     // lead - 1; 0 without a lead
    int32_t advance;          // columns stored by a tile: kN - lead
    int32_t tiles;            // of the whole problem
    int32_t o_tiles;          // of one group
    int32_t chunks;           // of channels
    int32_t tap_groups;       // taps that share one window, ceil(K / taps_per_group) times
    int32_t taps_per_group;
    int32_t window;           // positions of x that a window needs: (kN - 1)*stride + (taps_per_group - 1)*dilation + 1
    int32_t pairs;            // 1: two neighbouring elements of x can be loaded together
    int32_t batches;          // of conversion in a stage
    int32_t x_stride_c, x_stride_l;
    int32_t plane_rows;       // distance between planes, in rows
    uint32_t plane_mask;      // planes that some tap reads
    int32_t x_stages, x_stage_bytes;
    int32_t w_stages;
    int32_t bulk;             // 1: rows of y can be stored by bulk copies of 16-byte pieces
    int32_t skew;             // blocks by which the first product warpgroup runs ahead of the second
    int32_t resident;         // 1: all weights lie in shared memory for the life of the block
    int32_t smem_bytes;
};

// Shared memory, in order: x stages | weight stages | staging of D, 8 warps | barriers | announced tiles.
struct Announcement {
    int32_t tile;     // -1: no more
    int32_t sample;   // of column 0; -1 where that column lies before the first row
    int32_t row;      // position of column 0 in its sample, may be negative
    int32_t channel;  // first output channel of the tile inside its group
    int32_t group;
};

constexpr int kBarrierBytes = (4 * kMaxStages + 2 * kTileSlots) * 8;
constexpr int kControlBytes = kBarrierBytes + kTileSlots * static_cast<int>(sizeof(Announcement));

// Addresses of the barriers in the shared window, and the announcements behind them.
struct Barriers {
    uint32_t base;
    Announcement* tile;  // [kTileSlots]

    __device__ __forceinline__ uint32_t x_full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t x_empty(int stage) const { return base + 8 * (kMaxStages + stage); }
    __device__ __forceinline__ uint32_t w_full(int stage) const { return base + 8 * (2 * kMaxStages + stage); }
    __device__ __forceinline__ uint32_t w_empty(int stage) const { return base + 8 * (3 * kMaxStages + stage); }
    __device__ __forceinline__ uint32_t tile_full(int slot) const { return base + 8 * (4 * kMaxStages + slot); }
    __device__ __forceinline__ uint32_t tile_empty(int slot) const {
        return base + 8 * (4 * kMaxStages + kTileSlots + slot);
    }
};

// A ring of stages: which one is next, and the parity its barrier will show.
struct Ring {
    int32_t stage = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void advance(int stages) {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Row of position q of a window, and its plane's first row in a stage.
__device__ __forceinline__ int32_t divide_by_stride(const Geometry& geometry, int32_t q, int32_t stride) {
    return stride == 1 ? q : __umulhi(q, geometry.stride_magic);
}
__device__ __forceinline__ int32_t plane_row(const Geometry& geometry, int32_t plane) {
    return __popc(geometry.plane_mask & ((1u << plane) - 1)) * geometry.plane_rows;
}

// Flat tiles only: brings a row at or behind the end of its sample back into a later one; returns how much later.
__device__ __forceinline__ int32_t wrap_row(const Geometry& geometry, int32_t& row) {
    const int32_t samples =
        geometry.rows_magic != 0 ? __umulhi(row, geometry.rows_magic) : (row >= geometry.rows_per_sample);
    row -= samples * geometry.rows_per_sample;
    return samples;
}

// ---- weights ----------------------------------------------------------------------------------------------------

// Packs w [G*O][C][K] into blocks of 16 KB in the order in which tiles use them, [G][o_tile][tap group][chunk][tap];
// a block is the shared-memory image of 128 output channels x one row. Zeroes the ticket that the
// product kernel draws.
template <Mode kMode>
__global__ void __launch_bounds__(256) pack_weights_kernel(const void* __restrict__ w,  // [G*O][C][K]
                                                           uint4* __restrict__ image,   // [blocks][128][8] pieces
                                                           int* __restrict__ ticket, Geometry geometry, int32_t C,
                                                           int32_t O, int32_t K, int64_t pieces) {
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
                const uint32_t high = ptx::cvt_rn_tf32(value);
                words[j] = part == 0 ? high : ptx::cvt_rn_tf32(value - __uint_as_float(high));
            } else {
                const uint32_t value = static_cast<const uint16_t*>(w)[offset + int64_t{j} * K];
                words[j / 2] |= value << (16 * (j % 2));
            }
        }
    }
    image[(block_of_image * kTileO + row) * 8 + (piece ^ (row & 7))] = make_uint4(words[0], words[1], words[2], words[3]);
#endif
}

// ---- roles ------------------------------------------------------------------------------------------------------

// Where a tile lies. Tiles of one window of x and all output channels follow each other, so x is shared in L2.
__device__ __forceinline__ Announcement place_tile(const Geometry& geometry, const Problem& problem, int32_t tile) {
    const int32_t per_window = geometry.o_tiles * static_cast<int32_t>(problem.G);
    const int32_t window = tile / per_window;
    const int32_t rest = tile - window * per_window;
    Announcement place;
    place.tile = tile;
    place.group = rest / geometry.o_tiles;
    place.channel = (rest - place.group * geometry.o_tiles) * kTileO;
    if (geometry.flat) {
        const int64_t first = int64_t{window} * geometry.advance;
        place.sample = static_cast<int32_t>(first / geometry.rows_per_sample);
        place.row = static_cast<int32_t>(first - int64_t{place.sample} * geometry.rows_per_sample);
    } else {
        place.sample = window / geometry.tiles_per_sample;
        place.row = (window - place.sample * geometry.tiles_per_sample) * geometry.advance - geometry.lead;
    }
    return place;
}

// One thread: draws tickets, announces tiles one ahead of need, streams the weights of each.
__device__ __forceinline__ void run_supplier(const Geometry& geometry, const Problem& problem, uint32_t w_smem,
                                             const Barriers& barriers, const uint8_t* image, int* ticket) {
    Ring tiles, weights;
    tiles.parity = weights.parity = 1;  // an empty ring: the first waits return at once
    const int64_t blocks_of_tile = int64_t{geometry.chunks} * problem.K;
    const auto announce = [&](int32_t tile) {
        ptx::mbarrier_wait(barriers.tile_empty(tiles.stage), tiles.parity);
        Announcement place{-1, 0, 0, 0, 0};
        if (tile < geometry.tiles) place = place_tile(geometry, problem, tile);
        barriers.tile[tiles.stage] = place;
        ptx::mbarrier_arrive(barriers.tile_full(tiles.stage));
        tiles.advance(kTileSlots);
    };
    int32_t tile = blockIdx.x;
    int32_t next = tile;  // announced already, one tile ahead of the weights
    announce(next);
    for (bool first = true; tile < geometry.tiles; first = false, tile = next) {
        if (next < geometry.tiles) {
            next = atomicAdd(ticket, 1) + gridDim.x;
            announce(next);
        }
        if (first || !geometry.resident) {
            const int32_t which = tile % (geometry.o_tiles * static_cast<int32_t>(problem.G));
            const uint8_t* source = image + which * blocks_of_tile * kWeightBytes;
            for (int64_t block = 0; block < blocks_of_tile; ++block, source += kWeightBytes) {
                const uint32_t full = barriers.w_full(weights.stage);
                ptx::mbarrier_wait(barriers.w_empty(weights.stage), weights.parity);
                ptx::mbarrier_arrive_expect_tx(full, kWeightBytes);
                ptx::cp_async_bulk(w_smem + weights.stage * kWeightBytes, source, kWeightBytes, full);
                weights.advance(geometry.w_stages);
            }
        }
    }
}

// A batch is 64 positions with all channels of a row, loaded and then stored; the batches of all stages go round the
// warps. Neighbouring lanes take neighbouring positions, so global loads run along the rows of x. Where rows begin at
// even elements a lane takes two neighbours, with one load a channel.
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

    __device__ __forceinline__ Converter(const Geometry& geometry, const Problem& problem, const Barriers& barriers,
                                         uint8_t* x_smem, int warp, int lane)
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

    // Rounds or splits the channels at position q into their row of the current stage. word(i) is channel i's element,
    // or, of 16 bits each, those of channels 2*i and 2*i + 1.
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
                high[j] = Traits::kIsFloat ? ptx::cvt_rn_tf32(__uint_as_float(word[j])) : word[j];
            }
            *reinterpret_cast<uint4*>(target + ((piece ^ swizzle) << 4)) = make_uint4(high[0], high[1], high[2], high[3]);
            if constexpr (Traits::kIsSplit) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    word[j] = ptx::cvt_rn_tf32(__uint_as_float(word[j]) - __uint_as_float(high[j]));
                *reinterpret_cast<uint4*>(target + (((piece + Traits::kPieces) ^ swizzle) << 4)) =
                    make_uint4(word[0], word[1], word[2], word[3]);
            }
        }
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

    // Waits until the current stage is free, once. A warp must not leave one out, not even one in which it has no
    // batch: a barrier that is two phases behind looks like one that is even.
    __device__ __forceinline__ void claim() {
        if (!claimed) ptx::mbarrier_wait(barriers.x_empty(stages.stage), stages.parity);
        claimed = true;
    }

    // Brings `batch` back into a stage; false once there are no more tiles.
    __device__ __forceinline__ bool find_stage() {
        while (batch >= geometry.batches) {
            batch -= geometry.batches;
            claim();
            claimed = false;
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
            ptx::fence_proxy_async();
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.x_full(stages.stage));
            batch += kConverterWarps;
        }
    }
};

template <Mode kMode, int kN>
struct Product {
    using Traits = ModeTraits<kMode>;
    using Mma = Wgmma<Traits::kOperand, kN>;
    using Bits = typename Traits::Bits;
    static constexpr int kValues = kN / 2;
    static constexpr int kPassColumns = Traits::pass_columns(kN), kPasses = kN / kPassColumns, kPitch = Traits::stage_pitch(kN);

    const Geometry& geometry;
    const Problem& problem;
    const Barriers& barriers;
    const uint32_t x_smem, w_smem;
    Bits* const staging;   // [kBuffers][8][kPitch], this warp's own
    const int warp, lane;  // warp of 8: 16 output channels each
    Ring stages, weights;

    // 32 bytes of K; addresses in units of 16 bytes.
    __device__ __forceinline__ void multiply_step(float (&acc)[kValues], uint32_t w16, uint32_t x16, bool accumulate) {
        Mma::issue(acc, ptx::wgmma_descriptor(w16), ptx::wgmma_descriptor(x16), accumulate);
    }

    // One tap of one chunk: 128 bytes of K.
    __device__ __forceinline__ void multiply(float (&acc)[kValues], uint32_t w16, uint32_t x16, bool accumulate) {
        if constexpr (Traits::kIsSplit) {  // low parts first: the accumulator truncates
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                multiply_step(acc, w16 + 2 * k, x16 + 2 * (k + 2), accumulate || k > 0);
                multiply_step(acc, w16 + 2 * (k + 2), x16 + 2 * k, true);
            }
#pragma unroll
            for (int k = 0; k < 2; ++k) multiply_step(acc, w16 + 2 * k, x16 + 2 * k, true);
        } else {
#pragma unroll
            for (int k = 0; k < 4; ++k) multiply_step(acc, w16 + 2 * k, x16 + 2 * k, accumulate || k > 0);
        }
    }

    __device__ __forceinline__ void release(uint32_t barrier) {
        if (lane == 0) ptx::mbarrier_arrive(barrier);
    }

    // All products of one tile into acc.
    __device__ __forceinline__ void multiply_tile(float (&acc)[kValues], bool first_tile) {
        const uint32_t w_warpgroup16 = (w_smem + warp / 4 * 64 * kRowBytes) / 16;
        const int32_t stride = static_cast<int32_t>(problem.stride);
        const int32_t step_shift = static_cast<int32_t>(problem.dilation / stride);
        const int32_t step_plane = static_cast<int32_t>(problem.dilation - int64_t{step_shift} * stride);
        float total[Traits::kIsSplit ? kValues : 1];
        if constexpr (Traits::kIsSplit) {
#pragma unroll
            for (int i = 0; i < kValues; ++i) total[i] = 0.0f;
        }
        bool accumulate = false;
        int32_t issued = 0;
        int32_t weights_done = -1, stage_done = -1;  // stages whose products may still be running
        if (geometry.resident) weights.stage = 0, weights.parity = 0;
        for (int tap_group = 0; tap_group < geometry.tap_groups; ++tap_group) {
            const int taps =
                min(geometry.taps_per_group, static_cast<int32_t>(problem.K) - tap_group * geometry.taps_per_group);
            for (int chunk = 0; chunk < geometry.chunks; ++chunk) {
                ptx::mbarrier_wait(barriers.x_full(stages.stage), stages.parity);
                const uint32_t x_stage16 = (x_smem + stages.stage * geometry.x_stage_bytes) / 16;
                int32_t plane = 0, shift = 0;
#pragma unroll 1
                for (int tap = 0; tap < taps; ++tap) {
                    ptx::mbarrier_wait(barriers.w_full(weights.stage), weights.parity);
                    const int32_t row = stride == 1 ? shift : shift + plane_row(geometry, plane);
                    ptx::wgmma_fence();
                    multiply(acc, w_warpgroup16 + weights.stage * (kWeightBytes / 16), x_stage16 + row * (kRowBytes / 16),
                             accumulate);
                    ptx::wgmma_commit_group();
                    if (++issued == geometry.skew && warp < 4) {
                        if (!first_tile) ptx::bar_sync<kBarrierTaken>(256);
                        ptx::bar_arrive<kBarrierReady>(256);
                    }
                    if constexpr (Traits::kIsSplit) {  // the accumulator truncates, this sum rounds to nearest
                        ptx::wgmma_wait_group<0>();
#pragma unroll
                        for (int i = 0; i < kValues; ++i) total[i] += acc[i];
                    } else {
                        accumulate = true;
                        ptx::wgmma_wait_group<1>();  // the tap before this one is done
                    }
                    if (weights_done >= 0 && !geometry.resident) release(barriers.w_empty(weights_done));
                    if (stage_done >= 0) release(barriers.x_empty(stage_done));
                    stage_done = -1;
                    weights_done = weights.stage;
                    weights.advance(geometry.w_stages);
                    shift += step_shift;
                    plane += step_plane;
                    if (plane >= stride) {
                        plane -= stride;
                        ++shift;
                    }
                }
                stage_done = stages.stage;
                stages.advance(geometry.x_stages);
            }
        }
        ptx::wgmma_wait_group<0>();
        if (!geometry.resident) release(barriers.w_empty(weights_done));
        release(barriers.x_empty(stage_done));
        if constexpr (Traits::kIsSplit) {
#pragma unroll
            for (int i = 0; i < kValues; ++i) acc[i] = total[i];
        }
    }

    // Two neighbours of a row of D, as they lie in memory.
    using Pair = std::conditional_t<Traits::kIsFloat, float2, uint32_t>;
    static __device__ __forceinline__ Pair round_pair(float first, float second) {
        if constexpr (Traits::kIsFloat) {
            return make_float2(first, second);
        } else if constexpr (kMode == Mode::f16) {
            const __half2 pair = __floats2half2_rn(first, second);
            return *reinterpret_cast<const uint32_t*>(&pair);
        } else {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
            return *reinterpret_cast<const uint32_t*>(&pair);
        }
    }

    // How far row r behind `target` begins behind a 32-byte sector of y, where tiles keep to sectors.
    __device__ __forceinline__ int32_t sector_offset(const Bits* target, int r) {
        const uint32_t index = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(target)) / sizeof(Bits);
        return static_cast<int32_t>((index + r * static_cast<uint32_t>(problem.P)) & geometry.sector_mask);
    }

    // Columns [begin of the pass - kPassLead, end of the pass) of this warp's rows 8*half..8*half + 7 of D. Column c of row
    // r goes to staging[r][phi + kPassLead + c - begin of the pass], phi being the row's sector offset.
    // kPaired: all phi are even, so that pairs stay aligned.
    template <bool kPaired>
    __device__ __forceinline__ void stage(const float (&acc)[kValues], Bits* buffer, int half, int pass, int32_t phi) {
        const uint32_t target =
            ptx::smem_address(buffer + lane / 4 * kPitch + 2 * (lane % 4) + phi + kPassLead - kPassColumns * pass);
#pragma unroll
        for (int i = -kPassLead / 8; i < kPassColumns / 8; ++i) {
            const int j = pass * (kPassColumns / 8) + i;
            if (j < 0) continue;
            const Pair pair = round_pair(acc[4 * j + 2 * half], acc[4 * j + 2 * half + 1]);
            if constexpr (kPaired) ptx::st_shared(target + 8 * j * sizeof(Bits), pair);
            else ptx::st_shared_apart(target + 8 * j * sizeof(Bits), pair);
        }
    }

    // Eight staged rows of one pass to y, of which `target` is where column 0 of the first belongs. A row stores columns
    // [lead - phi, kN - phi) as far as they lie in y; in flat tiles that may be in several samples.
    // kBulk: one lane a row, one bulk copy a sample; else the whole warp, element by element.
    template <bool kBulk>
    __device__ __forceinline__ void store_rows(const Bits* buffer, Bits* target, const Announcement& place, int32_t pass,
                                               int32_t rows) {
        const int32_t P = static_cast<int32_t>(problem.P);
        const int32_t first = pass == 0 ? geometry.lead : kPassColumns * pass, last = kPassColumns * (pass + 1);
        const int64_t next_sample = problem.G * problem.O * problem.P - geometry.rows_per_sample;
#pragma unroll 1
        for (int r = kBulk ? lane : 0; r < rows; r += kBulk ? 32 : 1) {
            const int32_t phi = sector_offset(target, r);
            const Bits* const source = buffer + r * kPitch + phi + kPassLead - kPassColumns * pass;
            Bits* y = target + r * problem.P;
            int32_t t = place.row;
#pragma unroll 1
            for (int32_t n = place.sample; n < problem.N && t > -kN; ++n) {
                const int32_t begin = max(first - phi, -t), end = min(last - phi, P - t);
                if constexpr (kBulk) {
                    if (begin < end)
                        ptx::cp_async_bulk_store(y + begin, ptx::smem_address(source + begin),
                                                 (end - begin) * sizeof(Bits));
                } else {
#pragma unroll 4
                    for (int32_t c = begin + lane; c < end; c += 32) y[c] = source[c];
                }
                if (!geometry.flat) break;
                t -= geometry.rows_per_sample;
                y += next_sample;
            }
        }
    }

    // Of row lane/4 of a half of this warp's output channels.
    __device__ __forceinline__ float load_bias(const Announcement& place, int half) {
        const int32_t channel = place.channel + warp * 16 + 8 * half + lane / 4;
        if (problem.bias == nullptr || channel >= problem.O) return 0.0f;
        const Bits bits = static_cast<const Bits*>(problem.bias)[place.group * problem.O + channel];
        if constexpr (Traits::kIsFloat) return __uint_as_float(bits);
        else if constexpr (kMode == Mode::f16) return __half2float(__ushort_as_half(bits));
        else return __bfloat162float(__ushort_as_bfloat16(bits));
    }

    // D through shared memory to y, 8 output channels at a time.
    __device__ __forceinline__ void store_tile(float (&acc)[kValues], const Announcement& place,
                                               const float (&bias)[2], bool finite) {
#pragma unroll
        for (int i = 0; i < kValues; ++i) acc[i] += bias[i / 2 % 2];
        const int32_t channel = place.channel + warp * 16;  // the first of 16, inside the group
        Bits* const y_warp = static_cast<Bits*>(problem.y) +
                       (place.sample * problem.G * problem.O + place.group * problem.O + channel) * problem.P +
                       place.row;
        const bool inside = place.row >= 0 && place.row + kN <= problem.P;
        // What is mended afterwards must not come late.
        const bool bulk = geometry.bulk && (geometry.lead == 0 || inside) && finite;
#pragma unroll 1
        for (int step = 0; step < 2 * kPasses; ++step) {
            const int half = step / kPasses, pass = step % kPasses;
            const int32_t rows = min(8, static_cast<int32_t>(problem.O) - channel - 8 * half);
            if (rows <= 0) break;
            Bits* const target = y_warp + 8 * half * problem.P;
            const int32_t phi = sector_offset(target, lane / 4);
            Bits* const buffer = staging + step % Traits::kBuffers * (8 * kPitch);
            ptx::cp_async_bulk_wait_read<Traits::kBuffers - 1>();  // the rows that were here have left
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 2 * kPasses; ++i) {  // registers have no index
                if (i != step) continue;
                if (problem.P % 2 == 0) stage<true>(acc, buffer, i / kPasses, i % kPasses, phi);
                else stage<false>(acc, buffer, i / kPasses, i % kPasses, phi);
            }
            if (bulk) {
                ptx::fence_proxy_async();
                __syncwarp();
                store_rows<true>(buffer, target, place, pass, rows);
            } else {
                __syncwarp();
                store_rows<false>(buffer, target, place, pass, rows);
            }
            ptx::cp_async_bulk_commit();
        }
    }

    // One output by FFMA, from x and w as they are.
    __device__ __forceinline__ float exact_output(int64_t n, int64_t channel, int64_t group, int32_t p) {
        const float* const w = static_cast<const float*>(problem.w) + channel * problem.C * problem.K;
        const float* const x = static_cast<const float*>(problem.x) + n * problem.x_stride_n +
                               group * problem.C * problem.x_stride_c;
        float sum = 0.0f;
#pragma unroll 1
        for (int64_t c = 0; c < problem.C; ++c) {
            float part = 0.0f;
#pragma unroll 1
            for (int64_t k = 0; k < problem.K; ++k) {
                const int64_t l = p * problem.stride + k * problem.dilation - problem.pad_left;
                if (l >= 0 && l < problem.L)
                    part = fmaf(w[c * problem.K + k], x[c * problem.x_stride_c + l * problem.x_stride_l], part);
            }
            sum += part;
        }
        return problem.bias == nullptr ? sum : sum + static_cast<const float*>(problem.bias)[channel];
    }

    // Does this warp's outputs again where they are not finite: an infinity splits into parts that cancel to NaN.
    __device__ __forceinline__ void mend_tile(const Announcement& place) {
        __syncwarp();
#pragma unroll 1
        for (int32_t o = place.channel + warp * 16; o < min(place.channel + warp * 16 + 16, static_cast<int32_t>(problem.O)); ++o) {
            const int64_t channel = place.group * problem.O + o;
            float* const y = static_cast<float*>(problem.y) + channel * problem.P;
            const int64_t sample_values = problem.G * problem.O * problem.P;
            const int32_t phi =
                (reinterpret_cast<uintptr_t>(y + place.sample * sample_values + place.row) / 4) & geometry.sector_mask;
#pragma unroll 1
            for (int column = geometry.lead - phi + lane; column < kN - phi; column += 32) {
                int32_t p = place.row + column;
                const int32_t n = place.sample + (geometry.flat ? wrap_row(geometry, p) : 0);
                if (n >= problem.N || p < 0 || p >= problem.P) continue;
                float* const value = y + n * sample_values + p;
                if (!isfinite(*value)) *value = exact_output(n, channel, place.group, p);
            }
        }
    }

    __device__ __forceinline__ void run() {
        Ring tiles;
        bool first_tile = true;
        for (;;) {
            ptx::mbarrier_wait(barriers.tile_full(tiles.stage), tiles.parity);
            const Announcement place = barriers.tile[tiles.stage];
            __syncwarp();
            release(barriers.tile_empty(tiles.stage));
            tiles.advance(kTileSlots);
            if (place.tile < 0) break;
            if (geometry.skew > 0 && warp >= 4) {
                ptx::bar_sync<kBarrierReady>(256);
                ptx::bar_arrive<kBarrierTaken>(256);
            }
            const float bias[2] = {load_bias(place, 0), load_bias(place, 1)};  // arrives during the products
            float acc[kValues];
            multiply_tile(acc, first_tile);
            first_tile = false;
            bool finite = true;
            if constexpr (Traits::kIsSplit) {
#pragma unroll
                for (int i = 0; i < kValues; ++i) finite = finite && isfinite(acc[i]);
                finite = __all_sync(0xFFFFFFFF, finite);
            }
            store_tile(acc, place, bias, finite);
            if constexpr (Traits::kIsSplit) {
                if (!finite) mend_tile(place);
            }
        }
        if (geometry.skew > 0 && warp < 4 && !first_tile) ptx::bar_sync<kBarrierTaken>(256);
        ptx::cp_async_bulk_wait_read<0>();  // shared memory outlives its readers
    }
};

template <Mode kMode, int kN>
__global__ void __launch_bounds__(kThreads, 1) gemm_sm90_kernel(const __grid_constant__ Problem problem,
                                                                const __grid_constant__ Geometry geometry,
                                                                const uint8_t* __restrict__ image,  // packed weights
                                                                int* __restrict__ ticket) {
#if __CUDA_ARCH__ == 900
    extern __shared__ uint8_t smem_base[];
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const w_smem = smem + geometry.x_stages * geometry.x_stage_bytes;
    uint8_t* const staging = w_smem + geometry.w_stages * kWeightBytes;
    using Bits = typename ModeTraits<kMode>::Bits;
    constexpr int kWarpStagingBytes = ModeTraits<kMode>::warp_staging_bytes(kN);
    uint8_t* const control = staging + kProductWarps * kWarpStagingBytes;
    const Barriers barriers{ptx::smem_address(control), reinterpret_cast<Announcement*>(control + kBarrierBytes)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kMaxStages; ++i) {
            ptx::mbarrier_init(barriers.x_full(i), geometry.batches);
            ptx::mbarrier_init(barriers.x_empty(i), kProductWarps);
            ptx::mbarrier_init(barriers.w_full(i), 1);
            ptx::mbarrier_init(barriers.w_empty(i), kProductWarps);
        }
        for (int i = 0; i < kTileSlots; ++i) {
            ptx::mbarrier_init(barriers.tile_full(i), 1);
            ptx::mbarrier_init(barriers.tile_empty(i), kProductWarps + kConverterWarps);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    constexpr int kProductRegisters = ModeTraits<kMode>::kIsSplit ? 184 : 152;  // of 128 a thread at launch
    if (warp < kProductWarps) {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_inc<kProductRegisters>();
        Product<kMode, kN> product{geometry, problem, barriers, ptx::smem_address(smem), ptx::smem_address(w_smem),
                                   reinterpret_cast<Bits*>(staging + warp * kWarpStagingBytes), warp, lane};
        product.run();
    } else {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_dec<256 - kProductRegisters>();
        if (warp < kProductWarps + kConverterWarps) {
            Converter<kMode> converter(geometry, problem, barriers, smem, warp - kProductWarps, lane);
            converter.run();
        } else if (lane == 0) {
            run_supplier(geometry, problem, ptx::smem_address(w_smem), barriers, image, ticket);
        }
    }
#endif
}

// ---- host -------------------------------------------------------------------------------------------------------

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Cuts the problem into tiles of `columns` positions. `tiles` is 0 where that cannot be.
template <Mode kMode>
inline Geometry cut(const Problem& problem, int columns, bool flat) {
    using Traits = ModeTraits<kMode>;
    // Rows between planes, mod 8, that spread eight neighbouring positions over all banks; index: stride.
    constexpr int kPlaneResidue[9] = {0, 0, 4, 3, 2, 5, 3, 7, 1};
    Geometry geometry{};
    geometry.chunks = static_cast<int32_t>(ceil_div(problem.C, Traits::kChunkChannels));
    geometry.o_tiles = static_cast<int32_t>(ceil_div(problem.O, kTileO));
    const int64_t stride = problem.stride;
    const int64_t blocks = geometry.chunks * problem.K;
    const int other_bytes = kProductWarps * Traits::warp_staging_bytes(columns) + kControlBytes + 1024;
    const int free_bytes = problem.device.smem_bytes - other_bytes;

    // As many taps a window as leave room for two stages of x and three of weights.
    int64_t taps = problem.K, max_shift = 0;
    for (;; taps = ceil_div(taps, 2)) {
        const int64_t span = (taps - 1) * problem.dilation;
        geometry.plane_mask = 0;
        for (int64_t tap = 0; tap < taps && tap < stride; ++tap)
            geometry.plane_mask |= 1u << (tap * problem.dilation % stride);
        int planes = 0;
        for (uint32_t mask = geometry.plane_mask; mask != 0; mask &= mask - 1) ++planes;
        max_shift = span / stride;
        const int64_t rows = columns + max_shift;
        int64_t plane_rows = rows;
        while (planes > 1 && stride <= 8 && plane_rows % 8 != kPlaneResidue[stride]) ++plane_rows;
        const int64_t bytes = ceil_div((plane_rows * (planes - 1) + rows) * kRowBytes, 1024) * 1024;
        const int64_t w_least = blocks < 3 ? blocks : 3;
        if (2 * bytes + w_least * kWeightBytes <= free_bytes) {
            geometry.window = static_cast<int32_t>((columns - 1) * stride + span + 1);
            geometry.plane_rows = static_cast<int32_t>(plane_rows);
            geometry.x_stage_bytes = static_cast<int32_t>(bytes);
            break;
        }
        if (taps == 1) return Geometry{};
    }
    geometry.tap_groups = static_cast<int32_t>(ceil_div(problem.K, taps));
    geometry.taps_per_group = static_cast<int32_t>(taps);
    geometry.pairs = !flat && problem.x_stride_l == 1 && problem.L % 2 == 0 &&
                     (problem.x_stride_c | problem.x_stride_n) % 2 == 0 &&
                     reinterpret_cast<uintptr_t>(problem.x) % (2 * Traits::kElementBytes) == 0;
    geometry.batches = static_cast<int32_t>(ceil_div(geometry.window + geometry.pairs, 64));  // a pair may begin at -1
    geometry.x_stride_c = static_cast<int32_t>(problem.x_stride_c);
    geometry.x_stride_l = static_cast<int32_t>(problem.x_stride_l);
    geometry.stride_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, stride));

    const bool one_weight_tile = geometry.o_tiles * problem.G == 1;
    const int64_t room = (free_bytes - 2 * geometry.x_stage_bytes) / kWeightBytes;
    geometry.resident = one_weight_tile && blocks <= room && blocks <= kMaxStages;
    geometry.w_stages = static_cast<int32_t>(geometry.resident ? blocks : room < 6 ? room : 6);
    geometry.x_stages = (free_bytes - geometry.w_stages * kWeightBytes) / geometry.x_stage_bytes;
    if (geometry.x_stages > 6) geometry.x_stages = 6;
    geometry.smem_bytes = geometry.x_stages * geometry.x_stage_bytes + geometry.w_stages * kWeightBytes + other_bytes;

    // One product warpgroup stores while the other multiplies. The rings bound how far they can be apart.
    const int64_t blocks_ahead = (geometry.x_stages / 2) * geometry.taps_per_group;
    const int64_t weights_ahead = geometry.resident ? blocks : geometry.w_stages / 2;
    const int64_t ahead = blocks_ahead < weights_ahead ? blocks_ahead : weights_ahead;
    geometry.skew = static_cast<int32_t>(geometry.x_stages < 3 ? 0 : ahead < blocks ? ahead : blocks);

    // Rows of y that begin between sectors cost partial writes, and those between 16-byte pieces have no bulk copies.
    const int sector = 32 / Traits::kElementBytes, piece = 16 / Traits::kElementBytes;
    const bool aligned = reinterpret_cast<uintptr_t>(problem.y) % 32 == 0;
    geometry.flat = flat;
    geometry.lead = !flat && aligned && (problem.P % piece != 0 || (problem.P % sector != 0 && blocks <= 12)) ? sector : 0;
    geometry.sector_mask = geometry.lead > 0 ? sector - 1 : 0;
    geometry.bulk = aligned && (geometry.lead > 0 || problem.P % piece == 0);
    geometry.advance = columns - geometry.lead;
    int64_t windows;
    if (flat) {
        const int64_t rows = problem.P + max_shift > 2 ? problem.P + max_shift : 2;
        geometry.rows_per_sample = static_cast<int32_t>(geometry.bulk ? ceil_div(rows, piece) * piece : rows);
        if (geometry.rows_per_sample < columns + max_shift)  // a tile may hold several samples
            geometry.rows_magic = static_cast<uint32_t>(ceil_div(int64_t{1} << 32, geometry.rows_per_sample));
        windows = problem.P > 4 * columns ? 0 : ceil_div(problem.N * geometry.rows_per_sample, geometry.advance);
        geometry.tiles_per_sample = 0;
    } else {
        const int64_t late = geometry.lead > 0 ? geometry.lead - 1 : 0;  // how far the last store may end early
        geometry.tiles_per_sample = static_cast<int32_t>(ceil_div(problem.P + late, geometry.advance));
        windows = problem.N * geometry.tiles_per_sample;
    }
    const int64_t tiles = windows * geometry.o_tiles * problem.G;
    geometry.tiles = tiles < (int64_t{1} << 30) ? static_cast<int32_t>(tiles) : 0;
    return geometry;
}

// Cycles that a launch needs by a simple count, in whole waves of tiles: products or bytes through L2, whichever is
// more, then stores. The constants come from kb67, kb76 and ecapa_tdnn timed with each number of columns.
template <Mode kMode>
inline double estimate_cycles(const Problem& problem, const Geometry& geometry, int columns) {
    using Traits = ModeTraits<kMode>;
    constexpr double kBytesPerCycle = 32;  // of one multiprocessor from L2
    const double blocks = static_cast<double>(geometry.chunks) * static_cast<double>(problem.K);
    const double products = blocks * (Traits::kIsSplit ? 6 : 4) * columns;
    const double stages = static_cast<double>(geometry.chunks) * geometry.tap_groups;
    const double bytes = stages * geometry.window * Traits::kChunkChannels * Traits::kElementBytes +
                         (geometry.resident ? 0 : blocks * kWeightBytes) + kTileO * columns * Traits::kElementBytes;
    const double work = products > bytes / kBytesPerCycle ? products : bytes / kBytesPerCycle;
    const double tile = work + 2000 + (geometry.bulk ? 24 : 64) * columns;
    return static_cast<double>(ceil_div(geometry.tiles, problem.device.sm_count)) * tile;
}

struct Cut {
    Geometry geometry;
    int columns;  // 0: none fits
};

template <Mode kMode>
inline Cut choose_cut(const Problem& problem) {
    Cut best{Geometry{}, 0};
    double best_cycles = 0;
    for (const int columns : {192, 128, 64}) {
        if (ModeTraits<kMode>::kIsSplit && columns > 128) continue;
        for (const bool flat : {false, true}) {
            const Geometry geometry = cut<kMode>(problem, columns, flat);
            if (geometry.tiles == 0) continue;
            const double cycles = estimate_cycles<kMode>(problem, geometry, columns);
            if (best.columns == 0 || cycles < best_cycles) {
                best = {geometry, columns};
                best_cycles = cycles;
            }
        }
    }
    return best;
}

template <Mode kMode>
inline size_t image_bytes(const Problem& problem) {
    return static_cast<size_t>(problem.G * ceil_div(problem.O, kTileO) *
                               ceil_div(problem.C, ModeTraits<kMode>::kChunkChannels) * problem.K * kWeightBytes);
}

constexpr size_t kTicketBytes = 256;

template <Mode kMode, int kN>
inline Error launch_columns(const Problem& problem, const Geometry& geometry, cudaStream_t stream) {
    int* const ticket = static_cast<int*>(problem.workspace);
    uint8_t* const image = static_cast<uint8_t*>(problem.workspace) + kTicketBytes;
    const int64_t pieces = static_cast<int64_t>(image_bytes<kMode>(problem)) / 16;
    pack_weights_kernel<kMode><<<static_cast<unsigned>(ceil_div(pieces, 256)), 256, 0, stream>>>(
        problem.w, reinterpret_cast<uint4*>(image), ticket, geometry, static_cast<int32_t>(problem.C),
        static_cast<int32_t>(problem.O), static_cast<int32_t>(problem.K), pieces);
    const auto kernel = gemm_sm90_kernel<kMode, kN>;
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, geometry.smem_bytes);
    if (error == cudaSuccess) {
        const int blocks = geometry.tiles < problem.device.sm_count ? geometry.tiles : problem.device.sm_count;
        kernel<<<blocks, kThreads, geometry.smem_bytes, stream>>>(problem, geometry, image, ticket);
        error = cudaGetLastError();
    }
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <Mode kMode>
inline Error launch_mode(const Problem& problem, cudaStream_t stream) {
    const Cut cut = choose_cut<kMode>(problem);
    if constexpr (!ModeTraits<kMode>::kIsSplit) {
        if (cut.columns == 192) return launch_columns<kMode, 192>(problem, cut.geometry, stream);
    }
    if (cut.columns == 128) return launch_columns<kMode, 128>(problem, cut.geometry, stream);
    return launch_columns<kMode, 64>(problem, cut.geometry, stream);
}

inline Mode mode_of(const Problem& problem) {
    if (problem.dtype == Dtype::float16) return Mode::f16;
    if (problem.dtype == Dtype::bfloat16) return Mode::bf16;
    return problem.precision == Precision::tf32 ? Mode::tf32 : Mode::tf32x3;
}

}  // namespace sm90

inline bool fits_gemm_sm90(const Problem& problem) {
    constexpr int64_t kMost = int64_t{1} << 30;  // positions and channels are counted in 32 bits
    return problem.device.arch == 90 && problem.dtype != Dtype::float64 && problem.C >= 16 && problem.O >= 8 &&
           problem.stride <= 32 && problem.L < kMost && problem.P < kMost && problem.N < kMost &&
           problem.K * problem.dilation < kMost && problem.x_stride_c < kMost && problem.x_stride_l < kMost && problem.G * problem.O < kMost && problem.G * problem.C < kMost;
}

inline size_t workspace_gemm_sm90(const Problem& problem) {
    size_t bytes = 0;
    switch (sm90::mode_of(problem)) {
        case sm90::Mode::tf32: bytes = sm90::image_bytes<sm90::Mode::tf32>(problem); break;
        case sm90::Mode::tf32x3: bytes = sm90::image_bytes<sm90::Mode::tf32x3>(problem); break;
        default: bytes = sm90::image_bytes<sm90::Mode::f16>(problem);
    }
    return sm90::kTicketBytes + bytes;
}

inline Error launch_gemm_sm90(const Problem& problem, cudaStream_t stream) {
    switch (sm90::mode_of(problem)) {
        case sm90::Mode::tf32: return sm90::launch_mode<sm90::Mode::tf32>(problem, stream);
        case sm90::Mode::tf32x3: return sm90::launch_mode<sm90::Mode::tf32x3>(problem, stream);
        case sm90::Mode::f16: return sm90::launch_mode<sm90::Mode::f16>(problem, stream);
        default: return sm90::launch_mode<sm90::Mode::bf16>(problem, stream);
    }
}

}  // namespace conv1d
