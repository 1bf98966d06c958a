/* Paced calls: sends at an absolute schedule, verifies and times every echo.
 *
 * Call after call in turn, so that the calls are spread over one period, at ticks of 1 ms:
 * all messages of a tick are due at its begin and leave one behind the other. To wake up
 * costs more than to send, so a generator that woke for each would cost more than what it
 * measures. Latency counts from the due time, not from when the message got out: a target
 * that stalls makes its own queue visible (no coordinated omission), and the second of a
 * tick has its wait behind the first one in its figure. The price is that the generator's
 * own lateness is in there too; it is recorded beside it, and a run with too much of it is
 * `saturated`.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "channel.h"
#include "common.h"

#define TICK (1 * NS_PER_MS)
#define LEAD (20 * NS_PER_MS)   /* between arming the schedule and its first message */
#define DRAIN (2 * NS_PER_S)    /* for the last echoes; what is not back then is lost */
#define LATE (5 * NS_PER_MS)    /* a message sent later than this was not sent on time */
#define LATE_PERCENT 1          /* more late ones than this, and the run measures the generator */
#define BURST 32                /* late messages sent before echoes are looked at again */
#define MAX_QUEUED (1U << 20)   /* bytes that a call may have unsent before it counts as broken */
#define MAX_MESSAGES 100000000U /* of the whole run */
#define SCRATCH (256 << 10)
#define EVENTS 512

static struct {
    Channel *channels;
    uint64_t count, begin, interval, tick, period, unrecorded, messages;
    uint64_t late, last_echo;
    int epoll;
    Histogram latency, lateness;
} run;

/* When a message is to be sent; event counts those of the whole run. */
static uint64_t due(uint64_t event)
{
    return run.begin + event * run.interval / run.tick * run.tick;
}

static void echoed(Channel *channel, uint64_t sequence, uint64_t now)
{
    if (sequence < run.unrecorded)
        return;
    histogram_record(&run.latency, now - due(sequence * run.count + channel->index));
    run.last_echo = now;
}

static void send_due(uint64_t event)
{
    Channel *channel = &run.channels[event % run.count];
    uint64_t sequence = event / run.count;
    if (channel->cause[0])
        return;
    if (sequence >= run.unrecorded) {
        uint64_t lateness = now_ns() - due(event);
        histogram_record(&run.lateness, lateness);
        run.late += lateness > LATE;
    }
    channel_send(channel, run.epoll, 1);
    if (channel->queued * channel->size > MAX_QUEUED)
        channel_break(channel, run.epoll, "the target does not read");
}

/* Serve what is ready; timer is 0 when there is none. Returns when nothing came in time. */
static void serve(int timeout_ms, int timer)
{
    struct epoll_event events[EVENTS];
    int ready = wait_ready(run.epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < ready; i++) {
        Channel *channel = events[i].data.ptr;
        if (channel == NULL) {
            timer_clear(timer);
            continue;
        }
        if (events[i].events & EPOLLOUT)
            channel_flush(channel, run.epoll);
        if (events[i].events & ~(uint32_t)EPOLLOUT && !channel->cause[0])
            channel_receive(channel, run.epoll, SCRATCH, echoed);
    }
}

static void send_schedule(void)
{
    int timer = timer_at(run.begin, run.tick);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, timer, &wanted) < 0)
        die_errno("epoll_ctl");
    for (uint64_t event = 0; event < run.messages;) {
        serve(due(event) <= now_ns() ? 0 : -1, timer);
        uint64_t stop = event + BURST < run.messages ? event + BURST : run.messages;
        for (; event < stop && due(event) <= now_ns(); event++)
            send_due(event);
    }
    close(timer);
}

static void print_result(uint64_t cpu)
{
    uint64_t from = run.begin + run.unrecorded * run.period;
    double elapsed = run.last_echo > from ? (double)(run.last_echo - from) / NS_PER_S : 0;
    double share = run.lateness.count ? (double)run.late / (double)run.lateness.count : 0;
    printf("{\"event\":\"result\",\"planned\":%" PRIu64 ",", run.messages);
    print_accounts(run.channels, (int)run.count);
    printf(",\"late_share\":%.6f,\"saturated\":%s,\"per_second\":%.3f,\"cpu_ns\":%" PRIu64, share,
           share * 100 > LATE_PERCENT ? "true" : "false",
           elapsed > 0 ? (double)run.latency.count / elapsed : 0, cpu);
    printf(",\"latency\":");
    histogram_print(&run.latency);
    printf(",\"lateness\":");
    histogram_print(&run.lateness);
    printf("}\n");
    fflush(stdout);
}

int main(int count, char **words)
{
    static int descriptors[MAX_CHANNELS];
    run.count = (uint64_t)parse_descriptors(option_text(count, words, "descriptors"), descriptors);
    uint64_t rate = option_number(count, words, "rate", 1, 1000);
    size_t size = option_number(count, words, "size", MIN_SIZE, MAX_SIZE);
    uint64_t each = option_number(count, words, "messages", 1, MAX_MESSAGES / run.count);
    run.unrecorded = option_number(count, words, "unrecorded", 0, each - 1);
    bool text = option_given(count, words, "text");
    run.interval = NS_PER_S / (rate * run.count);
    run.tick = run.interval > TICK ? run.interval : TICK;
    run.period = run.interval * run.count;
    run.messages = each * run.count;
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    run.channels = allocate(run.count, sizeof *run.channels);
    for (uint64_t i = 0; i < run.count; i++)
        channel_open(&run.channels[i], run.epoll, descriptors[i], (uint32_t)i, size, text, 1,
                     EPOLLIN);
    turn("ready");
    uint64_t cpu = cpu_ns();
    run.begin = now_ns() + LEAD;
    send_schedule();
    for (uint64_t end = now_ns() + DRAIN;
         now_ns() < end && any_outstanding(run.channels, (int)run.count);)
        serve(50, 0);
    cpu = cpu_ns() - cpu;
    turn("done");
    print_result(cpu);
    return 0;
}
