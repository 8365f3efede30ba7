// The translation unit of route "few_outputs".
#include "few_outputs.cuh"
#include "dispatch.cuh"

const conv1d::Route conv1d::kFewOutputs = {"few_outputs", fits_few_outputs, workspace_few_outputs,
                                           launch_few_outputs};
