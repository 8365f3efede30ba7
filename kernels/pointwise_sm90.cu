// The translation unit of route "pointwise_sm90".
#include "pointwise_sm90.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kPointwiseSm90 = {"pointwise_sm90", fits_pointwise_sm90, no_workspace,
                                              launch_pointwise_sm90};
