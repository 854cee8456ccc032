/*
 * What a disk and a clock can do to a process that has this library in LD_PRELOAD. One file, mapped into the process
 * (CAUSEWAY_FAULTS names it), says what is the matter at the moment; src/preload.rs writes it. Without the file, or
 * with one full of zeroes, everything is as without the library.
 *
 * Only regular files beyond standard input, output and error are concerned: a full disk stops neither logs nor sockets.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_ms;     /* added to CLOCK_REALTIME */
    int64_t sync_fails;   /* not 0: fsync and fdatasync give EIO and do nothing */
    int64_t sync_slow_ms; /* they take so long more */
    int64_t disk_full;    /* not 0: writes to regular files give ENOSPC */
    int64_t sync_lies;    /* not 0: fsync and fdatasync do nothing and say that all is well */
    /* How often any of this has been done to the process. */
    int64_t syncs, writes, clocks;
};

static volatile struct control none;
static volatile struct control *control = &none;

static void count(volatile int64_t *times) {
    __atomic_fetch_add(times, 1, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("CAUSEWAY_FAULTS");
    if (path == NULL) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) control = mapped;
}

/* The function of this name in the next library. */
#define REAL(name) \
    static __typeof__(&name) real; \
    if (real == NULL) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

static void wait_ms(int64_t ms) {
    if (ms <= 0) return;
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

enum synced { REALLY, FAILS, LIES };

static enum synced synced(void) {
    if (control->sync_slow_ms > 0 || control->sync_fails != 0 || control->sync_lies != 0) count(&control->syncs);
    wait_ms(control->sync_slow_ms);
    if (control->sync_fails != 0) {
        errno = EIO;
        return FAILS;
    }
    return control->sync_lies != 0 ? LIES : REALLY;
}

#define SYNC(really)                          \
    switch (synced()) {                       \
        case FAILS: return -1;                \
        case LIES: return 0;                  \
        default: return really;               \
    }

int fsync(int fd) {
    REAL(fsync);
    SYNC(real(fd))
}

int fdatasync(int fd) {
    REAL(fdatasync);
    SYNC(real(fd))
}

int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags) {
    REAL(sync_file_range);
    SYNC(real(fd, offset, bytes, flags))
}

static int no_space(int fd) {
    struct stat file;
    if (control->disk_full == 0 || fd <= STDERR_FILENO) return 0;
    if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode)) return 0;
    count(&control->writes);
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(write);
    return no_space(fd) ? -1 : real(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    REAL(pwrite);
    return no_space(fd) ? -1 : real(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    REAL(pwrite64);
    return no_space(fd) ? -1 : real(fd, bytes, length, offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int how_many) {
    REAL(writev);
    return no_space(fd) ? -1 : real(fd, pieces, how_many);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int how_many, off_t offset) {
    REAL(pwritev);
    return no_space(fd) ? -1 : real(fd, pieces, how_many, offset);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int how_many, off64_t offset) {
    REAL(pwritev64);
    return no_space(fd) ? -1 : real(fd, pieces, how_many, offset);
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    REAL(posix_fallocate);
    return no_space(fd) ? ENOSPC : real(fd, offset, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    REAL(posix_fallocate64);
    return no_space(fd) ? ENOSPC : real(fd, offset, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    REAL(fallocate);
    return no_space(fd) ? -1 : real(fd, mode, offset, length);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    int64_t ms = control->clock_ms;
    if (failed != 0 || ms == 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
    int64_t ns = now->tv_nsec + (ms % 1000) * 1000000;
    count(&control->clocks);
    now->tv_sec += ms / 1000;
    if (ns < 0) {
        now->tv_sec -= 1;
        ns += 1000000000;
    } else if (ns >= 1000000000) {
        now->tv_sec += 1;
        ns -= 1000000000;
    }
    now->tv_nsec = ns;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
    if (seconds != NULL) *seconds = now.tv_sec;
    return now.tv_sec;
}
