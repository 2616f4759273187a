/* From a body's axes to the world's. */
#ifndef DOJO_WORLD_ATTITUDE_H
#define DOJO_WORLD_ATTITUDE_H

#include <math.h>
#include <string.h>

/* R (3, 3) by rows: body to world for angles in rad: yaw, then pitch (nose down positive), then
 * roll, as ISO 8855 has it. */
static inline void dj__attitude(double yaw, double pitch, double roll, double R[9]) {
  const double cy = cos(yaw), sy = sin(yaw), cp = cos(pitch), sp = sin(pitch), cr = cos(roll),
               sr = sin(roll);
  const double m[9] = {cy * cp,
                       cy * sp * sr - sy * cr,
                       cy * sp * cr + sy * sr,
                       sy * cp,
                       sy * sp * sr + cy * cr,
                       sy * sp * cr - cy * sr,
                       -sp,
                       cp * sr,
                       cp * cr};
  memcpy(R, m, sizeof m);
}

#endif
