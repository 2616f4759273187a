/*
 * Shaders. On a processor (llvmpipe) fragments and texture reads are what costs, so light, fog and
 * reflections are worked out at vertices; fragments do one texture read, at most one read of the
 * shadow map, and a square root for gamma.
 *
 * Colours: textures and tints are square roots of linear light and are squared when read; the
 * picture is written as a square root again. Positions are relative to the camera, along the
 * world's axes, so that floats suffice anywhere on a map.
 *
 * Defines: ACTOR (instanced, with moving parts), HOLES (alpha below a half is not there), SHADOW
 * (the sun's shadow map), NIGHT (the ego's headlights), LABELS (second target: depth, class and
 * id), FLOW (with LABELS: and optical flow).
 */
#include "world/shaders.h"

#define COMMON                                                                                     \
  "uniform mat4 u_clip;\n"      /* camera-relative to clip space */                                \
  "uniform mat4 u_next_clip;\n" /* the same for the next picture, with (u w, v w, 0, w) out */     \
  "uniform vec3 u_sun;\n"                                                                          \
  "uniform vec3 u_fog;\n"    /* colour */                                                          \
  "uniform vec3 u_zenith;\n" /* sky above, for reflections */

const char dj__shader_scene_vertex[] = COMMON
    "in vec3 a_p; in vec4 a_n; in vec4 a_c; in vec2 a_uv; in vec4 a_m;\n"
    "uniform vec3 u_sun_colour, u_sky, u_ground, u_lamp;\n"
    "uniform vec4 u_air;\n" // fog density, wet, night (lit windows), exposure of lamps
    "uniform vec3 u_offset, u_next_offset;\n"
    "uniform mat4 u_shadow_from;\n"
    "#ifdef ACTOR\n"
    "in vec4 i_r0, i_r1, i_r2;\n" // model to camera-relative
    "in vec4 i_body, i_second;\n" // colours; w: steering, phase
    "in vec4 i_more;\n"           // lamps, class, swing of limbs, -
    "in uint i_id;\n"
    "uniform vec4 u_axle;\n"  // front, rear, wheels' |y|, radius
    "uniform vec2 u_joint;\n" // height of hip and shoulder
    "#ifdef FLOW\n"
    "in vec4 n_r0, n_r1, n_r2; in vec2 n_pose;\n"
    "#endif\n"
    "#endif\n"
    "#ifdef NIGHT\n"
    "uniform mat4 u_head;\n" // camera-relative to the ego's lamps: x ahead, y left, z up
    "out vec3 v_head, v_tint; out float v_through;\n"
    "#endif\n"
    "out vec3 v_ambient, v_direct, v_air; out vec2 v_uv;\n"
    "flat out vec2 v_look;\n" // layer, light of windows

    "#ifdef SHADOW\n"
    "out vec3 v_shadow;\n"
    "#endif\n"
    "#ifdef LABELS\n"
    "flat out uint v_label;\n"
    "#ifdef FLOW\n"
    "out vec3 v_next;\n"
    "#endif\n"
    "#endif\n"
    "#ifdef ACTOR\n"
    "vec3 turn_y(vec3 q, float a) { float c = cos(a), s = sin(a);\n"
    "  return vec3(c * q.x + s * q.z, q.y, c * q.z - s * q.x); }\n"
    "vec3 pose(vec3 p, float part, float steer, float phase, float swing) {\n"
    "  if (part < 1.5) return p;\n"
    "  if (part < 3.5) {\n"
    "    vec3 c = vec3(part < 2.5 ? u_axle.x : u_axle.y, sign(p.y) * u_axle.z, u_axle.w);\n"
    "    vec3 q = turn_y(p - c, phase);\n"
    "    if (part < 2.5) q.xy = mat2(cos(steer), sin(steer), -sin(steer), cos(steer)) * q.xy;\n"
    "    return c + q;\n"
    "  }\n"
    "  if (part < 7.5) {\n"
    "    float side = part < 4.5 || (part > 6.5) ? 1.0 : -1.0;\n"
    "    vec3 c = vec3(0.0, 0.0, part < 5.5 ? u_joint.x : u_joint.y);\n"
    "    return c + turn_y(p - c, side * swing * (part < 5.5 ? 1.0 : 0.8) * sin(phase));\n"
    "  }\n"
    "  return p;\n"
    "}\n"
    "#endif\n"
    "void main() {\n"
    "  vec3 tint = a_c.rgb;\n"
    "  vec3 n = a_n.xyz;\n"
    "  vec3 own = vec3(0.0);\n"
    "#ifdef ACTOR\n"
    "  float part = a_m.z;\n"
    "  float steer = part > 2.5 ? 0.0 : i_body.w;\n"
    "  vec4 q = vec4(pose(a_p, part, steer, i_second.w, i_more.z), 1.0);\n"
    "  vec3 p = vec3(dot(i_r0, q), dot(i_r1, q), dot(i_r2, q));\n"
    "  n = normalize(vec3(dot(i_r0.xyz, n), dot(i_r1.xyz, n), dot(i_r2.xyz, n)));\n"
    "  if (part < 0.5) tint *= i_body.rgb;\n"
    "  else if (part > 7.5 && part < 8.5 || part > 3.5 && part < 5.5) tint *= i_second.rgb;\n"
    "  else if (part > 5.5 && part < 7.5) tint *= i_body.rgb;\n"
    "  else if (part > 8.5) {\n"
    "    int lamps = int(i_more.x);\n"
    "    if (part < 9.5) own = (lamps & 8) != 0 ? vec3(2.2, 2.1, 1.9) : vec3(0.0);\n"
    "    else if (part < 10.5) own = vec3(1.5, 0.03, 0.02) * ((lamps & 1) != 0 ? 1.4 : (lamps & 8) "
    "!= 0 ? 0.35 : 0.0);\n"
    "    else if (part < 11.5) own = vec3(2.2, 0.8, 0.02) * float((lamps & 2) != 0);\n"
    "    else if (part < 12.5) own = vec3(2.2, 0.8, 0.02) * float((lamps & 4) != 0);\n"
    "    else if (part < 13.5) own = vec3(1.4) * float((lamps & 16) != 0);\n"
    "    else own = i_body.rgb * i_body.rgb * 2.2;\n"
    "  }\n"
    "#else\n"
    "  vec3 p = a_p + u_offset;\n"
    "#endif\n"
    "  gl_Position = u_clip * vec4(p, 1.0);\n"
    "  tint *= tint * (a_n.w < 0.0 ? 1.0 + 0.45 * a_n.w * u_air.y : 1.0);\n" // wet is darker

    "  vec3 around = mix(u_ground, u_sky, 0.5 + 0.5 * n.z) * a_c.a;\n"
    "#ifndef ACTOR\n"
    "  around += u_lamp * a_m.z;\n"
    "#else\n"
    "  around += u_lamp * 14.0;\n"
    "#endif\n"
    "  v_ambient = tint * around + own;\n"
    "  v_direct = tint * u_sun_colour * max(dot(n, u_sun), 0.0);\n"
    // fog: exponential; what is reflected and scattered in is added, the rest let through
    "  float d = length(p);\n"
    "  float through = exp(-u_air.x * d);\n"
    "  vec3 ray = p / max(d, 1e-3);\n"
    "  float gloss = a_n.w < 0.0 ? -0.6 * a_n.w * u_air.y : a_n.w;\n"
    "  float grazing = 1.0 - abs(dot(ray, n));\n"
    "  float g2 = grazing * grazing;\n"
    "  float mirror = gloss * (0.05 + 0.95 * g2 * g2 * grazing);\n"
    "  float up = ray.z - 2.0 * dot(ray, n) * n.z;\n"
    "  vec3 seen = mix(u_fog, u_zenith, sqrt(clamp(up, 0.0, 1.0))) * (up < -0.05 ? 0.35 : 1.0);\n"
    "  v_air = u_fog * (1.0 - through) + seen * (mirror * through);\n"
    "  through *= 1.0 - mirror;\n"
    "  v_ambient *= through;\n"
    "  v_direct *= through;\n"
    "  v_uv = a_uv;\n"
    "  v_look = vec2(a_m.x, a_m.w * u_air.z);\n"
    "#ifdef SHADOW\n"
    "  v_shadow = (u_shadow_from * vec4(p + n * 0.06, 1.0)).xyz;\n"
    "#endif\n"
    "#ifdef NIGHT\n"
    "  v_head = (u_head * vec4(p, 1.0)).xyz;\n"
    "  v_tint = tint * through;\n"
    "  v_through = through;\n"
    "#endif\n"
    "#ifdef LABELS\n"
    "#ifdef ACTOR\n"
    "  v_label = uint(i_more.y) | i_id << 8;\n"
    "#else\n"
    "  v_label = uint(a_m.y);\n"
    "#endif\n"
    "#ifdef FLOW\n"
    "#ifdef ACTOR\n"
    "  vec4 r = vec4(pose(a_p, part, part > 2.5 ? 0.0 : n_pose.x, n_pose.y, i_more.z), 1.0);\n"
    "  vec3 later = vec3(dot(n_r0, r), dot(n_r1, r), dot(n_r2, r));\n"
    "#else\n"
    "  vec3 later = a_p + u_next_offset;\n"
    "#endif\n"
    "  v_next = (u_next_clip * vec4(later, 1.0)).xyw;\n"
    "#endif\n"
    "#endif\n"
    "}\n";

#define LABEL_OUT                                                                                  \
  "layout(location = 0) out vec4 o_colour;\n"                                                      \
  "#ifdef LABELS\n"                                                                                \
  "#ifdef FLOW\n"                                                                                  \
  "layout(location = 1) out uvec4 o_label;\n"                                                      \
  "uniform vec4 u_pixel;\n" /* gl_FragCoord to pixels: scale, -, offset */                         \
  "in vec3 v_next;\n"                                                                              \
  "uvec2 flow() {\n"                                                                               \
  "  vec2 f = v_next.xy / v_next.z - (gl_FragCoord.xy * u_pixel.x + u_pixel.zw);\n"                \
  "  return v_next.z > 1e-4 ? floatBitsToUint(f) : uvec2(0x7fc00000u);\n"                          \
  "}\n"                                                                                            \
  "#else\n"                                                                                        \
  "layout(location = 1) out uvec2 o_label;\n"                                                      \
  "#endif\n"                                                                                       \
  "#endif\n"

const char dj__shader_scene_fragment[] =
    "uniform sampler2DArray u_tex;\n"
    "uniform vec3 u_window;\n" // light of lit windows
    "in vec3 v_ambient, v_direct, v_air; in vec2 v_uv;\n"
    "flat in vec2 v_look;\n"
    "#ifdef SHADOW\n"
    "uniform sampler2DShadow u_shadow;\n"
    "in vec3 v_shadow;\n"
    "#endif\n"
    "#ifdef NIGHT\n"
    "uniform float u_beam;\n"
    "in vec3 v_head, v_tint; in float v_through;\n"
    "#endif\n"
    "#ifdef LABELS\n"
    "flat in uint v_label;\n"
    "#endif\n" LABEL_OUT "void main() {\n"
    "  vec4 t = texture(u_tex, vec3(v_uv, v_look.x));\n"
    "#ifdef HOLES\n"
    "  if (t.a < 0.5) discard;\n"
    "#endif\n"
    "  vec3 c = t.rgb * t.rgb;\n"
    "  vec3 light = v_ambient;\n"
    "#ifdef SHADOW\n"
    "  light += v_direct * texture(u_shadow, v_shadow);\n"
    "#else\n"
    "  light += v_direct;\n"
    "#endif\n"
    "#ifdef NIGHT\n"
    "  if (v_head.x > 0.5) {\n"
    "    vec2 a = v_head.yz / v_head.x;\n"
    "    float high = max(a.y + 0.012, 0.0);\n" // the cut-off
    "    float low = a.y + 0.06;\n"
    "    float e = exp2(-7.0 * a.x * a.x - 900.0 * high * high - 14.0 * low * low);\n"
    "    light += v_tint * u_beam * e / (1.0 + 0.004 * v_head.x * v_head.x) * vec3(1.0, 0.95, "
    "0.85)\n"
    "      * min(1.0, v_head.x * 0.25);\n"
    "  }\n"
    "#endif\n"
    "  c *= light;\n"
    "#if defined NIGHT && !defined HOLES\n"
    "  c += u_window * (t.a * v_look.y * v_through);\n"
    "#endif\n"
    "  o_colour = vec4(sqrt(c + v_air), 1.0);\n"
    "#ifdef LABELS\n"
    "#ifdef FLOW\n"
    "  o_label = uvec4(floatBitsToUint(1.0 / gl_FragCoord.w), v_label, flow());\n"
    "#else\n"
    "  o_label = uvec2(floatBitsToUint(1.0 / gl_FragCoord.w), v_label);\n"
    "#endif\n"
    "#endif\n"
    "}\n";

/* A dome at infinity: a gradient with the sun's glow, clouds on a plane above. */
const char dj__shader_sky_vertex[] = COMMON
    "in vec3 a_p;\n"
    "uniform vec3 u_glow;\n"
    "uniform vec4 u_cloud;\n" // threshold, softness, drift
    "out vec3 v_sky; out vec2 v_uv; out float v_clear; out vec3 v_lit;\n"
    "uniform vec3 u_cloud_colour;\n"
    "uniform float u_haze;\n"
    "#ifdef FLOW\n"
    "out vec3 v_next;\n"
    "#endif\n"
    "void main() {\n"
    "  vec4 c = u_clip * vec4(a_p, 0.0);\n"
    "  gl_Position = vec4(c.xy, c.w * 0.999999, c.w);\n"
    "  float up = max(a_p.z, 0.0);\n"
    "  float toward = max(dot(a_p, u_sun), 0.0);\n"
    "  float t2 = toward * toward, t8 = t2 * t2 * t2 * t2, t64 = t8 * t8 * t8 * t8 * t8 * t8 * t8 "
    "* "
    "t8;\n"
    "  vec3 glow = u_glow * (0.35 * t2 * toward * (1.0 - up) + 0.5 * t8 + 1.6 * t64 * t64 * t64);\n"
    "  v_sky = mix(u_fog, u_zenith, pow(up, 0.45) * (1.0 - u_haze)) + glow * (1.0 - u_haze);\n"
    "  v_clear = smoothstep(0.02, 0.22, a_p.z) * (1.0 - u_haze);\n"
    "  v_lit = u_cloud_colour + glow * 0.8;\n"
    "  v_uv = a_p.xy / (a_p.z + 0.18) * 0.32 + u_cloud.zw;\n"
    "#ifdef FLOW\n"
    "  v_next = (u_next_clip * vec4(a_p, 0.0)).xyw;\n"
    "#endif\n"
    "}\n";

const char dj__shader_sky_fragment[] =
    "uniform sampler2DArray u_tex;\n"
    "uniform vec4 u_cloud;\n"
    "in vec3 v_sky; in vec2 v_uv; in float v_clear; in vec3 v_lit;\n" LABEL_OUT "void main() {\n"
    "  vec4 t = texture(u_tex, vec3(v_uv, 25.0));\n" // DJ__TEX_CLOUDS
    "  float a = clamp((t.a - u_cloud.x) * u_cloud.y, 0.0, 1.0) * v_clear;\n"
    "  o_colour = vec4(sqrt(mix(v_sky, v_lit * (t.r * t.r), a)), 1.0);\n"
    "#ifdef LABELS\n"
    "#ifdef FLOW\n"
    "  o_label = uvec4(0x7f800000u, 0u, flow());\n"
    "#else\n"
    "  o_label = uvec2(0x7f800000u, 0u);\n"
    "#endif\n"
    "#endif\n"
    "}\n";

/* The shadow map's depth alone. */
const char dj__shader_depth_vertex[] = "in vec3 a_p; in vec2 a_uv; in vec4 a_m;\n"
                                       "uniform mat4 u_clip; uniform vec3 u_offset;\n"
                                       "out vec3 v_uv;\n"
                                       "void main() {\n"
                                       "  gl_Position = u_clip * vec4(a_p + u_offset, 1.0);\n"
                                       "  v_uv = vec3(a_uv, a_m.x);\n"
                                       "}\n";
const char dj__shader_depth_fragment[] = "uniform sampler2DArray u_tex;\n"
                                         "in vec3 v_uv;\n"
                                         "layout(location = 0) out vec4 o_colour;\n"
                                         "void main() {\n"
                                         "#ifdef HOLES\n"
                                         "  if (texture(u_tex, v_uv).a < 0.5) discard;\n"
                                         "#endif\n"
                                         "  o_colour = vec4(1.0);\n"
                                         "}\n";

/* Soft quads over the picture: glows, blots of shadow, rain. uv: 0 in the middle, 1 at the rim. */
const char dj__shader_glow_vertex[] =
    "in vec3 a_p; in vec4 a_c; in vec2 a_uv;\n"
    "uniform mat4 u_clip;\n"
    "out vec4 v_c; out vec2 v_at;\n"
    "void main() { gl_Position = u_clip * vec4(a_p, 1.0); v_c = a_c; v_at = a_uv; }\n";
const char dj__shader_glow_fragment[] = "in vec4 v_c; in vec2 v_at;\n"
                                        "layout(location = 0) out vec4 o_colour;\n"
                                        "void main() {\n"
                                        "  float a = max(0.0, 1.0 - dot(v_at, v_at));\n"
                                        "  o_colour = vec4(v_c.rgb, v_c.a * a * a);\n"
                                        "}\n";
