// Dense convolution on Hopper as an implicit GEMM: D[o][position] = sum of W[o][c, k] * X[c, k][position].
//
// Chosen for 16 channels a group and more. Persistent blocks draw tiles of 128 output channels x kN positions
// from a ticket, or of 64 x 2*kN. Seven converter warps read x once, round or split it and store it K-major
// in rows of 128 bytes, one row a position: position q of the window is row q / stride of plane q % stride, so
// every tap of every stride and dilation is a plane and a row shift of the same tile. One warp draws tickets
// and streams the packed weights. Two product warpgroups of 64 output channels each run wgmma, stage D and
// store it by bulk copies along the rows of y. Cost: each element of x leaves L2 once per tile of channels,
// each weight once per tile (once per block where all fit in shared memory). fp32 without TF32 runs as three
// products of split operands (Mode in gemm_sm90_plan.cuh): of fp16 parts, then once more of TF32 parts for the
// tiles that fp16 cannot hold, in a second launch that finds their list mostly empty.
// results/findings.md has what was measured, and what bounds it.
#pragma once
#include "gemm_sm90_convert.cuh"
#include "gemm_sm90_pipeline.cuh"
#include "gemm_sm90_plan.cuh"
#include "gemm_sm90_product.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace sm90 {

// Whether the product warpgroups need more than the 128 registers a thread that the launch gives.
template <Mode kMode, int kN>
constexpr bool kNeedsRegisters = kN * (ModeTraits<kMode>::kIsSplit ? 2 : 1) > 128;

template <Mode kMode, int kN, int kSlices>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_sm90_kernel(const __grid_constant__ Problem problem, const __grid_constant__ Geometry geometry,
                     const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    extern __shared__ uint8_t smem_base[];
    ptx::griddepcontrol_launch_dependents();
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const w_smem = smem + geometry.x_stages * geometry.x_stage_bytes;
    uint8_t* const staging = w_smem + geometry.w_stages * geometry.weight_bytes;
    using Bits = typename ModeTraits<kMode>::Bits;
    constexpr int kWarpStagingBytes = ModeTraits<kMode>::warp_staging_bytes(kN, kSlices);
    uint8_t* const control = staging + kProductWarps * kWarpStagingBytes;
    Announcement* const announcements = reinterpret_cast<Announcement*>(control + kBarrierBytes);
    const Barriers barriers{ptx::smem_address(control), announcements,
                            reinterpret_cast<int32_t*>(announcements + kTileSlots)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kMaxStages; ++i) {
            ptx::mbarrier_init(barriers.x_full(i), kConverterWarps);
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
    constexpr int kProductRegisters = ModeTraits<kMode>::kIsSplit ? 152 : 144;  // of 128 a thread at launch
    if (warp < kProductWarps) {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_inc<kProductRegisters>();
        Product<kMode, kN, kSlices> product{geometry,
                                            problem,
                                            barriers,
                                            scratch,
                                            ptx::smem_address(smem),
                                            ptx::smem_address(w_smem),
                                            reinterpret_cast<Bits*>(staging + warp * kWarpStagingBytes),
                                            warp,
                                            lane};
        product.run();
    } else {
        if constexpr (kNeedsRegisters<kMode, kN>) ptx::setmaxnreg_dec<256 - kProductRegisters>();
        if (warp < kProductWarps + kConverterWarps) {
            Converter<kMode> converter(geometry, problem, barriers, scratch, smem, warp - kProductWarps,
                                       lane);
            converter.run();
        } else if (lane == 0) {
            run_supplier<kMode == Mode::tf32x3>(geometry, problem, ptx::smem_address(w_smem), barriers,
                                                scratch);
        }
    }
#endif
}

template <Mode kMode, int kN, int kSlices = 1>
inline Error launch_products(const Problem& problem, const Geometry& geometry, const Scratch& scratch,
                             cudaStream_t stream) {
    const Error error = allow_smem<gemm_sm90_kernel<kMode, kN, kSlices>>(problem.device);
    if (error != nullptr) return error;
    const int blocks = geometry.tiles < problem.device.sm_count ? geometry.tiles : problem.device.sm_count;
    // Begins while the kernel before it, which packs weights or lists tiles, still runs: see
    // griddepcontrol_wait.
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    const cudaLaunchConfig_t config{static_cast<unsigned>(blocks), kThreads,
                                    static_cast<size_t>(geometry.smem_bytes), stream, &attribute, 1};
    cudaLaunchKernelEx(&config, gemm_sm90_kernel<kMode, kN, kSlices>, problem, geometry, scratch);
    return launch_error();
}

// kN and kSlices are those of the tiling.
template <Mode kMode, int kN, int kSlices = 1>
inline Error launch_columns(const Problem& problem, const Tiling& tiling, const Geometry& geometry,
                            cudaStream_t stream) {
    Scratch scratch;
    lay_out<kMode>(problem, geometry, static_cast<uint8_t*>(problem.workspace), &scratch);
    if constexpr (kMode == Mode::f16x3) {
        // The same tiles, with rows of half the channels: the list means the same to both.
        const Geometry safe = cut<Mode::tf32x3>(problem, tiling, geometry.taps_per_group);
        pack_split_weights<Mode::tf32x3>(problem, geometry, safe, scratch, stream);
        const Error error = launch_products<kMode, kN, kSlices>(problem, geometry, scratch, stream);
        if (error != nullptr) return error;
        scratch.image = scratch.safe_image;
        return launch_products<Mode::tf32x3, kN, kSlices>(problem, safe, scratch, stream);
    } else {
        pack_weights<kMode>(problem, geometry, scratch, stream);
        return launch_products<kMode, kN, kSlices>(problem, geometry, scratch, stream);
    }
}

Error launch_listed_tiles(const Problem& problem, Scratch scratch, cudaStream_t stream) {
    const Cut cut = choose_cut<Mode::tf32x3>(problem);
    scratch.image = scratch.safe_image;
    if (cut.tiling.columns == 128)
        return launch_products<Mode::tf32x3, 128>(problem, cut.geometry, scratch, stream);
    return launch_products<Mode::tf32x3, 64>(problem, cut.geometry, scratch, stream);
}

template <Mode kMode>
inline Error launch_mode(const Problem& problem, const Cut& cut, cudaStream_t stream) {
    if constexpr (kMode == Mode::tf32) {
        if (cut.tiling.columns == 192 && cut.tiling.slices == 2)
            return launch_columns<kMode, 192, 2>(problem, cut.tiling, cut.geometry, stream);
    }
    if constexpr (!ModeTraits<kMode>::kIsSplit) {
        if (cut.tiling.columns == 192)
            return launch_columns<kMode, 192>(problem, cut.tiling, cut.geometry, stream);
    }
    if (cut.tiling.columns == 128)
        return launch_columns<kMode, 128>(problem, cut.tiling, cut.geometry, stream);
    return launch_columns<kMode, 64>(problem, cut.tiling, cut.geometry, stream);
}

}  // namespace sm90

inline Error launch_gemm_sm90(const Problem& problem, cudaStream_t stream) {
    const sm90::Choice choice = sm90::choose(problem);
    switch (choice.mode) {
        case sm90::Mode::tf32:
            return sm90::launch_mode<sm90::Mode::tf32>(problem, choice.cut, stream);
        case sm90::Mode::tf32x3:
            return sm90::launch_mode<sm90::Mode::tf32x3>(problem, choice.cut, stream);
        case sm90::Mode::f16x3:
            return sm90::launch_mode<sm90::Mode::f16x3>(problem, choice.cut, stream);
        case sm90::Mode::f16:
            return sm90::launch_mode<sm90::Mode::f16>(problem, choice.cut, stream);
        default:
            return sm90::launch_mode<sm90::Mode::bf16>(problem, choice.cut, stream);
    }
}

}  // namespace conv1d
