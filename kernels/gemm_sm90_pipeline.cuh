// What the roles of the Hopper GEMM (gemm_sm90.cuh) share: barriers, rings of stages, rows and planes; and
// the warp that supplies them with tiles and weights.
#pragma once
#include "gemm_sm90_plan.cuh"
#include "problem.h"
#include "ptx.cuh"

namespace conv1d {
namespace sm90 {

// Addresses of the barriers in the shared window, and the announcements behind them.
struct Barriers {
    uint32_t base;
    Announcement* tile;    // [kTileSlots]
    int32_t* small_count;  // [kTileCounters] f16x3: values of x too small, of one tile

    __device__ __forceinline__ uint32_t x_full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t x_empty(int stage) const { return base + 8 * (kMaxStages + stage); }
    __device__ __forceinline__ uint32_t w_full(int stage) const {
        return base + 8 * (2 * kMaxStages + stage);
    }
    __device__ __forceinline__ uint32_t w_empty(int stage) const {
        return base + 8 * (3 * kMaxStages + stage);
    }
    __device__ __forceinline__ uint32_t tile_full(int slot) const {
        return base + 8 * (4 * kMaxStages + slot);
    }
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
template <class Cut>
__device__ __forceinline__ int32_t divide_by_stride(const Cut& geometry, int32_t q, int32_t stride) {
    return stride == 1 ? q : __umulhi(q, geometry.stride_magic);
}
template <class Cut>
__device__ __forceinline__ int32_t plane_row(const Cut& geometry, int32_t plane) {
    return __popc(geometry.plane_mask & ((1u << plane) - 1)) * geometry.plane_rows;
}

// Flat tiles only: brings a row at or behind the end of its sample back into a later one; returns how much
// later.
__device__ __forceinline__ int32_t wrap_row(const Geometry& geometry, int32_t& row) {
    const int32_t samples =
        geometry.rows_magic != 0 ? __umulhi(row, geometry.rows_magic) : (row >= geometry.rows_per_sample);
    row -= samples * geometry.rows_per_sample;
    return samples;
}

// Where a tile lies. Tiles of one window of x and all output channels follow each other, so x is shared in
// L2.
__device__ __forceinline__ Announcement place_tile(const Geometry& geometry, const Problem& problem,
                                                   int32_t tile) {
    const int32_t per_window = geometry.o_tiles * static_cast<int32_t>(problem.G);
    const int32_t window = tile / per_window;
    const int32_t rest = tile - window * per_window;
    Announcement place;
    place.tile = tile;
    place.group = rest / geometry.o_tiles;
    place.channel = (rest - place.group * geometry.o_tiles) * geometry.tile_o;
    if (geometry.flat) {
        const int64_t first = int64_t{window} * geometry.tile_advance;
        place.sample = static_cast<int32_t>(first / geometry.rows_per_sample);
        place.row = static_cast<int32_t>(first - int64_t{place.sample} * geometry.rows_per_sample);
    } else {
        place.sample = window / geometry.tiles_per_sample;
        place.row =
            (window - place.sample * geometry.tiles_per_sample) * geometry.tile_advance - geometry.lead;
    }
    return place;
}

// f16x3: puts a tile on the list of those to be done again, once.
__device__ __forceinline__ void list_tile(const Scratch& scratch, int32_t tile) {
    if (atomicExch(&scratch.is_listed[tile], 1) == 0) scratch.list[atomicAdd(&scratch.tickets[1], 1)] = tile;
}

// f16x3 of other routes: lists the tiles of tf32x3 that hold some positions and output channels of a sample's
// group.
struct Span {
    int32_t begin, end;
};
__device__ __forceinline__ void list_overlapped(const SafeTiles& safe, const Problem& problem,
                                                const Scratch& scratch, int32_t sample, Span positions,
                                                int32_t group, Span channels) {
    const uint32_t first = positions.begin, last = positions.end - 1, advance = safe.advance;
    const uint32_t before = sample * (safe.flat ? safe.rows_per_sample : safe.tiles_per_sample);
    uint32_t window, end;
    if (safe.flat) {
        window = (before + first) / advance;
        end = (before + last) / advance + 1;
    } else {  // their rows end up to lead - 1 positions early
        window = before + first / advance;
        end = before + min((last + max(safe.lead - 1, 0)) / advance + 1,
                           static_cast<uint32_t>(safe.tiles_per_sample));
    }
    for (; window < end; ++window) {
        const int32_t tile =
            (static_cast<int32_t>(window) * static_cast<int32_t>(problem.G) + group) * safe.o_tiles;
        for (int32_t o = channels.begin / safe.tile_o; o * safe.tile_o < channels.end; ++o)
            list_tile(scratch, tile + o);
    }
}

// One thread: draws tickets, announces tiles one ahead of need, streams the weights of each. kMayBeListed:
// where there is a list, of the tiles on it only.
template <bool kMayBeListed>
__device__ __forceinline__ void run_supplier(const Geometry& geometry, const Problem& problem,
                                             uint32_t w_smem, const Barriers& barriers,
                                             const Scratch& scratch) {
    Ring tiles, weights;
    tiles.parity = weights.parity = 1;  // an empty ring: the first waits return at once
    const int64_t blocks_of_tile = int64_t{geometry.chunks} * geometry.taps;
    uint32_t announced = 0;
    const auto announce = [&](int32_t tile) {
        ptx::mbarrier_wait(barriers.tile_empty(tiles.stage), tiles.parity);
        Announcement place{-1, 0, 0, 0, 0, 0};
        if (tile < geometry.tiles) place = place_tile(geometry, problem, tile);
        place.counter = announced++ % kTileCounters;  // no one looks at that of kTileCounters tiles ago
        barriers.small_count[place.counter] = 0;
        barriers.tile[tiles.stage] = place;
        ptx::mbarrier_arrive(barriers.tile_full(tiles.stage));
        tiles.advance(kTileSlots);
    };
    const bool listed = kMayBeListed && scratch.list != nullptr;
    if (listed) ptx::griddepcontrol_wait();
    const int32_t tickets = listed ? scratch.tickets[1] : geometry.tiles;
    const auto tile_of = [&](int32_t ticket) {
        return ticket >= tickets ? geometry.tiles : listed ? scratch.list[ticket] : ticket;
    };
    int32_t next_ticket = blockIdx.x;
    int32_t tile = tile_of(next_ticket);
    int32_t next = tile;  // announced already, one tile ahead of the weights
    announce(next);
    ptx::griddepcontrol_wait();  // converters read x meanwhile
    for (bool first = true; tile < geometry.tiles; first = false, tile = next) {
        if (next < geometry.tiles) {
            next_ticket = (listed ? next_ticket : atomicAdd(scratch.tickets, 1)) + gridDim.x;
            next = tile_of(next_ticket);
            announce(next);
        }
        if (first || !geometry.resident) {
            const int32_t which = tile % (geometry.o_tiles * static_cast<int32_t>(problem.G));
            const uint32_t bytes = geometry.weight_bytes;
            const uint8_t* source = scratch.image + which * blocks_of_tile * bytes;
#pragma unroll 1
            for (int64_t block = 0; block < blocks_of_tile; ++block, source += bytes) {
                const uint32_t full = barriers.w_full(weights.stage);
                ptx::mbarrier_wait(barriers.w_empty(weights.stage), weights.parity);
                ptx::mbarrier_arrive_expect_tx(full, bytes);
                ptx::cp_async_bulk(w_smem + weights.stage * bytes, source, bytes, full);
                weights.advance(geometry.w_stages);
            }
        }
    }
}

}  // namespace sm90
}  // namespace conv1d
