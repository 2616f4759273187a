/* Shader sources. See shaders.c for what the defines switch. */
#ifndef DOJO_WORLD_SHADERS_H
#define DOJO_WORLD_SHADERS_H

extern const char dj__shader_scene_vertex[], dj__shader_scene_fragment[];
extern const char dj__shader_sky_vertex[], dj__shader_sky_fragment[];
extern const char dj__shader_depth_vertex[], dj__shader_depth_fragment[];
extern const char dj__shader_glow_vertex[], dj__shader_glow_fragment[];

#endif
