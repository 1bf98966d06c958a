/* HTTP requests, one after another on each connection that stays open: a closed loop.
 *
 * Every answer is verified: status, length, content, the order of events. Latency counts
 * from the first byte of a request to the last one of its answer; that of an event from
 * the time that it carries to when it is read.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "answer.h"
#include "common.h"

#define DRAIN (5 * NS_PER_S) /* for the last answers; what is not there then has failed */
#define MAX_CONNECTIONS 256
#define MAX_FAILURES 1000    /* a target that refuses at once would be asked without end */
#define MAX_SIZE (4U << 20)
#define MAX_REQUEST 2048
#define SCRATCH (256 << 10)
#define EVENTS 256
#define KEY_VARIABLE "RELAY_BENCH_KEY" /* a command line is public */

typedef struct {
    int fd; /* -1: there is none */
    bool waiting; /* for an answer */
    size_t sent;  /* of head and body */
    uint64_t begun;
    Answer answer;
} Connection;

static struct {
    Connection connections[MAX_CONNECTIONS];
    int count, epoll;
    struct sockaddr_in address;
    char head[MAX_REQUEST];
    size_t head_size, body_size;
    uint8_t *body;
    Wanted wanted;
    uint64_t interval_us; /* between two events of a stream */
    uint64_t record_from, end, recorded, completed, failed, reopened;
    char failure[96];
    Histogram latency;
} run;

static char scratch[SCRATCH];

static void close_connection(Connection *connection)
{
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->waiting = false;
}

static void fail(Connection *connection, const char *why)
{
    run.failed++;
    snprintf(run.failure, sizeof run.failure, "%s", why);
    close_connection(connection);
}

static void record(uint64_t since)
{
    uint64_t now = now_ns();
    if (now < run.record_from || now >= run.end)
        return;
    run.recorded++;
    histogram_record(&run.latency, now - since);
}

static void want(Connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(run.epoll, operation, connection->fd, &event) < 0)
        die_errno("epoll_ctl");
}

/* Send what is left of a request; asks to be told when the socket takes more. */
static void send_request(Connection *connection)
{
    size_t whole = run.head_size + run.body_size;
    while (connection->sent < whole) {
        size_t head = connection->sent < run.head_size ? run.head_size - connection->sent : 0;
        size_t at = head ? 0 : connection->sent - run.head_size;
        struct iovec parts[] = {{run.head + run.head_size - head, head},
                                {run.body + at, run.body_size - at}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINPROGRESS)) {
            want(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        if (sent < 0) {
            fail(connection, strerror(errno));
            return;
        }
        connection->sent += (size_t)sent;
    }
}

static void begin(Connection *connection)
{
    if (now_ns() >= run.end || run.failed >= MAX_FAILURES) {
        close_connection(connection);
        return;
    }
    connection->begun = now_ns();
    connection->sent = 0;
    connection->waiting = true;
    answer_begin(&connection->answer, &run.wanted);
    if (connection->fd >= 0) {
        send_request(connection);
        return;
    }
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0)
        die_errno("socket");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int done = connect(connection->fd, (struct sockaddr *)&run.address, sizeof run.address);
    if (done < 0 && errno != EINPROGRESS)
        fail(connection, strerror(errno));
    else
        want(connection, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void receive(Connection *connection)
{
    ssize_t got = recv(connection->fd, scratch, SCRATCH, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        fail(connection, got == 0 ? "closed before the answer was whole" : strerror(errno));
        return;
    }
    Answer *answer = &connection->answer;
    answer_take(answer, scratch, (size_t)got, record);
    if (answer->wrong != NULL) {
        fail(connection, answer->wrong);
    } else if (answer->complete) {
        run.completed++;
        if (run.wanted.events == 0)
            record(connection->begun);
        connection->waiting = false;
        if (answer->closes) {
            run.reopened++;
            close_connection(connection);
        }
        begin(connection);
    }
}

static void serve(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int ready = wait_ready(run.epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < ready; i++) {
        Connection *connection = events[i].data.ptr;
        if (events[i].events & EPOLLOUT && connection->fd >= 0) {
            want(connection, EPOLL_CTL_MOD, EPOLLIN);
            send_request(connection);
        }
        if (events[i].events & ~(uint32_t)EPOLLOUT && connection->fd >= 0)
            receive(connection);
        if (connection->fd < 0)
            begin(connection);
    }
}

static void prepare(int count, char **words)
{
    static char answer[64];
    const char *kind = option_text(count, words, "kind"), *key = getenv(KEY_VARIABLE);
    size_t size = option_number(count, words, "size", 0, MAX_SIZE);
    uint64_t events = option_number(count, words, "events", 0, 10000);
    uint64_t interval = option_number(count, words, "interval-ms", 0, 1000);
    run.interval_us = interval * 1000;
    const char *method = "GET";
    char path[96] = "/json";
    run.wanted = (Wanted){.text = JSON_BODY};
    if (strcmp(kind, "up") == 0) {
        method = "POST";
        snprintf(path, sizeof path, "/up");
        snprintf(answer, sizeof answer, "{\"size\":%zu}", size);
        run.wanted = (Wanted){.text = answer};
        run.body_size = size;
    } else if (strcmp(kind, "down") == 0) {
        snprintf(path, sizeof path, "/down?size=%zu", size);
        run.wanted = (Wanted){.size = size};
    } else if (strcmp(kind, "events") == 0) {
        snprintf(path, sizeof path, "/events?count=%" PRIu64 "&interval_ms=%" PRIu64, events,
                 interval);
        run.wanted = (Wanted){.events = events};
    } else if (strcmp(kind, "json") != 0) {
        die("--kind is %s; expected json, up, down or events", kind);
    }
    run.body = allocate(run.body_size + 1, 1);
    for (size_t i = 0; i < run.body_size; i++)
        run.body[i] = block[i % BLOCK_SIZE];
    char length[64] = "", bearer[512] = "";
    if (run.body_size)
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", run.body_size);
    if (key != NULL && *key)
        snprintf(bearer, sizeof bearer, "Authorization: Bearer %s\r\n", key);
    int made = snprintf(run.head, sizeof run.head, "%s %s%s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n",
                        method, option_text(count, words, "base"), path,
                        option_text(count, words, "host"), bearer, length);
    if (made < 0 || made >= MAX_REQUEST)
        die("the request's head is over %d bytes", MAX_REQUEST);
    run.head_size = (size_t)made;
}

static void print_result(uint64_t cpu)
{
    double seconds = (double)(run.end - run.record_from) / NS_PER_S;
    printf("{\"event\":\"result\",\"completed\":%" PRIu64 ",\"failed\":%" PRIu64
           ",\"reopened\":%" PRIu64 ",\"recorded\":%" PRIu64
           ",\"per_second\":%.3f,\"cpu_ns\":%" PRIu64 ",\"failure\":",
           run.completed, run.failed, run.reopened, run.recorded,
           (double)run.recorded / seconds, cpu);
    print_string(run.failure);
    printf(",\"latency\":");
    histogram_print(&run.latency);
    printf("}\n");
    fflush(stdout);
}

static bool any_waiting(void)
{
    for (int i = 0; i < run.count; i++)
        if (run.connections[i].waiting)
            return true;
    return false;
}

int main(int count, char **words)
{
    const char *address = option_text(count, words, "address");
    run.count = (int)option_number(count, words, "connections", 1, MAX_CONNECTIONS);
    uint64_t port = option_number(count, words, "port", 1, 65535);
    uint64_t seconds_ms = option_number(count, words, "milliseconds", 1, 700000);
    uint64_t warmup_ms = option_number(count, words, "warmup", 0, 60000);
    run.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, address, &run.address.sin_addr) != 1)
        die("--address is %s; expected an IPv4 address", address);
    fill_block();
    prepare(count, words);
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    turn("ready");
    uint64_t cpu = cpu_ns();
    run.record_from = now_ns() + warmup_ms * NS_PER_MS;
    run.end = run.record_from + seconds_ms * NS_PER_MS;
    for (int i = 0; i < run.count; i++) {
        run.connections[i].fd = -1;
        /* Streams of events begin spread over one interval, or all would come at once. */
        if (i && run.wanted.events)
            usleep((useconds_t)(run.interval_us / (uint64_t)run.count));
        begin(&run.connections[i]);
    }
    while (any_waiting() && now_ns() < run.end + DRAIN)
        serve(50);
    for (int i = 0; i < run.count; i++)
        if (run.connections[i].waiting)
            fail(&run.connections[i], "no answer in time");
    cpu = cpu_ns() - cpu;
    turn("done");
    print_result(cpu);
    return 0;
}
