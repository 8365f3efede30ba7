// Dense convolution on Hopper where sums are short and positions many: bound by memory, not by products.
//
// Chosen for two or three taps, 33 to 64 input and 65 to 128 output channels: their packed weights fit into
// the registers of the product warpgroups for the life of a persistent block; and for x that the copy engine
// can load. One warp draws tickets and orders boxes of x by a tensor map: they pass the load and store units
// by. Taps that lie far apart have a box each. Converter warps round, split or transpose them into K-major
// rows of 128 bytes, as in gemm_sm90.cuh: a tap is a plane and a row shift. Two product warpgroups of 64
// output channels each multiply (weights are operand A), stage D and store it by plain stores along the rows
// of y, from 32-byte sectors on: the first kLead columns are computed for that. Of up to 64 output channels,
// each takes every other tile instead. fp32 runs as three fp16
// products; tiles that those cannot hold are done again by gemm_sm90.cuh. Cost: one pass over x and y, at 80
// to 95 % of the speed of a copy. results/findings.md has what was measured.
#pragma once
#include "gemm_sm90_convert.cuh"
#include "gemm_sm90_plan.cuh"
#include "launch.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "stream_sm90_convert.cuh"
#include "stream_sm90_plan.cuh"
#include "stream_sm90_product.cuh"
#include "tensor_map.cuh"
#include "tile.cuh"

namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN, int kTaps>
__global__ void __launch_bounds__(StreamWarps<kN>::kThreads, 1)
    stream_sm90_kernel(const __grid_constant__ TensorMap x_map, const __grid_constant__ Problem problem,
                       const __grid_constant__ StreamGeometry geometry,
                       const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    using Warps = StreamWarps<kN, kTaps>;
    ptx::griddepcontrol_launch_dependents();
    extern __shared__ uint8_t smem_base[];
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const raw_smem = smem + geometry.x_stages * geometry.x_stage_bytes;
    uint8_t* const staging = raw_smem + geometry.raw_stages * geometry.raw_stage_bytes;
    using Traits = StreamTraits<kMode>;
    constexpr int kWarpStagingBytes = Traits::warp_staging_bytes(kN);
    uint8_t* const control = staging + kProductWarps * kWarpStagingBytes;
    Announcement* const announcements = reinterpret_cast<Announcement*>(control + kStreamBarrierBytes);
    int32_t* const counters = reinterpret_cast<int32_t*>(announcements + kStreamTileSlots);
    const StreamBarriers barriers{ptx::smem_address(control), announcements, counters};
    if (threadIdx.x == 0) {
        const int consumers = geometry.alternate ? kProductWarps / 2 : kProductWarps;
        for (int i = 0; i < kMostRawStages; ++i) {
            ptx::mbarrier_init(barriers.raw_full(i), 1);
            ptx::mbarrier_init(barriers.raw_empty(i), Warps::kConverters);
        }
        for (int i = 0; i < kMostXStages; ++i) {
            ptx::mbarrier_init(barriers.x_full(i), Warps::kConverters);
            ptx::mbarrier_init(barriers.x_empty(i), consumers);
        }
        for (int i = 0; i < kStreamTileSlots; ++i) {
            ptx::mbarrier_init(barriers.tile_full(i), 1);
            ptx::mbarrier_init(barriers.tile_empty(i), consumers + Warps::kConverters);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp < kProductWarps) {
        ptx::setmaxnreg_inc<Warps::kProductRegisters>();
        StreamProduct<kMode, kN, kTaps> product{
            geometry,
            problem,
            barriers,
            scratch,
            ptx::smem_address(smem) / 16,
            reinterpret_cast<typename Traits::Bits*>(staging + warp * kWarpStagingBytes),
            warp,
            lane};
        product.run();
    } else {
        ptx::setmaxnreg_dec<Warps::kOtherRegisters>();
        if (warp < kProductWarps + Warps::kConverters) {
            StreamConverter<kMode, kN> converter{geometry,
                                             problem,
                                             barriers,
                                             scratch,
                                             smem,
                                             raw_smem,
                                             warp - kProductWarps,
                                             lane};
            converter.run();
        } else if (ptx::elect()) {
            order_boxes<kMode, kN>(geometry, problem, x_map, ptx::smem_address(raw_smem), barriers,
                                   scratch.tickets);
        }
    }
#endif
}

template <Mode kMode, int kN, int kTaps = kMostStreamTaps>
inline Error launch_stream_products(const Problem& problem, const StreamGeometry& geometry,
                                    const Scratch& scratch, cudaStream_t stream) {
    TensorMap x_map;
    constexpr int kChannels = StreamTraits<kMode>::kRawChannels;
    Error error = encode_tensor_map(problem, geometry.box_positions, kChannels, &x_map);
    if (error == nullptr) error = allow_smem<stream_sm90_kernel<kMode, kN, kTaps>>(problem.device);
    if (error != nullptr) return error;
    const int blocks = geometry.tiles < problem.device.sm_count ? geometry.tiles : problem.device.sm_count;
    return launch_shaped(stream_sm90_kernel<kMode, kN, kTaps>,
                         {blocks, 1, StreamWarps<kN>::kThreads, geometry.smem_bytes, true}, stream, x_map,
                         problem, geometry, scratch);
}

template <Mode kMode>
inline Error launch_stream(const Problem& problem, const StreamGeometry& geometry, cudaStream_t stream) {
    Scratch scratch;
    const Geometry packed = packing<kMode>(problem);
    lay_out<kMode>(problem, packed, static_cast<uint8_t*>(problem.workspace), &scratch);
    const auto multiply = [&] {
        constexpr int kWidest = kWidestColumns<kMode>, kWide = kWideColumns<kMode>;
        if (problem.K == 2)
            return launch_stream_products<kMode, kWide, 2>(problem, geometry, scratch, stream);
        if (geometry.columns == kWidest)
            return launch_stream_products<kMode, kWidest>(problem, geometry, scratch, stream);
        if (geometry.columns == kWide)
            return launch_stream_products<kMode, kWide>(problem, geometry, scratch, stream);
        return launch_stream_products<kMode, kNarrowColumns<kMode>>(problem, geometry, scratch, stream);
    };
    if constexpr (kMode == Mode::f16x3) {
        const Geometry safe = choose_cut<Mode::tf32x3>(problem).geometry;
        pack_split_weights<Mode::tf32x3>(problem, packed, safe, scratch, stream);
        const Error error = multiply();
        return error == nullptr ? launch_listed_tiles(problem, scratch, stream) : error;
    } else {
        pack_weights<kMode>(problem, packed, scratch, stream);
        return multiply();
    }
}

}  // namespace sm90

inline Error launch_stream_sm90(const Problem& problem, cudaStream_t stream) {
    return sm90::with_mode(problem, [&](auto mode) {
        constexpr sm90::Mode kMode = decltype(mode)::value;
        return sm90::launch_stream<kMode>(problem, sm90::choose_stream_cut<kMode>(problem), stream);
    });
}

}  // namespace conv1d
