/* What every program here needs: clocks, options, histograms, turns with the harness. */
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL

/* Say why on one line, as the harness expects it, and end with status 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* die() with the text of errno. */
_Noreturn void die_errno(const char *what);

/* Memory that is there, zeroed, or die(). */
void *allocate(size_t count, size_t size);

/* Nanoseconds of the monotonic clock, the same for all processes. */
uint64_t now_ns(void);

/* CPU time of this process, user and system, in nanoseconds. */
uint64_t cpu_ns(void);

/* The value of `--name VALUE`; dies when it is missing. */
const char *option_text(int count, char **words, const char *name);

/* The same as a whole number between low and high; dies when it is none. */
uint64_t option_number(int count, char **words, const char *name, uint64_t low, uint64_t high);

/* Whether `--name` is there at all. */
bool option_given(int count, char **words, const char *name);

/* Allow this process as many descriptors as the hard limit does; returns that number. */
size_t raise_descriptor_limit(void);

/* Make a descriptor non-blocking, or die(). */
void set_nonblocking(int fd);

/* epoll_wait(2), or die(); how many events there are, none when a signal came instead. */
struct epoll_event;
int wait_ready(int epoll, struct epoll_event *events, int room, int timeout_ms);

/* A timer that is readable at `first` (ns, monotonic) and every `interval` after it; 0: once. */
int timer_at(uint64_t first, uint64_t interval);

/* Make it unreadable until its next expiry. */
void timer_clear(int fd);

/* Write a line {"event":"EVENT"}, then wait for a line; ends when the harness has gone. */
void turn(const char *event);

/* A JSON string to stdout; whatever is not printable ASCII becomes '?'. */
void print_string(const char *text);

/* The log-linear histogram of bench/stats.py: the same counters, the same dump. */
#define SUB_BITS 7
#define COUNTERS (((64 - SUB_BITS) << SUB_BITS) + (1 << SUB_BITS))

typedef struct {
    uint64_t counters[COUNTERS];
    uint64_t count, total, lowest, highest;
} Histogram;

void histogram_record(Histogram *histogram, uint64_t value);

/* Its dump as a JSON object to stdout. */
void histogram_print(const Histogram *histogram);

#endif
