// The translation unit of route "stream_sm90".
#include "stream_sm90.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kStreamSm90 = {"stream_sm90", fits_stream_sm90, workspace_stream_sm90,
                                           launch_stream_sm90};
