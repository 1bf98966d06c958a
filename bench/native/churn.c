/* Calls one after another by each of a number of callers: start, connect, first echo, close.
 *
 * With --start each begins with POST /start on a connection that stays open; with --tokens
 * the token comes from a file that has one in each line; otherwise there is none. A closed
 * loop: a caller begins its next call when its last one has ended.
 */
#define _GNU_SOURCE
#include "caller.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#define DRAIN (5 * NS_PER_S) /* for the last calls; what has not ended then has failed */
/* Each call leaves a local port waiting; the kernel gives it again after a second. */
#define MAX_CALLS 20000
#define MAX_FAILURES 1000    /* a target that refuses at once would be asked without end */
#define MAX_CALLERS 256
#define EVENTS 256
#define KEY_VARIABLE "RELAY_BENCH_KEY" /* a command line is public */

static struct {
    Caller callers[MAX_CALLERS];
    int count, epoll;
    FILE *tokens;
    Plan plan;
    uint64_t record_from, end, begun, completed, failed, last;
    char failure[96];
    Histogram start, connect, echo, latency;
} run;

static void record(const uint64_t times[PHASES])
{
    run.completed++;
    run.last = now_ns();
    if (times[STARTING] < run.record_from)
        return;
    if (run.plan.start != NULL)
        histogram_record(&run.start, times[CONNECTING] - times[STARTING]);
    histogram_record(&run.connect, times[ECHOING] - times[CONNECTING]);
    histogram_record(&run.echo, times[CLOSING] - times[ECHOING]);
    histogram_record(&run.latency, times[CLOSING] - times[STARTING]);
}

static void count_failure(Caller *caller)
{
    run.failed++;
    snprintf(run.failure, sizeof run.failure, "%s", caller->cause);
    caller->phase = RESTING;
}

/* Begin the caller's next call, unless the end or a bound is reached. */
static void next_call(Caller *caller)
{
    char token[MAX_TOKEN] = "";
    if (now_ns() >= run.end || run.begun >= MAX_CALLS || run.failed >= MAX_FAILURES)
        return;
    if (run.tokens != NULL) {
        if (fgets(token, sizeof token, run.tokens) == NULL)
            return; /* as bounded as MAX_CALLS */
        token[strcspn(token, "\n")] = 0;
    }
    run.begun++;
    caller_begin(caller, token);
    if (caller->phase == FAILED) /* nobody listens; this caller has done */
        count_failure(caller);
}

static void step(Caller *caller)
{
    caller_step(caller);
    if (caller->phase == FAILED)
        count_failure(caller);
    else if (caller->phase == DONE)
        record(caller->times);
    else
        return;
    caller->phase = RESTING;
    next_call(caller);
}

static bool any_under_way(void)
{
    for (int i = 0; i < run.count; i++)
        if (run.callers[i].phase != RESTING)
            return true;
    return false;
}

static void print_result(uint64_t cpu)
{
    double seconds = (double)(run.last - run.record_from) / NS_PER_S;
    printf("{\"event\":\"result\",\"completed\":%" PRIu64 ",\"failed\":%" PRIu64
           ",\"bounded\":%s,\"per_second\":%.3f,\"cpu_ns\":%" PRIu64 ",\"failure\":",
           run.completed, run.failed, run.begun >= MAX_CALLS ? "true" : "false",
           run.last > run.record_from ? (double)run.latency.count / seconds : 0, cpu);
    print_string(run.failure);
    printf(",\"latency\":");
    histogram_print(&run.latency);
    printf(",\"parts\":{\"start\":");
    histogram_print(&run.start);
    printf(",\"connect\":");
    histogram_print(&run.connect);
    printf(",\"echo\":");
    histogram_print(&run.echo);
    printf("}}\n");
    fflush(stdout);
}

static void prepare(int count, char **words)
{
    static struct sockaddr_in address;
    const char *host = option_text(count, words, "address"), *key = getenv(KEY_VARIABLE);
    uint64_t port = option_number(count, words, "port", 1, 65535);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("--address is %s; expected an IPv4 address", host);
    if (option_given(count, words, "tokens")) {
        run.tokens = fopen(option_text(count, words, "tokens"), "r");
        if (run.tokens == NULL)
            die_errno("--tokens");
    }
    run.plan = (Plan){
        .address = address,
        .host = option_text(count, words, "host"),
        .path = option_given(count, words, "path") ? option_text(count, words, "path") : NULL,
        .start = option_given(count, words, "start") ? option_text(count, words, "start") : NULL,
        .key = key == NULL ? "" : key,
        .size = option_number(count, words, "size", MIN_SIZE, MAX_SIZE),
    };
}

int main(int count, char **words)
{
    run.count = (int)option_number(count, words, "workers", 1, MAX_CALLERS);
    uint64_t seconds_ms = option_number(count, words, "milliseconds", 1, 700000);
    uint64_t warmup_ms = option_number(count, words, "warmup", 0, 60000);
    prepare(count, words);
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < run.count; i++)
        caller_open(&run.callers[i], &run.plan, run.epoll, (uint32_t)i);
    turn("ready");
    uint64_t cpu = cpu_ns();
    run.record_from = run.last = now_ns() + warmup_ms * NS_PER_MS;
    run.end = run.record_from + seconds_ms * NS_PER_MS;
    for (int i = 0; i < run.count; i++)
        next_call(&run.callers[i]);
    while (any_under_way() && now_ns() < run.end + DRAIN) {
        struct epoll_event events[EVENTS];
        int ready = wait_ready(run.epoll, events, EVENTS, 50);
        for (int i = 0; i < ready; i++)
            step(events[i].data.ptr);
    }
    for (int i = 0; i < run.count; i++)
        if (run.callers[i].phase != RESTING) {
            run.failed++;
            snprintf(run.failure, sizeof run.failure, "no answer in time");
        }
    cpu = cpu_ns() - cpu;
    turn("done");
    print_result(cpu);
    return 0;
}
