/* Between a program and its disk: records, fails, tears or stops at calls on the files of one folder.
 *
 * Preloaded (LD_PRELOAD) into an unmodified interpreter with an unmodified SQLite. Only files whose path contains
 * DISK_SHIM_FOLDER count, without the shared memory (-shm), which is not meant to survive anything. Does nothing
 * until the program itself calls `shim_arm` or `shim_trace`, so that one process can fork many cases.
 *
 *   shim_arm(kind, at, action, how_many)   act on the `at`th call from now on of that kind (any: "*"), and on the
 *                                          following, `how_many` in all; 0 disarms
 *   shim_calls(), shim_hits()              calls counted since, and those acted upon
 *   shim_trace(path)                       append a record of every call to a file
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t), (*real_unlink)(const char *);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static char kind_wanted[16] = "*", action[16];
static long first, count, calls, hits;
static int trace = -1;

__attribute__((constructor)) static void begin(void) {
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_write = dlsym(RTLD_NEXT, "write");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  folder = getenv("DISK_SHIM_FOLDER");
}

void shim_arm(const char *kind, long at, const char *what, long how_many) {
  pthread_mutex_lock(&lock);
  snprintf(kind_wanted, sizeof kind_wanted, "%s", kind);
  snprintf(action, sizeof action, "%s", what);
  first = at, count = how_many, calls = 0, hits = 0;
  pthread_mutex_unlock(&lock);
}
long shim_calls(void) { return calls; }
long shim_hits(void) { return hits; }
void shim_trace(const char *path) {
  trace = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) {
  return folder && strstr(path, folder) && !strstr(path, "-shm") && !strstr(path, ".lock");
}
static int path_of(int fd, char *out, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, out, size - 1);
  if (length <= 0) return 0;
  out[length] = 0;
  return is_ours(out);
}
static void record(char what, const char *path, int64_t offset, const void *bytes, uint32_t length) {
  if (trace < 0) return;
  uint16_t named = strlen(path);
  char head[15];
  head[0] = what;
  memcpy(head + 1, &named, 2), memcpy(head + 3, &offset, 8), memcpy(head + 11, &length, 4);
  if (real_write(trace, head, sizeof head) < 0 || real_write(trace, path, named) < 0) abort();
  if (length && real_write(trace, bytes, length) < 0) abort();
}

enum { GO, FAIL, TORN, DIE_AFTER, SHORT };
static int verdict(const char *kind) {
  if (!count || (strcmp(kind_wanted, "*") && strcmp(kind_wanted, kind))) return GO;
  calls++;
  if (calls < first || calls >= first + count) return GO;
  int is_write = !strcmp(kind, "write");
  if (!strcmp(action, "count")) return GO;
  if (!strcmp(action, "short") && !is_write) return GO;
  hits++;
  if (!strcmp(action, "kill") || (!strcmp(action, "torn") && !is_write)) raise(SIGKILL);
  if (!strcmp(action, "killafter")) return DIE_AFTER;
  if (!strcmp(action, "torn")) return TORN;
  if (!strcmp(action, "short")) return SHORT;
  errno = !strcmp(action, "enospc") ? ENOSPC : !strcmp(action, "erofs") ? EROFS : EIO;
  return FAIL;
}

static ssize_t do_pwrite(int fd, const void *bytes, size_t size, off_t offset) {
  char path[4096];
  if (!path_of(fd, path, sizeof path)) return real_pwrite(fd, bytes, size, offset);
  pthread_mutex_lock(&lock);
  ssize_t result = -1;
  switch (verdict("write")) {
  case TORN:
    if (real_pwrite(fd, bytes, size / 2, offset)) {}
    raise(SIGKILL);
    break;
  case SHORT:
    result = real_pwrite(fd, bytes, size / 2, offset);
    break;
  case GO:
    record('W', path, offset, bytes, size);
    result = real_pwrite(fd, bytes, size, offset);
    break;
  case DIE_AFTER:
    if (real_pwrite(fd, bytes, size, offset)) {}
    raise(SIGKILL);
  }
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) { return do_pwrite(fd, bytes, size, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset) { return do_pwrite(fd, bytes, size, offset); }

/* Only the ledger, which is no part of the disk that fails, is written without an offset. */
ssize_t write(int fd, const void *bytes, size_t size) {
  char path[4096];
  if (trace < 0 || fd == trace || !path_of(fd, path, sizeof path)) return real_write(fd, bytes, size);
  pthread_mutex_lock(&lock);
  record('A', path, 0, bytes, size);
  ssize_t result = real_write(fd, bytes, size);
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}

static int other(const char *kind, char what, const char *path, int fd, off_t size) {
  pthread_mutex_lock(&lock);
  int result = -1, now = verdict(kind);
  if (now != FAIL) {
    if (what == 'S') result = real_fdatasync(fd);
    if (what == 'T') result = real_ftruncate(fd, size);
    if (what == 'U') result = real_unlink(path);
    record(what, path, size, NULL, 0);
  }
  if (now == DIE_AFTER) raise(SIGKILL);
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}
static int do_sync(int fd, int (*real)(int)) {
  char path[4096];
  return path_of(fd, path, sizeof path) ? other("sync", 'S', path, fd, 0) : real(fd);
}
int fsync(int fd) { return do_sync(fd, real_fsync); }
int fdatasync(int fd) { return do_sync(fd, real_fdatasync); }
static int do_truncate(int fd, off_t size) {
  char path[4096];
  return path_of(fd, path, sizeof path) ? other("truncate", 'T', path, fd, size) : real_ftruncate(fd, size);
}
int ftruncate(int fd, off_t size) { return do_truncate(fd, size); }
int ftruncate64(int fd, off_t size) { return do_truncate(fd, size); }
int unlink(const char *path) {
  return is_ours(path) ? other("unlink", 'U', path, -1, 0) : real_unlink(path);
}
