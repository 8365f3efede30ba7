// Root of the CUDA half: the entry points that problem.h declares. Knows CUDA, not torch.
#include <cstring>

#include "problem.h"
#include "dispatch.cuh"

extern "C" const char* conv1d_cuda_route_name(int32_t route) {
    return route < conv1d::kRouteCount ? conv1d::kRoutes[route]->name : nullptr;
}

extern "C" conv1d::Plan conv1d_cuda_plan(const conv1d::Problem* problem, const char* wanted) {
    for (int32_t route = 0; route < conv1d::kRouteCount; ++route) {
        const conv1d::Route& row = *conv1d::kRoutes[route];
        if (wanted != nullptr && std::strcmp(wanted, row.name) != 0) continue;
        if (row.fits(*problem)) return {row.name, route, row.workspace_bytes(*problem)};
    }
    return {nullptr, -1, 0};
}

extern "C" conv1d::Error conv1d_cuda_launch(const conv1d::Problem* problem, int32_t route, void* stream) {
    return conv1d::kRoutes[route]->launch(*problem, static_cast<cudaStream_t>(stream));
}
