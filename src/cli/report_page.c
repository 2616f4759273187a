/* Building blocks of a page: text, escaped; numbers; files in base64; curves as SVG. */
#include "cli/report_page.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/fs.h"

void dj__page_text(dj__buf *b, const char *text) {
  dj__buf_put(b, text, strlen(text));
}

void dj__page_put(dj__buf *b, const char *fmt, ...) {
  char text[4096];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (n < 0 || n >= (int)sizeof text)
    b->failed = true;
  else
    dj__buf_put(b, text, (size_t)n);
}

void dj__page_escaped(dj__buf *b, const char *text) {
  for (const char *p = text; *p; p++) switch (*p) {
    case '<':
      dj__page_text(b, "&lt;");
      break;
    case '>':
      dj__page_text(b, "&gt;");
      break;
    case '&':
      dj__page_text(b, "&amp;");
      break;
    case '"':
      dj__page_text(b, "&quot;");
      break;
    default:
      dj__buf_put(b, p, 1);
    }
}

static void base64(dj__buf *b, const unsigned char *d, size_t n) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < n; i += 3) {
    unsigned v = (unsigned)d[i] << 16 | (i + 1 < n ? (unsigned)d[i + 1] << 8 : 0) |
                 (i + 2 < n ? d[i + 2] : 0u);
    char four[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                    i + 2 < n ? digits[v & 63] : '='};
    dj__buf_put(b, four, 4);
  }
}

static bool ends_in(const char *name, const char *end) {
  size_t n = strlen(name), k = strlen(end);
  return n >= k && strcasecmp(name + n - k, end) == 0;
}

const char *dj__page_media_type(const char *path) {
  if (ends_in(path, ".png")) return "image/png";
  if (ends_in(path, ".jpg") || ends_in(path, ".jpeg")) return "image/jpeg";
  if (ends_in(path, ".mp4")) return "video/mp4";
  return NULL;
}

dj_status dj__page_media(dj__buf *b, const char *path, const char *caption) {
  enum { MOST = 64 << 20 }; // more makes a page that browsers cannot open
  const char *type = dj__page_media_type(path);
  const bool video = type && !strncmp(type, "video", 5);
  char *data;
  size_t size;
  dj_status s = dj__read_file(path, MOST, &data, &size);
  if (s) return s;
  dj__page_text(
      b, video ? "<figure><video controls loop muted playsinline preload=\"auto\" src=\"data:"
               : "<figure><img alt=\"\" src=\"data:");
  dj__page_text(b, type ? type : "application/octet-stream");
  dj__page_text(b, ";base64,");
  base64(b, (const unsigned char *)data, size);
  dj__page_text(b, video ? "\"></video><figcaption>" : "\"><figcaption>");
  dj__page_escaped(b, caption);
  dj__page_text(b, "</figcaption></figure>\n");
  free(data);
  return DJ_OK;
}

/* ---- curves ---- */
enum { W = 420, H = 200, LEFT = 66, RIGHT = 12, TOP = 26, BOTTOM = 26, MOST_POINTS = 400 };

static void range_of(const dj__curve *c, double *lo, double *hi) {
  *lo = INFINITY, *hi = -INFINITY;
  for (size_t i = 0; i < c->n; i++) {
    if (!isfinite(c->y[i])) continue;
    *lo = fmin(*lo, c->y[i]);
    *hi = fmax(*hi, c->y[i]);
  }
  if (!(*lo <= *hi)) *lo = 0, *hi = 1;
  if (*hi - *lo < 1e-12 * fmax(1, fabs(*hi))) *lo -= 0.5, *hi += 0.5;
}

void dj__page_curve(dj__buf *b, const dj__curve *c) {
  double lo, hi;
  range_of(c, &lo, &hi);
  const double last = c->n ? c->x[c->n - 1] : 1, span = last > 0 ? last : 1;
  dj__page_put(b,
               "<svg viewBox=\"0 0 %d %d\" class=\"curve\"><text x=\"%d\" y=\"16\" class=\"name\">",
               W, H, LEFT);
  dj__page_escaped(b, c->name);
  dj__page_text(b, "</text>\n");
  for (int k = 0; k <= 4; k++) {
    double v = lo + (hi - lo) * k / 4, y = H - BOTTOM - (double)(H - TOP - BOTTOM) * k / 4;
    dj__page_put(b,
                 "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" "
                 "class=\"tick\">%.3g</text>\n",
                 LEFT, W - RIGHT, y, y, LEFT - 6, y + 4, v);
  }
  dj__page_put(b, "<text x=\"%d\" y=\"%d\" class=\"tick\">step %.0f</text>\n<polyline points=\"",
               W - RIGHT, H - 8, last);
  const size_t step = c->n / MOST_POINTS + 1;
  for (size_t i = 0; i < c->n;
       i += step) { // the mean of neighbours, where there are more points than pixels
    double sum = 0;
    size_t k = 0;
    for (size_t j = i; j < i + step && j < c->n; j++)
      if (isfinite(c->y[j])) sum += c->y[j], k++;
    if (!k) continue;
    double x = LEFT + (W - LEFT - RIGHT) * c->x[i] / span;
    double y = H - BOTTOM - (H - TOP - BOTTOM) * (sum / (double)k - lo) / (hi - lo);
    dj__page_put(b, "%.1f,%.1f ", x, y);
  }
  dj__page_text(b, "\"/></svg>\n");
}

static const char STYLE[] =
    "body{font:16px/1.5 system-ui,sans-serif;margin:0 "
    "auto;max-width:1100px;padding:24px;color:#1c2530;"
    "background:#fbfbfa}h1{font-size:30px;margin:8px 0}h2{margin:36px 0 8px;font-size:21px}"
    "p.sub{color:#5b6775;margin:0 0 16px}table{border-collapse:collapse;width:100%;font-size:14px;"
    "font-variant-numeric:tabular-nums}th,td{padding:5px 8px;text-align:right;border-bottom:1px "
    "solid #e3e6e9}"
    "th{font-weight:600;color:#5b6775}td:first-child,th:first-child{text-align:left}"
    ".bar{display:inline-block;height:9px;background:#2f6fbb;border-radius:2px;vertical-align:"
    "middle;margin-right:6px}"
    ".ci{color:#8a94a0;font-size:12px}figure{margin:14px "
    "0}img,video{max-width:100%;border-radius:6px;"
    "border:1px solid #d9dde1}figcaption{color:#5b6775;font-size:14px}.grid{display:grid;"
    "grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:14px}.curve{width:100%;"
    "background:#fff;"
    "border:1px solid #e3e6e9;border-radius:6px}.curve line{stroke:#eceff1}.curve "
    "polyline{fill:none;"
    "stroke:#2f6fbb;stroke-width:1.6}.curve .tick{font-size:11px;fill:#8a94a0;text-anchor:end}"
    ".curve .name{font-size:13px;fill:#1c2530;font-weight:600}"
    "@media(prefers-color-scheme:dark){body{background:#14181d;color:#dde3e9}th,td{border-color:#"
    "2a3138}"
    ".curve{background:#1a2027;border-color:#2a3138}.curve line{stroke:#262d35}.curve "
    ".name{fill:#dde3e9}"
    "img,video{border-color:#2a3138}}";

void dj__page_begin(dj__buf *b, const char *title) {
  dj__page_text(
      b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
  dj__page_escaped(b, title);
  dj__page_text(b, "</title><style>");
  dj__page_text(b, STYLE);
  dj__page_text(b, "</style></head><body>\n<h1>");
  dj__page_escaped(b, title);
  dj__page_text(b, "</h1>\n");
}

void dj__page_end(dj__buf *b) {
  dj__page_text(b, "</body></html>\n");
}
