// Stands in for kernels/tensor_map.cuh.
#pragma once
#include "emulator.h"
#include "problem.h"

namespace conv1d {

using TensorMap = emulator::TensorMap;

struct BoxedTensor {
    const void* base;
    int element_bytes;
    int64_t extents[4];
    int64_t strides[3];
    int32_t box[4];
    bool swizzled;
};

inline Error encode_tensor_map(const BoxedTensor& tensor, int axes, TensorMap* map) {
    *map = {static_cast<const uint8_t*>(tensor.base), tensor.element_bytes, {1, 1, 1, 1}, {}, {1, 1, 1, 1},
            tensor.swizzled};
    bool fits = reinterpret_cast<uintptr_t>(tensor.base) % 16 == 0;
    for (int i = 0; i < axes; ++i) {
        map->extent[i] = tensor.extents[i];
        map->box[i] = tensor.box[i];
        map->stride[i] = (i == 0 ? 1 : tensor.strides[i - 1]) * tensor.element_bytes;
        fits = fits && tensor.box[i] <= 256 && (i == 0 || (map->stride[i] > 0 && map->stride[i] % 16 == 0));
    }
    const int64_t row_bytes = tensor.box[0] * tensor.element_bytes;
    fits = fits && row_bytes % 16 == 0 && (!tensor.swizzled || row_bytes == 128);
    return fits ? nullptr : "the driver refuses the tensor map";
}

inline Error encode_tensor_map(const Problem& problem, int32_t positions, int32_t channels, TensorMap* map) {
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
