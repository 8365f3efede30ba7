// Stands in for kernels/tensor_map.cuh.
#pragma once
#include "emulator.h"
#include "problem.h"

namespace conv1d {

using TensorMap = emulator::TensorMap;

inline Error encode_tensor_map(const Problem& problem, int32_t positions, int32_t channels, TensorMap* map) {
    const int64_t element = element_bytes(problem.dtype);
    *map = {static_cast<const uint8_t*>(problem.x),
            element,
            {problem.L, problem.C, problem.N},
            {element, problem.x_stride_c * element,
             (problem.N > 1 ? problem.x_stride_n : problem.C * problem.x_stride_c) * element},
            {positions, channels}};
    const bool aligned = reinterpret_cast<uintptr_t>(problem.x) % 16 == 0 && map->stride[1] % 16 == 0 &&
                         map->stride[2] % 16 == 0 && positions * element % 16 == 0;
    const bool fits = aligned && positions <= 256 && channels <= 256;
    return fits ? nullptr : "the driver refuses the tensor map of x";
}

}  // namespace conv1d
