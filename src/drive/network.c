/* The registry of networks, and the layers they share. */
#include "drive/network.h"

#include <math.h>
#include <string.h>

#include "dojo/drive.h"

enum { N_NETWORKS = 3 };
static const dj__network *const networks[N_NETWORKS] = {&dj__net_dojo4d, &dj__net_pilotnet,
                                                        &dj__net_resnet18};

const char *dj_network_name(int i) {
  return i >= 0 && i < N_NETWORKS ? networks[i]->name : NULL;
}

const dj__network *dj__network_find(const dj_recipe *r) {
  for (int i = 0; i < N_NETWORKS; i++)
    if (!strcmp(networks[i]->name, r->network.name)) return networks[i];
  dj_error(DJ_E_NOT_FOUND, "%s:%d: no network '%s'; there are dojo4d, pilotnet and resnet18",
           r->file, dj_recipe_line(r, "network.name"), r->network.name);
  return NULL;
}

dj_val dj__layer_conv(dj_graph *g, const char *name, dj_val x, int out, int kernel, int stride,
                      bool relu, float gain) {
  dj_shape s = dj_val_shape(g, x);
  int64_t c = s.dim[3], fan_in = c * kernel * kernel;
  dj_graph_push(g, "%s", name);
  dj_init init = dj_init_he(fan_in);
  init.a *= gain;
  dj_val w = dj_param(g, "weight", DJ_SHAPE(out, kernel, kernel, c), init); // (O, KH, KW, C)
  dj_val b = dj_param(g, "bias", DJ_SHAPE(out), dj_init_const(0));
  dj_conv2d_args a = dj_conv2d_same(kernel, stride);
  dj_val y = dj_conv2d(g, x, w, b, &a);
  dj_graph_pop(g);
  return relu ? dj_relu(g, y) : y;
}

int dj__net_controls(const dj_recipe *r) {
  return r->loss.brake > 0 ? 3 : 2;
}

void dj__net_control_head(dj_graph *g, const dj_recipe *r, const char *label, dj_val x, int b,
                          dj__net_out *out) {
  int n = dj__net_controls(r);
  x = dj__layer_linear(g, label, x, 2 * n, 0.5f);
  x = dj_reshape(g, x, DJ_SHAPE(b, out->t, 2 * n));
  out->control = dj_slice(g, x, 2, 0, n);
  out->control_lb = dj_clamp(g, dj_slice(g, x, 2, n, n), -6, 3);
}

dj_val dj__layer_linear(dj_graph *g, const char *name, dj_val x, int out, float gain) {
  dj_shape s = dj_val_shape(g, x);
  int64_t in = s.rank ? s.dim[s.rank - 1] : 1;
  dj_graph_push(g, "%s", name);
  dj_val w = dj_param(g, "weight", DJ_SHAPE(out, in), dj_init_normal(gain / sqrtf((float)in)));
  dj_val b = dj_param(g, "bias", DJ_SHAPE(out), dj_init_const(0));
  dj_val y = dj_linear(g, x, w, b);
  dj_graph_pop(g);
  return y;
}
