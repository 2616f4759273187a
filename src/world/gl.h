/* OpenGL ES 3 without a display: one context a renderer, shaders with errors that say where. */
#ifndef DOJO_WORLD_GL_H
#define DOJO_WORLD_GL_H

#include <EGL/egl.h>
#include <GLES3/gl3.h>
#include <stdbool.h>

#include "dojo/status.h"

typedef struct dj__gl {
  EGLDisplay display; /* of the process, never closed: other contexts may live on it */
  EGLContext context;
  EGLSurface surface; /* EGL_NO_SURFACE where a context needs none */
  bool software;      /* drawn by the processor: reading back early would wait */
  char name[128];     /* GL_RENDERER */
} dj__gl;

/* Makes a context and makes it current. Errors: DJ_E_UNSUPPORTED says what is missing. */
dj_status dj__gl_open(dj__gl *g);
void dj__gl_close(dj__gl *g);
/* Makes the context current in this thread if it is not. */
dj_status dj__gl_use(const dj__gl *g);

/* Compiles and links. `defines` goes behind the #version line of both sources. Attribute i is
 * bound to attributes[i] (NULL ends the list). Errors: DJ_E_UNSUPPORTED with the compiler's words.
 */
dj_status dj__gl_program(const char *name, const char *defines, const char *vertex,
                         const char *fragment, const char *const *attributes, GLuint *program);
/* DJ_E_UNSUPPORTED with `what` if GL has an error waiting. */
dj_status dj__gl_check(const char *what);

#endif
