// The translation unit of route "downsample_sm90".
#include "downsample_sm90.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kDownsampleSm90 = {"downsample_sm90", fits_downsample_sm90,
                                               workspace_downsample_sm90, launch_downsample_sm90};
