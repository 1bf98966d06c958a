#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

void die(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("{\"event\":\"failed\",\"reason\":");
    print_string(text);
    printf("}\n");
    fflush(stdout);
    exit(1);
}

void die_errno(const char *what)
{
    die("%s: %s", what, strerror(errno));
}

void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die("no memory for %zu x %zu bytes", count, size);
    return memory;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static int option_at(int count, char **words, const char *name)
{
    for (int i = 1; i < count; i++)
        if (strncmp(words[i], "--", 2) == 0 && strcmp(words[i] + 2, name) == 0)
            return i;
    return 0;
}

bool option_given(int count, char **words, const char *name)
{
    return option_at(count, words, name) > 0;
}

const char *option_text(int count, char **words, const char *name)
{
    int at = option_at(count, words, name);
    if (at == 0 || at + 1 >= count)
        die("--%s is missing", name);
    return words[at + 1];
}

uint64_t option_number(int count, char **words, const char *name, uint64_t low, uint64_t high)
{
    const char *text = option_text(count, words, name);
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || value < low || value > high)
        die("--%s is %s; expected %" PRIu64 " to %" PRIu64, name, text, low, high);
    return value;
}

size_t raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die_errno("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die_errno("setrlimit");
    return limit.rlim_cur;
}

void set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        die_errno("fcntl");
}

int wait_ready(int epoll, struct epoll_event *events, int room, int timeout_ms)
{
    int ready = epoll_wait(epoll, events, room, timeout_ms);
    if (ready < 0 && errno != EINTR)
        die_errno("epoll_wait");
    return ready < 0 ? 0 : ready;
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
}

int timer_at(uint64_t first, uint64_t interval)
{
    /* Why a timerfd: epoll counts in milliseconds and sleeps are late by the timer slack. */
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec spec = {timespec_of(interval), timespec_of(first)};
    if (fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
        die_errno("timerfd");
    return fd;
}

void timer_clear(int fd)
{
    uint64_t expirations;
    if (read(fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
        die_errno("read of a timer");
}

void turn(const char *event)
{
    char line[64];
    printf("{\"event\":\"%s\"}\n", event);
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        exit(1);
}

void print_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text >= ' ' && *text <= '~' ? *text : '?');
    }
    putchar('"');
}

void histogram_record(Histogram *histogram, uint64_t value)
{
    int bits = value ? 64 - __builtin_clzll(value) : 0;
    int shift = bits - SUB_BITS - 1;
    if (shift <= 0)
        histogram->counters[value]++;
    else
        histogram->counters[((uint64_t)shift << SUB_BITS) + (value >> shift)]++;
    if (histogram->count == 0 || value < histogram->lowest)
        histogram->lowest = value;
    if (value > histogram->highest)
        histogram->highest = value;
    histogram->count++;
    histogram->total += value;
}

void histogram_print(const Histogram *histogram)
{
    printf("{\"sub_bits\":%d,\"count\":%" PRIu64 ",\"total\":%" PRIu64 ",\"lowest\":%" PRIu64
           ",\"highest\":%" PRIu64 ",\"counters\":{",
           SUB_BITS, histogram->count, histogram->total, histogram->lowest, histogram->highest);
    const char *comma = "";
    for (int i = 0; i < COUNTERS; i++)
        if (histogram->counters[i]) {
            printf("%s\"%d\":%" PRIu64, comma, i, histogram->counters[i]);
            comma = ",";
        }
    printf("}}");
}
