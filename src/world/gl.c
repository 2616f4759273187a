/*
 * EGL and OpenGL ES 3. The first EGL device that works is taken (GPUs come before Mesa's software
 * device), else Mesa's surfaceless platform (it needs no display server and no device file), else
 * the default display. The
 * context has no surface where the driver allows it, else a pbuffer of one pixel: everything is
 * drawn into framebuffer objects.
 *
 * A display is opened once a process and never closed, since eglTerminate would take the contexts
 * of other renderers with it. Mesa's software driver draws one picture at a time on a display, so
 * where it draws there are two, of two platforms, and renderers take them by turns: two threads
 * draw half as much again.
 */
#include "world/gl.h"

#include <EGL/eglext.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define INSTALL                                                                                    \
  "install a driver: on Debian and Ubuntu `apt-get install libegl1 libgles2 libegl-mesa0 "         \
  "libgl1-mesa-dri` (Mesa draws on the processor where there is no GPU)"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
  EGLDisplay display;
  int contexts;
} displays[2]; // of the process
static int n_display;

static bool initialize(EGLDisplay d) {
  EGLint major = 0, minor = 0;
  return d != EGL_NO_DISPLAY && eglInitialize(d, &major, &minor) &&
         (major > 1 || (major == 1 && minor >= 4));
}

static EGLDisplay device_display(PFNEGLGETPLATFORMDISPLAYEXTPROC platform) {
  PFNEGLQUERYDEVICESEXTPROC query =
      (PFNEGLQUERYDEVICESEXTPROC)(void *)eglGetProcAddress("eglQueryDevicesEXT");
  EGLDeviceEXT device[16];
  EGLint n = 0;
  if (!query || !query(16, device, &n)) return EGL_NO_DISPLAY;
  for (EGLint i = 0; i < n; i++) {
    EGLDisplay d = platform(EGL_PLATFORM_DEVICE_EXT, device[i], NULL);
    if (initialize(d)) return d;
  }
  return EGL_NO_DISPLAY;
}

static EGLDisplay surfaceless_display(PFNEGLGETPLATFORMDISPLAYEXTPROC platform) {
  EGLDisplay d = platform(EGL_PLATFORM_SURFACELESS_MESA, (void *)EGL_DEFAULT_DISPLAY, NULL);
  return initialize(d) ? d : EGL_NO_DISPLAY;
}

/* Whether Mesa says that d draws on the processor. */
static bool is_software(EGLDisplay d) {
  PFNEGLQUERYDISPLAYATTRIBEXTPROC attribute =
      (PFNEGLQUERYDISPLAYATTRIBEXTPROC)(void *)eglGetProcAddress("eglQueryDisplayAttribEXT");
  PFNEGLQUERYDEVICESTRINGEXTPROC text =
      (PFNEGLQUERYDEVICESTRINGEXTPROC)(void *)eglGetProcAddress("eglQueryDeviceStringEXT");
  EGLAttrib device = 0;
  if (!attribute || !text || !attribute(d, EGL_DEVICE_EXT, &device)) return false;
  const char *ext = text((EGLDeviceEXT)device, EGL_EXTENSIONS); // NOLINT(performance-no-int-to-ptr)
  return ext && strstr(ext, "EGL_MESA_device_software");
}

static void add_display(EGLDisplay d) {
  if (d != EGL_NO_DISPLAY) displays[n_display++].display = d;
}

static void find_displays(void) {
  const char *ext = eglQueryString(EGL_NO_DISPLAY, EGL_EXTENSIONS);
  PFNEGLGETPLATFORMDISPLAYEXTPROC platform =
      (PFNEGLGETPLATFORMDISPLAYEXTPROC)(void *)eglGetProcAddress("eglGetPlatformDisplayEXT");
  const bool surfaceless = platform && ext && strstr(ext, "EGL_MESA_platform_surfaceless");
  if (platform && ext && strstr(ext, "EGL_EXT_platform_device"))
    add_display(device_display(platform)); // lists GPUs before Mesa's software device
  if (surfaceless && (!n_display || is_software(displays[0].display))) {
    EGLDisplay d = surfaceless_display(platform);
    if (!n_display || is_software(d)) add_display(d);
  }
  if (!n_display) {
    EGLDisplay d = eglGetDisplay(EGL_DEFAULT_DISPLAY);
    if (initialize(d)) add_display(d);
  }
}

/* The display with the fewest contexts, for one more. */
static EGLDisplay take_display(void) {
  (void)pthread_mutex_lock(&lock);
  if (!n_display) find_displays();
  const int k = n_display > 1 && displays[1].contexts < displays[0].contexts;
  EGLDisplay d = n_display ? displays[k].display : EGL_NO_DISPLAY;
  if (n_display) displays[k].contexts++;
  (void)pthread_mutex_unlock(&lock);
  return d;
}

static void leave_display(EGLDisplay d) {
  (void)pthread_mutex_lock(&lock);
  for (int k = 0; k < n_display; k++)
    if (displays[k].display == d) displays[k].contexts--;
  (void)pthread_mutex_unlock(&lock);
}

static dj_status make_context(dj__gl *g) {
  const EGLint wanted[] = {EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE,
                           EGL_OPENGL_ES3_BIT, EGL_NONE};
  const EGLint any[] = {EGL_SURFACE_TYPE, 0, EGL_RENDERABLE_TYPE, EGL_OPENGL_ES3_BIT, EGL_NONE};
  EGLConfig config = NULL;
  EGLint n = 0;
  if (!eglBindAPI(EGL_OPENGL_ES_API) ||
      ((!eglChooseConfig(g->display, wanted, &config, 1, &n) || n < 1) &&
       (!eglChooseConfig(g->display, any, &config, 1, &n) || n < 1)))
    return dj_error(DJ_E_UNSUPPORTED, "cameras: EGL offers no OpenGL ES 3; " INSTALL);
  const EGLint attributes[] = {EGL_CONTEXT_MAJOR_VERSION, 3, EGL_NONE};
  g->context = eglCreateContext(g->display, config, EGL_NO_CONTEXT, attributes);
  if (g->context == EGL_NO_CONTEXT)
    return dj_error(DJ_E_UNSUPPORTED,
                    "cameras: no OpenGL ES 3 context can be made (EGL error 0x%04x); " INSTALL,
                    (unsigned)eglGetError());
  const char *ext = eglQueryString(g->display, EGL_EXTENSIONS);
  if (ext && strstr(ext, "EGL_KHR_surfaceless_context")) return DJ_OK;
  const EGLint one[] = {EGL_WIDTH, 1, EGL_HEIGHT, 1, EGL_NONE};
  g->surface = eglCreatePbufferSurface(g->display, config, one);
  if (g->surface == EGL_NO_SURFACE)
    return dj_error(DJ_E_UNSUPPORTED, "cameras: EGL makes no pbuffer (error 0x%04x)",
                    (unsigned)eglGetError());
  return DJ_OK;
}

dj_status dj__gl_open(dj__gl *g) {
  *g = (dj__gl){.display = take_display(), .context = EGL_NO_CONTEXT, .surface = EGL_NO_SURFACE};
  if (g->display == EGL_NO_DISPLAY)
    return dj_error(DJ_E_UNSUPPORTED, "cameras: EGL finds nothing to draw with; " INSTALL);
  dj_status s = make_context(g);
  if (!s) s = dj__gl_use(g);
  if (s) {
    dj__gl_close(g);
    return s;
  }
  const char *name = (const char *)glGetString(GL_RENDERER);
  (void)snprintf(g->name, sizeof g->name, "%s", name ? name : "unknown");
  g->software = strstr(g->name, "llvmpipe") || strstr(g->name, "softpipe");
  return DJ_OK;
}

void dj__gl_close(dj__gl *g) {
  if (g->context != EGL_NO_CONTEXT) {
    if (eglGetCurrentContext() == g->context)
      (void)eglMakeCurrent(g->display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    (void)eglDestroyContext(g->display, g->context);
  }
  if (g->surface != EGL_NO_SURFACE) (void)eglDestroySurface(g->display, g->surface);
  if (g->display != EGL_NO_DISPLAY) leave_display(g->display);
  *g = (dj__gl){.context = EGL_NO_CONTEXT, .surface = EGL_NO_SURFACE};
}

dj_status dj__gl_use(const dj__gl *g) {
  if (eglGetCurrentContext() == g->context) return DJ_OK;
  if (eglMakeCurrent(g->display, g->surface, g->surface, g->context)) return DJ_OK;
  return dj_error(DJ_E_UNSUPPORTED,
                  "cameras: the context cannot be made current in this thread (EGL error 0x%04x); "
                  "a renderer belongs to the thread that made it",
                  (unsigned)eglGetError());
}

static dj_status compile(const char *name, GLenum kind, const char *defines, const char *text,
                         GLuint *shader) {
  const char *source[] = {"#version 300 es\nprecision highp float;\nprecision highp int;\n"
                          "precision highp sampler2DArray;\nprecision highp sampler2DShadow;\n",
                          defines ? defines : "", "#line 1\n", text};
  *shader = glCreateShader(kind);
  glShaderSource(*shader, 4, source, NULL);
  glCompileShader(*shader);
  GLint ok = 0;
  glGetShaderiv(*shader, GL_COMPILE_STATUS, &ok);
  if (ok) return DJ_OK;
  char log[512] = "";
  glGetShaderInfoLog(*shader, sizeof log, NULL, log);
  return dj_error(DJ_E_UNSUPPORTED, "cameras: the %s shader '%s' does not compile: %s",
                  kind == GL_VERTEX_SHADER ? "vertex" : "fragment", name, log);
}

dj_status dj__gl_program(const char *name, const char *defines, const char *vertex,
                         const char *fragment, const char *const *attributes, GLuint *program) {
  GLuint v = 0, f = 0;
  dj_status s = compile(name, GL_VERTEX_SHADER, defines, vertex, &v);
  if (!s) s = compile(name, GL_FRAGMENT_SHADER, defines, fragment, &f);
  GLuint p = s ? 0 : glCreateProgram();
  if (!s) {
    glAttachShader(p, v);
    glAttachShader(p, f);
    for (GLuint i = 0; attributes[i]; i++) glBindAttribLocation(p, i, attributes[i]);
    glLinkProgram(p);
    GLint ok = 0;
    glGetProgramiv(p, GL_LINK_STATUS, &ok);
    if (!ok) {
      char log[512] = "";
      glGetProgramInfoLog(p, sizeof log, NULL, log);
      s = dj_error(DJ_E_UNSUPPORTED, "cameras: the shaders '%s' do not link: %s", name, log);
    }
  }
  if (v) glDeleteShader(v);
  if (f) glDeleteShader(f);
  if (s && p) glDeleteProgram(p);
  *program = s ? 0 : p;
  return s;
}

dj_status dj__gl_check(const char *what) {
  GLenum e = glGetError();
  if (e == GL_NO_ERROR) return DJ_OK;
  while (glGetError() != GL_NO_ERROR) {
  }
  if (e == GL_OUT_OF_MEMORY) return dj_error(DJ_E_NOMEM, "cameras: %s: no graphics memory", what);
  return dj_error(DJ_E_UNSUPPORTED, "cameras: %s: GL error 0x%04x", what, (unsigned)e);
}
