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
    // Of a multiprocessor's shared memory and L1 cache, the percentage that is shared memory; else the driver
    // may leave as much as the kernel before had.
    int32_t smem_percent = cudaSharedmemCarveoutDefault;
};

template <class... Parameters, class... Arguments>
inline Error launch_shaped(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                           const Arguments&... arguments) {
    cudaLaunchAttribute attributes[3]{};
    unsigned count = 0;
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
    if (shape.overlaps) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (shape.smem_percent >= 0) {
        attributes[count].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
        attributes[count++].val.sharedMemCarveout = static_cast<unsigned>(shape.smem_percent);
    }
    const cudaLaunchConfig_t config{static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.threads),
                                    static_cast<size_t>(shape.smem_bytes), stream, attributes, count};
    cudaLaunchKernelEx(&config, kernel, arguments...);
    return launch_error();
}

}  // namespace conv1d
