/* Randomness from a seed, and clocks that go on by a step at each look, for a process that must do the same each time:
   loaded before libc by way of LD_PRELOAD. It takes the place of getrandom and getentropy, from which hash maps, schedulers
   and generators of keys draw, and of clock_gettime, which caches and limiters look at. Never in anything but the
   simulation. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

static uint64_t state;

static uint64_t next(void) {
    if (state == 0) {
        const char *seed = getenv("CAUSEWAY_SIMULATION_SEED");
        state = (seed ? strtoull(seed, NULL, 10) : 0) * 2 + 1;
    }
    /* splitmix64 (Steele, Lea, Flood, 2014). */
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

ssize_t getrandom(void *buffer, size_t length, unsigned int flags) {
    (void)flags;
    for (size_t at = 0; at < length; at += sizeof(uint64_t)) {
        uint64_t word = next();
        size_t left = length - at;
        memcpy((char *)buffer + at, &word, left < sizeof word ? left : sizeof word);
    }
    return (ssize_t)length;
}

int getentropy(void *buffer, size_t length) {
    getrandom(buffer, length, 0);
    return 0;
}

/* A microsecond passes with each look. */
int clock_gettime(clockid_t clock, struct timespec *time) {
    static uint64_t looks;
    uint64_t now = 1000 * ++looks;
    (void)clock;
    time->tv_sec = (time_t)(1800000000u + now / 1000000000u);
    time->tv_nsec = (long)(now % 1000000000u);
    return 0;
}
