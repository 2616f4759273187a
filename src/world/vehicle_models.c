/*
 * Vehicles that the ego may be. Every figure has a source:
 *   [F1] F1TENTH gym's identified 1:10 car (O'Kelly et al., "F1TENTH: an open-source evaluation
 *        environment for continuous control and reinforcement learning", 2020)
 *   [CR] Althoff, Wuersching, "CommonRoad: vehicle models", 2020, tables 6 to 8: Ford Escort (1),
 *        VW Vanagon (3); stiffness 21.92 per unit of axle load (its tyre's p_ky1), after NHTSA's
 *        measurements; less in front, where the steering's compliance makes production cars
 *        understeer by 1 to 3 degrees a g (Gillespie, "Fundamentals of vehicle dynamics", 1992)
 *   [RJ] Rajamani, "Vehicle dynamics and control", 2nd ed. 2012, section 2: a passenger sedan
 *   [FF] Fancher et al., "A factbook of the mechanical properties of the components for single-unit
 *        and articulated heavy trucks", UMTRI-86-12, 1986: two-axle truck, cornering coefficients
 * Drag is 0.5 rho c_d A with rho = 1.2 kg/m^3; rolling resistance after Wong, "Theory of ground
 * vehicles", 4th ed. 2008, section 1.2: 0.012 to 0.015 for cars, 0.006 to 0.01 for lorries. Delays
 * and rates are of the order that drive-by-wire cars show (Rajamani; 0.1 s steering, 0.2 s brakes).
 */
#include <string.h>

#include "world/world.h"

const dj__vehicle_model dj__vehicle_models[] = {
    {/* [F1]; the motor held to what an indoor track allows */
     .name = "rc-car",
     .kind = DJ__RC_CAR,
     .length = 0.58,
     .width = 0.31,
     .height = 0.17,
     .wheelbase = 0.3302,
     .front = 0.125,
     .mass = 3.74,
     .yaw_inertia = 0.04712,
     .cg_front = 0.15875,
     .cg_height = 0.074,
     .cornering_front = 4.718 * 3.74 * 9.81 * 0.17145 / 0.3302,
     .cornering_rear = 5.4562 * 3.74 * 9.81 * 0.15875 / 0.3302,
     .max_steer = 0.4189,
     .steer_rate = 3.2,
     .steer_delay = 0.05,
     .max_accel = 4.0,
     .max_brake = 6.0,
     .max_power = 120,
     .pedal_delay = 0.05,
     .pedal_rate = 5,
     .drag = 0.5 * 1.2 * 0.6 * 0.05,
     .rolling = 0.02,
     .max_speed = 8},
    {/* [CR] vehicle 1 */
     .name = "city-car",
     .kind = DJ__CAR,
     .length = 4.298,
     .width = 1.674,
     .height = 1.40,
     .wheelbase = 2.39268,
     .front = 0.84,
     .mass = 1225.9,
     .yaw_inertia = 1538.9,
     .cg_front = 0.88392,
     .cg_height = 0.5578,
     .cornering_front = 18.5 * 1225.9 * 9.81 * 1.50876 / 2.39268,
     .cornering_rear = 21.92 * 1225.9 * 9.81 * 0.88392 / 2.39268,
     .max_steer = 0.60,
     .steer_rate = 0.4,
     .steer_delay = 0.10,
     .max_accel = 2.8,
     .max_brake = 9.0,
     .max_power = 55e3,
     .pedal_delay = 0.15,
     .pedal_rate = 4,
     .drag = 0.5 * 1.2 * 0.36 * 1.9,
     .rolling = 0.013,
     .max_speed = 43},
    {/* [RJ] */
     .name = "car",
     .kind = DJ__CAR,
     .length = 4.70,
     .width = 1.82,
     .height = 1.46,
     .wheelbase = 2.68,
     .front = 0.93,
     .mass = 1573,
     .yaw_inertia = 2873,
     .cg_front = 1.10,
     .cg_height = 0.55,
     .cornering_front = 2 * 80000.0,
     .cornering_rear = 2 * 80000.0,
     .max_steer = 0.60,
     .steer_rate = 0.45,
     .steer_delay = 0.10,
     .max_accel = 3.5,
     .max_brake = 9.5,
     .max_power = 110e3,
     .pedal_delay = 0.15,
     .pedal_rate = 4,
     .drag = 0.5 * 1.2 * 0.29 * 2.2,
     .rolling = 0.012,
     .max_speed = 55},
    {/* [CR] vehicle 3, with the size and the load of a delivery van */
     .name = "van",
     .kind = DJ__VAN,
     .length = 4.90,
     .width = 1.90,
     .height = 1.97,
     .wheelbase = 2.4719,
     .front = 1.10,
     .mass = 1900,
     .yaw_inertia = 2473.1 * 1900 / 1478.9,
     .cg_front = 1.1508,
     .cg_height = 0.7478,
     .cornering_front = 16.0 * 1900 * 9.81 * 1.3211 / 2.4719,
     .cornering_rear = 17.0 * 1900 * 9.81 * 1.1508 / 2.4719,
     .max_steer = 0.58,
     .steer_rate = 0.40,
     .steer_delay = 0.12,
     .max_accel = 2.5,
     .max_brake = 8.5,
     .max_power = 80e3,
     .pedal_delay = 0.18,
     .pedal_rate = 3.5,
     .drag = 0.5 * 1.2 * 0.36 * 3.4,
     .rolling = 0.013,
     .max_speed = 42},
    {/* [FF]: 12 t on two axles, a third of it in front */
     .name = "lorry",
     .kind = DJ__LORRY,
     .length = 8.20,
     .width = 2.50,
     .height = 3.30,
     .wheelbase = 4.50,
     .front = 1.40,
     .mass = 12000,
     .yaw_inertia = 12000 * 2.90 * 1.60 * 1.1, /* dynamic index somewhat over one */
     .cg_front = 2.90,
     .cg_height = 1.30,
     .cornering_front = 6.0 * 12000 * 9.81 * 1.60 / 4.50,
     .cornering_rear = 7.4 * 12000 * 9.81 * 2.90 / 4.50,
     .max_steer = 0.70,
     .steer_rate = 0.35,
     .steer_delay = 0.15,
     .max_accel = 1.2,
     .max_brake = 6.5,
     .max_power = 180e3,
     .pedal_delay = 0.30,
     .pedal_rate = 2.5,
     .drag = 0.5 * 1.2 * 0.65 * 8.0,
     .rolling = 0.008,
     .max_speed = 25},
};
const int dj__n_vehicle_models = (int)(sizeof dj__vehicle_models / sizeof *dj__vehicle_models);

const dj__vehicle_model *dj__vehicle_find(const char *name) {
  for (int i = 0; i < dj__n_vehicle_models; i++)
    if (!strcmp(dj__vehicle_models[i].name, name)) return &dj__vehicle_models[i];
  return NULL;
}
