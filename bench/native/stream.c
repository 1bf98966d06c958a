/* As fast as it goes: a number of messages under way on each WebSocket, each echo answered
 * by the next message. One under way on one WebSocket is the bare round trip; many large
 * ones are throughput; with a read rate the client is slower than everything behind it.
 *
 * A closed loop: latency counts from when a message was handed to the kernel, or had to
 * wait because the socket took no more.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"
#include "common.h"

#define DRAIN (3 * NS_PER_S)     /* for the last echoes; what is not back then is lost */
#define TICK (1 * NS_PER_MS)     /* how often a slow reader reads */
#define SLOW_BUFFER (64 << 10)   /* of a slow reader's socket at least: it is a small device */
#define SLOW_TICKS 2             /* whose reading it holds, or it could not keep its rate */
#define BLOCK (64 << 10)         /* bytes that go out with one system call, if messages are small */
#define SCRATCH (256 << 10)
#define MAX_IN_FLIGHT 1024
#define MAX_CONNECTIONS 256
#define EVENTS 256

static struct {
    Channel *channels;
    int count, epoll;
    uint64_t in_flight, read_rate, begin, record_from, end;
    uint64_t recorded; /* echoes within [record_from, end) */
    Histogram latency;
} run;

static void echoed(Channel *channel, uint64_t sequence, uint64_t now)
{
    if (now < run.record_from || now >= run.end)
        return;
    run.recorded++;
    histogram_record(&run.latency, now - channel->sent_at[sequence % run.in_flight]);
}

static void send_more(Channel *channel, uint64_t more, uint64_t now)
{
    for (uint64_t i = 0; i < more; i++)
        channel->sent_at[(channel->ledger.sent + i) % run.in_flight] = now;
    channel_send(channel, run.epoll, more);
}

/* Receive once; every echo, right or wrong, makes room for a message. They go out together. */
static void receive(Channel *channel, size_t most)
{
    channel_receive(channel, run.epoll, most, echoed);
    uint64_t more = run.in_flight - (channel->ledger.sent - channel->ledger.expected);
    uint64_t now = now_ns();
    if (more && now < run.end)
        send_more(channel, more, now);
}

static void serve(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int ready = wait_ready(run.epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < ready; i++) {
        Channel *channel = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            channel_flush(channel, run.epoll);
        if (events[i].events & ~(uint32_t)EPOLLOUT && !channel->cause[0])
            receive(channel, SCRATCH);
    }
}

/* Each channel reads what its rate has allowed by now. */
static void read_slowly(void)
{
    uint64_t allowed = (now_ns() - run.begin) / NS_PER_MS * run.read_rate / 1000;
    for (int i = 0; i < run.count; i++) {
        Channel *channel = &run.channels[i];
        while (!channel->cause[0] && channel->read < allowed) {
            uint64_t before = channel->read;
            receive(channel, allowed - channel->read);
            if (channel->read == before)
                break;
        }
    }
}

/* From now on every channel is read as fast as it goes. */
static void read_freely(void)
{
    for (int i = 0; i < run.count; i++) {
        Channel *channel = &run.channels[i];
        if (channel->cause[0])
            continue;
        channel->events = EPOLLIN;
        uint32_t events = EPOLLIN | (channel->wants_write ? EPOLLOUT : 0);
        struct epoll_event event = {.events = events, .data.ptr = channel};
        if (epoll_ctl(run.epoll, EPOLL_CTL_MOD, channel->fd, &event) < 0)
            die_errno("epoll_ctl");
    }
}

static void print_result(uint64_t cpu, size_t size)
{
    double seconds = (double)(run.end - run.record_from) / NS_PER_S;
    double per_second = (double)run.recorded / seconds;
    printf("{\"event\":\"result\",");
    print_accounts(run.channels, run.count);
    printf(",\"recorded\":%" PRIu64 ",\"per_second\":%.3f,\"mb_per_second\":%.6f"
           ",\"cpu_ns\":%" PRIu64 ",\"latency\":",
           run.recorded, per_second, per_second * (double)size / 1e6, cpu);
    histogram_print(&run.latency);
    printf("}\n");
    fflush(stdout);
}

static void open_channels(const int *descriptors, size_t size, bool text)
{
    size_t slots = size < BLOCK ? BLOCK / size : 1;
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    run.channels = allocate((size_t)run.count, sizeof *run.channels);
    for (int i = 0; i < run.count; i++) {
        Channel *channel = &run.channels[i];
        channel_open(channel, run.epoll, descriptors[i], (uint32_t)i, size, text,
                     slots < run.in_flight ? slots : run.in_flight, run.read_rate ? 0 : EPOLLIN);
        channel->sent_at = allocate(run.in_flight, sizeof *channel->sent_at);
        int most = (int)(run.read_rate * TICK / NS_PER_S * SLOW_TICKS);
        int buffer = most > SLOW_BUFFER ? most : SLOW_BUFFER;
        if (run.read_rate)
            setsockopt(channel->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
}

int main(int count, char **words)
{
    static int descriptors[MAX_CHANNELS];
    run.count = parse_descriptors(option_text(count, words, "descriptors"), descriptors);
    if (run.count > MAX_CONNECTIONS)
        die("%d connections; expected at most %d", run.count, MAX_CONNECTIONS);
    size_t size = option_number(count, words, "size", MIN_SIZE, MAX_SIZE);
    uint64_t seconds_ms = option_number(count, words, "milliseconds", 1, 600000);
    uint64_t warmup_ms = option_number(count, words, "warmup", 0, 60000);
    run.in_flight = option_number(count, words, "in-flight", 1, MAX_IN_FLIGHT);
    run.read_rate = option_number(count, words, "read-rate", 0, 1U << 30);
    open_channels(descriptors, size, option_given(count, words, "text"));
    turn("ready");
    uint64_t cpu = cpu_ns();
    run.begin = now_ns();
    run.record_from = run.begin + warmup_ms * NS_PER_MS;
    run.end = run.record_from + seconds_ms * NS_PER_MS;
    for (int i = 0; i < run.count; i++)
        send_more(&run.channels[i], run.in_flight, now_ns());
    while (now_ns() < run.end) {
        serve(run.read_rate ? TICK / NS_PER_MS : 50);
        if (run.read_rate)
            read_slowly();
    }
    read_freely();
    for (uint64_t end = now_ns() + DRAIN;
         now_ns() < end && any_outstanding(run.channels, run.count);)
        serve(50);
    cpu = cpu_ns() - cpu;
    turn("done");
    print_result(cpu, size);
    return 0;
}
