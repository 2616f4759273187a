/*
 * A self-contained HTML page, put together in memory: no file beside it, no script, nothing
 * fetched. Out of memory is sticky in the buffer.
 */
#ifndef DOJO_CLI_REPORT_PAGE_H
#define DOJO_CLI_REPORT_PAGE_H

#include "base/buf.h"
#include "dojo/status.h"

void dj__page_begin(dj__buf *b, const char *title);
void dj__page_end(dj__buf *b);
void dj__page_text(dj__buf *b, const char *html);    /* as it is */
void dj__page_escaped(dj__buf *b, const char *text); /* as text */
void dj__page_put(dj__buf *b, const char *fmt, ...)  /* html, shorter than 4 KiB */
    __attribute__((format(printf, 2, 3)));

/* "image/png", ... of a picture or video by its name; NULL for other files. */
const char *dj__page_media_type(const char *path);
/* A picture or video inside the page. Errors: those of reading; DJ_E_LIMIT over 64 MiB. */
dj_status dj__page_media(dj__buf *b, const char *path, const char *caption);

typedef struct dj__curve {
  char *name;
  double *x, *y; /* (n) steps, values */
  size_t n, cap;
} dj__curve;
void dj__page_curve(dj__buf *b, const dj__curve *c);

#endif
