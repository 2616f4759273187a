/* Rows of `dojo bench world` that draw. Where nothing can draw they report 0 and say why. */
#ifndef DOJO_CLI_BENCH_CAMERAS_H
#define DOJO_CLI_BENCH_CAMERAS_H

#include "cli/bench_world.h"

dj_status dj__bench_camera(const dj__bench_world_options *o, dj__bench_world_result *r);
dj_status dj__bench_camera_labels(const dj__bench_world_options *o, dj__bench_world_result *r);
dj_status dj__bench_camera_all(const dj__bench_world_options *o, dj__bench_world_result *r);
dj_status dj__bench_camera_ring(const dj__bench_world_options *o, dj__bench_world_result *r);

#endif
