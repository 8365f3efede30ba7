// Tensor maps: what the copy engine knows of a tensor when it loads boxes of it (ptx::cp_async_bulk_tensor).
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <atomic>

#include "problem.h"

namespace conv1d {

using TensorMap = CUtensorMap;

// Describes x [N][C][L] of `element` bytes for boxes of [1][channels][positions]; outside, it reads as zero.
// What the driver refuses becomes a sentence. The driver's function is asked for at run time: nothing links
// against it.
inline Error encode_tensor_map(const Problem& problem, int32_t positions, int32_t channels, TensorMap* map) {
    using Encode = decltype(&cuTensorMapEncodeTiled);
    static std::atomic<void*> known{nullptr};
    void* encode = known.load(std::memory_order_relaxed);
    if (encode == nullptr) {
        cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
        const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                                   cudaEnableDefault, &found);
#else
        const cudaError_t error =
            cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &encode, cudaEnableDefault, &found);
#endif
        if (error != cudaSuccess) return cudaGetErrorString(error);
        if (encode == nullptr) return "the driver has no cuTensorMapEncodeTiled";
        known.store(encode, std::memory_order_relaxed);
    }
    const auto element = static_cast<cuuint64_t>(element_bytes(problem.dtype));
    const cuuint64_t extents[3] = {static_cast<cuuint64_t>(problem.L), static_cast<cuuint64_t>(problem.C),
                                   static_cast<cuuint64_t>(problem.N)};
    // One sample's stride means nothing and may be zero, which the driver refuses.
    const int64_t stride_n = problem.N == 1 ? problem.C * problem.x_stride_c : problem.x_stride_n;
    const cuuint64_t strides[2] = {static_cast<cuuint64_t>(problem.x_stride_c) * element,
                                   static_cast<cuuint64_t>(stride_n) * element};
    const cuuint32_t box[3] = {static_cast<cuuint32_t>(positions), static_cast<cuuint32_t>(channels), 1};
    const cuuint32_t steps[3] = {1, 1, 1};
    const CUresult result = reinterpret_cast<Encode>(encode)(
        map, element == 4 ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16, 3,
        const_cast<void*>(problem.x), extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? nullptr : "the driver refuses the tensor map of x";
}

}  // namespace conv1d
