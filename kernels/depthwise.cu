// The translation unit of route "depthwise".
#include "depthwise.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kDepthwise = {"depthwise", fits_depthwise, no_workspace, launch_depthwise};
