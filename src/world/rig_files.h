/* The preset rigs: the files in rigs/, put into the library when it is built. */
#ifndef DOJO_WORLD_RIG_FILES_H
#define DOJO_WORLD_RIG_FILES_H

typedef struct dj__embedded_text {
  const char *name, *text; /* file name without its ending */
} dj__embedded_text;
extern const dj__embedded_text dj__rig_files[];
extern const int dj__rig_files_n;

#endif
