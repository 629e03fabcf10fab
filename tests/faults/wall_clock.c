/* A wall clock that is off by as many seconds as a file says; preloaded (tests/faults/wall_clock.py).

   Why not libfaketime: it allocates memory when it is first asked for the time, and Envoy's tcmalloc asks while it
   sets itself up, under its own lock: Envoy never starts. Here nothing allocates and nothing is locked: the file is
   mapped, so that all processes jump at once.

   Whoever waits until a moment of the wall clock has computed it from ours, and the kernel waits by its own: such
   moments are moved back. A moment of the monotonic clock, which is told by its size, is left as it is.

   statx moves the times of files along, for Dynamo's file discovery, by which the local stack runs: a registration is
   a file that its worker touches, and whose clock is an hour ahead finds all of them expired, and deletes them. etcd
   and Kubernetes, which stand there in production, keep leases by a clock of their own. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define WALL_CLOCK_SECONDS 1000000000 /* no machine is up for 31 years */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const volatile int64_t *offset;

__attribute__((constructor)) static void map_offset(void)
{
    const char *path = getenv("WALL_CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        offset = mapped;
}

static int64_t off(void)
{
    return offset ? *offset : 0;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    static __typeof__(&clock_gettime) real;
    if (!real)
        real = NEXT(clock_gettime);
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += off();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}

static struct timespec kernels(const struct timespec *until)
{
    struct timespec moved = *until;
    if (moved.tv_sec > WALL_CLOCK_SECONDS)
        moved.tv_sec -= off();
    return moved;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    static __typeof__(&pthread_cond_timedwait) real;
    struct timespec moved = kernels(until);
    if (!real) /* on x86-64 there is an older one, which is not compatible */
        real = (__typeof__(real))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real)
        real = NEXT(pthread_cond_timedwait);
    return real(cond, mutex, &moved);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    static __typeof__(&pthread_mutex_timedlock) real;
    struct timespec moved = kernels(until);
    if (!real)
        real = NEXT(pthread_mutex_timedlock);
    return real(mutex, &moved);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    static __typeof__(&sem_timedwait) real;
    struct timespec moved = kernels(until);
    if (!real)
        real = NEXT(sem_timedwait);
    return real(semaphore, &moved);
}

int statx(int folder, const char *restrict path, int flags, unsigned mask, struct statx *restrict file)
{
    static __typeof__(&statx) real;
    if (!real)
        real = NEXT(statx);
    int failed = real(folder, path, flags, mask, file);
    if (!failed)
        file->stx_mtime.tv_sec += off();
    return failed;
}

/* abseil, which Envoy and gRPC wait with, goes to the kernel itself. */
long syscall(long number, ...)
{
    static __typeof__(&syscall) real;
    long value[6];
    struct timespec moved;
    va_list given;
    if (!real)
        real = NEXT(syscall);
    va_start(given, number);
    for (int i = 0; i < 6; i++)
        value[i] = va_arg(given, long);
    va_end(given);
    if (number == SYS_futex && value[3] && (value[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET &&
        (value[1] & FUTEX_CLOCK_REALTIME)) {
        moved = kernels((const struct timespec *)value[3]);
        value[3] = (long)&moved;
    }
    return real(number, value[0], value[1], value[2], value[3], value[4], value[5]);
}
