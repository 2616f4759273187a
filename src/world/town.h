/*
 * How towns are made. A layout (town_grid.c, town_country.c, ...) draws a plane graph: nodes, and
 * streets with a profile and points on their way between them. town.c tidies the graph (no dead
 * ends, no sharp corners, nothing too close), gives it heights, and turns streets into roads
 * (town_road.c) and nodes into junctions and roundabouts (town_junction.c), as OpenDRIVE has them.
 * Right-hand traffic.
 */
#ifndef DOJO_WORLD_TOWN_H
#define DOJO_WORLD_TOWN_H

#include "base/rng.h"
#include "world/map_build.h"

enum { TOWN_VIA = 40, TOWN_ARMS = 6, TOWN_LANES = 4 };
#define KMH (1 / 3.6)

typedef struct dj__street { /* how a street looks across */
  int lanes[2];             /* driving lanes along it (its right side) and against it */
  double lane, bike, parking, sidewalk, shoulder, median; /* widths, m; 0: none */
  dj__zone zone;
  double speed, radius; /* m/s; of bends, m */
  int rank;      /* 0 local, 1 collector, 2 arterial, 3 main road; of two, the higher goes first */
  bool unmarked; /* no line in the middle */
} dj__street;

typedef enum dj__node_kind {
  NODE_PLAIN,
  NODE_ROUNDABOUT,
  NODE_PORT /* one street ends here, exactly; a port goes on from it */
} dj__node_kind;

typedef struct dj__node {
  double x, y, z;
  dj__node_kind kind;
  bool gone, fixed; /* fixed: never dissolved into a bend */
  int junction;     /* made of it, or -1 */
  double ring;      /* radius of a roundabout, m */
} dj__node;

typedef struct dj__edge { /* a street from a to b */
  int a, b;
  dj__street street;
  double via[TOWN_VIA][2];
  int n_via;
  bool gone, keep; /* keep: not taken away to thin out the network */
  bool pocket;     /* an approach to b with a lane for turning left */
  double cut[2];   /* m from the nodes at which the road begins and ends */
  double angle[2]; /* in which it leaves a and b */
  int road;
} dj__edge;

/* A junction whose streets' ends lie where they lie, and whose moves are given. */
enum { PORT_ARMS = 4, PORT_MOVES = 12 };
typedef struct dj__port_arm {
  int edge;
  bool at_end;
} dj__port_arm;
typedef struct dj__port {
  dj__port_arm arm[PORT_ARMS];
  int n_arm, n_move;
  int move[PORT_MOVES][4]; /* arm, lane from the kerb, to arm, to lane */
} dj__port;

typedef struct dj__town {
  dj__build b;
  dj__rng rng;
  uint64_t seed;
  double hills;  /* m of height */
  double rough;  /* wave length of hills, m */
  bool yellow;   /* lines between directions */
  double lights; /* share of large crossings with lights */
  dj__node *node;
  dj__edge *edge;
  dj__port *port;
  int n_node, n_edge, n_port, cap_node, cap_edge, cap_port;
  bool failed, tight; /* tight: a bend is too sharp for its street's width */
} dj__town;

/* ---- layouts ---- */
/* A patch of streets around (x, y), turned by up to `turn` rad. */
void dj__town_grid(dj__town *t, double x, double y, double size, double turn);
void dj__town_organic(dj__town *t, double x, double y, double size);
void dj__town_rural(dj__town *t, double size);
void dj__town_motorway(dj__town *t, double size);
void dj__town_mixed(dj__town *t, double size);
dj_status dj__town_track(dj__town *t, double size);

/* ---- the graph (town.c) ---- */
int dj__town_node(dj__town *t, double x, double y);
int dj__town_edge(dj__town *t, int a, int b, const dj__street *s);
void dj__town_via(dj__town *t, int edge, double x, double y);
dj__port *dj__town_port(dj__town *t, int n_arm); /* never NULL */
void dj__port_move(dj__port *p, int arm, int lane, int to, int to_lane);
double dj__town_uniform(dj__town *t, double lo, double hi);
bool dj__town_chance(dj__town *t, double p);
int dj__town_degree(const dj__town *t, int node);
/* Half of the carriageway's width beside a street's line: on its right side (side 0) or left. */
double dj__town_ground(const dj__town *t, double x, double y); /* height of hills (town_road.c) */
double dj__street_half(const dj__street *s, int side);
dj__street dj__street_of(dj__town *t, int rank, dj__zone zone);

void dj__town_cuts(dj__town *t, int node); /* where its streets' roads begin */
void dj__town_pockets(dj__town *t);        /* town_pocket.c; after the graph is tidy */

/* ---- roads (town_road.c) ---- */
void dj__town_road(dj__town *t, int edge);
/* A lane that is being put into the last section: width a to c over `length` m (smooth, flat at
 * both ends). */
dj__road_lane *dj__push_lane(dj__build *b, int id, dj__lane_type type, double w0, double w1,
                             double length, dj__mark_type mark, bool yellow);
dj__section *dj__push_section(dj__build *b, double s);
dj__road *dj__push_road(dj__build *b, const char *prefix);

/* ---- junctions (town_junction.c, town_signals.c) ---- */
typedef struct dj__arm { /* one road at a junction */
  int road, edge;        /* edge -1: a piece of a ring */
  bool at_end;           /* the road's end lies here; otherwise its start */
  double x, y, z, angle; /* of the road's end; angle away from the junction */
  int rank;
  dj__zone zone;
  int n_in, n_out;
  int in[TOWN_LANES], out[TOWN_LANES]; /* lane ids from the kerb inwards */
  int left_only;                       /* innermost lane turns left only */
  double half_in, half_out;            /* carriageway beside the line, m */
  double sidewalk;
} dj__arm;
void dj__town_junction(dj__town *t, int node);
void dj__town_roundabout(dj__town *t, int node);
/* Connections of a junction, given its arms counter-clockwise. Makes the roads in it. */
void dj__town_connect(dj__town *t, int junction, dj__arm *arm, int n, bool ring);
void dj__town_port_junction(dj__town *t, const dj__port *p);
void dj__town_control(dj__town *t, int junction, dj__arm *arm, int n);
void dj__town_zebra(dj__town *t, int edge); /* some streets have one half way */
dj__signal *dj__push_signal(dj__build *b, const dj__arm *a, dj__signal_kind kind, double before,
                            double z);
/* Fills an arm from its road. */
void dj__arm_of(dj__town *t, int road, bool at_end, int edge, dj__arm *a);
/* Arms of a node counter-clockwise; their number. */
int dj__town_arms(const dj__town *t, int node, int edge[TOWN_ARMS], bool at_end[TOWN_ARMS],
                  double angle[TOWN_ARMS]);

#endif
