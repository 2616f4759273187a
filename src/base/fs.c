#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

char *dj__strf(const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char *s = NULL;
  if (vasprintf(&s, fmt, ap) < 0) abort();
  va_end(ap);
  return s;
}

char *dj__join(const char *dir, const char *name) {
  size_t n = strlen(dir);
  return dj__strf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

bool dj__exists(const char *path) {
  struct stat st;
  return stat(path, &st) == 0;
}

bool dj__is_dir(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t dj__file_size(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
}

dj_status dj__read_file(const char *path, size_t limit, char **data, size_t *size) {
  *data = NULL;
  *size = 0;
  // Not to hang on a named pipe: it is refused below; regular files do not care.
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return dj_error_errno("%s: cannot open", path);
  dj_status s = DJ_OK;
  struct stat st;
  char *buf = NULL;
  if (fstat(fd, &st) != 0) {
    s = dj_error_errno("%s: cannot stat", path);
  } else if (!S_ISREG(st.st_mode)) {
    s = dj_error(DJ_E_INVALID, "%s: not a regular file", path);
  } else if ((uint64_t)st.st_size > limit) {
    s = dj_error(DJ_E_LIMIT, "%s: %lld bytes, at most %zu are read", path, (long long)st.st_size,
                 limit);
  } else if (!(buf = malloc((size_t)st.st_size + 1))) {
    s = dj_error(DJ_E_NOMEM, "%s: no memory for %lld bytes", path, (long long)st.st_size);
  } else {
    size_t got = 0, want = (size_t)st.st_size;
    while (got < want) {
      ssize_t n = read(fd, buf + got, want - got);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        s = dj_error_errno("%s: cannot read", path);
        break;
      }
      if (n == 0) break;
      got += (size_t)n;
    }
    buf[got] = 0;
    *size = got;
  }
  close(fd);
  if (s) {
    free(buf);
    *size = 0;
    return s;
  }
  *data = buf;
  return DJ_OK;
}

dj_status dj__file_map_open(const char *path, dj__file_map *m) {
  *m = (dj__file_map){0};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // as above
  if (fd < 0) return dj_error_errno("%s: cannot open", path);
  struct stat st;
  dj_status s = DJ_OK;
  if (fstat(fd, &st) != 0) {
    s = dj_error_errno("%s: cannot stat", path);
  } else if (!S_ISREG(st.st_mode)) {
    s = dj_error(DJ_E_INVALID, "%s: not a regular file", path);
  } else if (st.st_size > 0) {
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
      s = dj_error_errno("%s: cannot map %lld bytes", path, (long long)st.st_size);
    } else {
      *m = (dj__file_map){p, (size_t)st.st_size};
    }
  }
  close(fd);
  return s;
}

void dj__file_map_close(dj__file_map *m) {
  if (m->data) munmap((void *)m->data, m->size);
  *m = (dj__file_map){0};
}

dj_status dj__sync_dir(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return dj_error_errno("%s: cannot open folder", path);
  int r = fsync(fd);
  int e = errno;
  close(fd);
  errno = e;
  // Some file systems cannot sync a folder: that is theirs to answer for.
  return r && e != EINVAL && e != ENOTSUP ? dj_error_errno("%s: cannot sync folder", path) : DJ_OK;
}

dj_status dj__atomic_open(dj__atomic *a, const char *path) {
  a->path = dj__strf("%s", path);
  a->tmp = dj__strf("%s.tmp", path);
  a->file = fopen(a->tmp, "wbe");
  if (a->file) return DJ_OK;
  dj_status s = dj_error_errno("%s: cannot create", a->tmp);
  free(a->path);
  free(a->tmp);
  *a = (dj__atomic){0};
  return s;
}

void dj__atomic_abort(dj__atomic *a) {
  if (a->file) {
    (void)fclose(a->file);
    (void)unlink(a->tmp);
  }
  free(a->path);
  free(a->tmp);
  *a = (dj__atomic){0};
}

dj_status dj__atomic_commit(dj__atomic *a) {
  dj_status s = DJ_OK;
  if (ferror(a->file) || fflush(a->file) != 0 || fsync(fileno(a->file)) != 0)
    s = dj_error_errno("%s: cannot write", a->tmp);
  if (fclose(a->file) != 0 && !s) s = dj_error_errno("%s: cannot close", a->tmp);
  a->file = NULL;
  if (!s && rename(a->tmp, a->path) != 0)
    s = dj_error_errno("%s: cannot rename to %s", a->tmp, a->path);
  if (s) (void)unlink(a->tmp);
  if (!s) {
    char *slash = strrchr(a->path, '/');
    if (slash) *(slash == a->path ? slash + 1 : slash) = 0;
    s = dj__sync_dir(slash ? a->path : ".");
  }
  dj__atomic_abort(a);
  return s;
}

dj_status dj__write_file_atomic(const char *path, const void *data, size_t size) {
  dj__atomic a;
  DJ_TRY(dj__atomic_open(&a, path));
  if (size && fwrite(data, 1, size, a.file) != size) {
    dj_status s = dj_error_errno("%s: cannot write %zu bytes", path, size);
    dj__atomic_abort(&a);
    return s;
  }
  return dj__atomic_commit(&a);
}

dj_status dj__mkdirs(const char *path) {
  char *p = dj__strf("%s", path);
  dj_status s = DJ_OK;
  for (char *c = p + 1; !s; c++) {
    if (*c && *c != '/') continue;
    char end = *c;
    *c = 0;
    if (mkdir(p, 0777) != 0 && errno != EEXIST) s = dj_error_errno("%s: cannot create folder", p);
    *c = end;
    if (!end) break;
  }
  if (!s && !dj__is_dir(path)) s = dj_error(DJ_E_EXISTS, "%s: exists and is not a folder", path);
  free(p);
  return s;
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

dj_status dj__list_dir(const char *path, char ***names, size_t *n) {
  *names = NULL;
  *n = 0;
  DIR *d = opendir(path);
  if (!d) return dj_error_errno("%s: cannot open folder", path);
  size_t cap = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    if (*n == cap) {
      cap = cap ? cap * 2 : 32;
      char **grown = realloc(*names, cap * sizeof **names);
      if (!grown) {
        closedir(d);
        dj__free_names(*names, *n);
        *names = NULL;
        *n = 0;
        return dj_error(DJ_E_NOMEM, "%s: no memory for %zu names", path, cap);
      }
      *names = grown;
    }
    (*names)[(*n)++] = dj__strf("%s", e->d_name);
  }
  closedir(d);
  if (*n) qsort(*names, *n, sizeof **names, by_name);
  return DJ_OK;
}

void dj__free_names(char **names, size_t n) {
  for (size_t i = 0; i < n; i++) free(names[i]);
  free(names);
}

bool dj__safe_relative(const char *path) {
  if (!path || !*path || *path == '/') return false;
  for (const char *p = path; p;) {
    const char *end = strchr(p, '/');
    size_t n = end ? (size_t)(end - p) : strlen(p);
    if (n == 2 && p[0] == '.' && p[1] == '.') return false;
    p = end ? end + 1 : NULL;
  }
  return true;
}
