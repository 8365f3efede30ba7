// Tensor maps: what the copy engine knows of a tensor when it loads boxes of it (ptx::cp_async_bulk_tensor).
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <atomic>

#include "problem.h"

namespace conv1d {

using TensorMap = CUtensorMap;

// A tensor of up to four axes, the one along memory first, and the box that is loaded at once. Strides are
// those of the axes behind the first, in elements. Swizzled: boxes are rows of 128 bytes, as for wgmma.
struct BoxedTensor {
    const void* base;
    int element_bytes;
    int64_t extents[4];
    int64_t strides[3];
    int32_t box[4];
    bool swizzled;
};

// Describes the tensor's boxes; outside, it reads as zero. What the driver refuses becomes a sentence. The
// driver's function is asked for at run time: nothing links against it.
inline Error encode_tensor_map(const BoxedTensor& tensor, int axes, TensorMap* map) {
    using Encode = decltype(&cuTensorMapEncodeTiled);
    static std::atomic<void*> known{nullptr};
    void* encode = known.load(std::memory_order_relaxed);
    if (encode == nullptr) {
        cudaDriverEntryPointQueryResult found;
        const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                                   cudaEnableDefault, &found);
        if (error != cudaSuccess) return cudaGetErrorString(error);
        if (encode == nullptr) return "the driver has no cuTensorMapEncodeTiled";
        known.store(encode, std::memory_order_relaxed);
    }
    cuuint64_t extents[4], strides[3];
    cuuint32_t box[4], steps[4];
    for (int i = 0; i < axes; ++i) {
        extents[i] = static_cast<cuuint64_t>(tensor.extents[i]);
        if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(tensor.strides[i - 1] * tensor.element_bytes);
        box[i] = static_cast<cuuint32_t>(tensor.box[i]);
        steps[i] = 1;
    }
    const CUresult result = reinterpret_cast<Encode>(encode)(
        map, tensor.element_bytes == 4 ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16,
        static_cast<cuuint32_t>(axes), const_cast<void*>(tensor.base), extents, strides, box, steps,
        CU_TENSOR_MAP_INTERLEAVE_NONE,
        tensor.swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? nullptr : "the driver refuses the tensor map";
}

// Describes x [N][C][L] for boxes of [1][channels][positions].
inline Error encode_tensor_map(const Problem& problem, int32_t positions, int32_t channels, TensorMap* map) {
    // One sample's stride means nothing and may be zero, which the driver refuses.
    const int64_t stride_n = problem.N == 1 ? problem.C * problem.x_stride_c : problem.x_stride_n;
    return encode_tensor_map(BoxedTensor{problem.x,
                              static_cast<int>(element_bytes(problem.dtype)),
                              {problem.L, problem.C, problem.N},
                              {problem.x_stride_c, stride_n},
                              {positions, channels, 1},
                              false},
                             3, map);
}

}  // namespace conv1d
