// Launches that need attributes: clusters of blocks, and kernels that begin early.
#pragma once
#include <cuda_runtime.h>

#include "problem.h"
#include "tile.cuh"

namespace conv1d {

struct LaunchShape {
    int32_t blocks;
    int32_t cluster;  // blocks of one
    int32_t threads;  // of a block
    int32_t smem_bytes;
    bool overlaps;  // begins while the kernel before it still runs: see ptx::griddepcontrol_wait
};

template <class... Parameters, class... Arguments>
inline Error launch_shaped(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                           const Arguments&... arguments) {
    cudaLaunchAttribute attributes[2]{};
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    const cudaLaunchConfig_t config{static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.threads),
                                    static_cast<size_t>(shape.smem_bytes), stream, attributes,
                                    shape.overlaps ? 2u : 1u};
    cudaLaunchKernelEx(&config, kernel, arguments...);
    return launch_error();
}

}  // namespace conv1d
