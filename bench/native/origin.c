/* The echo server behind everything that is measured: one epoll, one thread.
 *
 * /ws echoes every frame; /readyz and /livez are for probes; /json, /down?size=N, /up and
 * /events?count=N&interval_ms=M answer requests (answers.c). What a connection cannot
 * write yet is held, and nothing more is read from it until that is gone.
 *
 * With --delay-us every echo is sent that much later, which a measurement must show. A
 * message that comes within the delay of the one before it waits for that one.
 */
#define _GNU_SOURCE
#include "origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"

#define BACKLOG 1024       /* a burst of connects of the largest scenario may wait here */
#define ACCEPTS_PER_TURN 64 /* so that a storm of connects cannot hold up the echoes */
#define SPARE 64           /* descriptors left; connections above are closed at once */
#define MAX_LISTENERS 64   /* each is a bot to the relay, which asks every bot for readiness */
#define MAX_LIFETIME 86400 /* seconds; a forgotten origin ends itself */
#define MAX_DELAY_US 10000000
#define MAX_SESSIONS (1 << 20) /* more than loopback has ports; some systems set no limit */
#define EVENTS 512

static struct {
    int epoll, timer, listeners[MAX_LISTENERS];
    Session **sessions; /* by descriptor */
    size_t limit, open, highest;
    uint64_t delay;
    uint64_t armed; /* when the timer expires; 0 when it does not */
} origin;

static uint8_t scratch[SCRATCH], output[OUTPUT];

static void end_session(Session *session)
{
    origin.sessions[session->fd] = NULL;
    origin.open--;
    close(session->fd);
    free(session->head);
    free(session->pending);
    free(session);
}

static void set_interest(Session *session, uint32_t interest)
{
    if (session->interest == interest)
        return;
    session->interest = interest;
    struct epoll_event event = {.events = interest, .data.ptr = session};
    if (epoll_ctl(origin.epoll, EPOLL_CTL_MOD, session->fd, &event) < 0)
        die_errno("epoll_ctl");
}

/* Have the timer expire at `due` at the latest. */
static void arm(uint64_t due)
{
    if (origin.armed && origin.armed <= due)
        return;
    struct itimerspec spec = {.it_value = {(time_t)(due / NS_PER_S), (long)(due % NS_PER_S)}};
    if (timerfd_settime(origin.timer, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
        die_errno("timerfd_settime");
    origin.armed = due;
}

static void hold(Session *session, const uint8_t *data, size_t size)
{
    session->pending = allocate(size, 1);
    memcpy(session->pending, data, size);
    session->pending_at = 0;
    session->pending_end = size;
}

/* Send, hold what does not go, and see what the session waits for next; may end it. */
static void send_output(Session *session, const uint8_t *data, size_t size)
{
    size_t sent = 0;
    while (sent < size) {
        ssize_t part = send(session->fd, data + sent, size - sent, MSG_NOSIGNAL);
        if (part < 0 && errno != EAGAIN) {
            end_session(session);
            return;
        }
        if (part < 0) {
            hold(session, data + sent, size - sent);
            set_interest(session, EPOLLOUT);
            return;
        }
        sent += (size_t)part;
    }
    if (session->closing)
        end_session(session);
    else if (session->state == SENDING_BODY)
        set_interest(session, EPOLLOUT);
    else
        set_interest(session, EPOLLIN);
}

static void flush(Session *session)
{
    if (session->pending == NULL) {
        size_t size = session->state == SENDING_BODY ? next_piece(session, output, SCRATCH) : 0;
        send_output(session, output, size);
        return;
    }
    uint8_t *pending = session->pending;
    session->pending = NULL;
    send_output(session, pending + session->pending_at, session->pending_end - session->pending_at);
    free(pending);
}

static void receive(Session *session)
{
    ssize_t got = recv(session->fd, scratch, SCRATCH, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        end_session(session);
        return;
    }
    bool echoing = session->state == ECHOING;
    size_t size = answer(session, scratch, (size_t)got, output);
    if (origin.delay && echoing && size) {
        hold(session, output, size);
        session->due = now_ns() + origin.delay;
        set_interest(session, 0);
        arm(session->due);
        return;
    }
    if (session->state == SENDING_EVENTS && session->due)
        arm(session->due);
    send_output(session, output, size);
}

/* A session whose time has come: an echo that was delayed, or the next event. */
static void come_due(Session *session, uint64_t now)
{
    if (session->state != SENDING_EVENTS) {
        session->due = 0;
        flush(session);
    } else if (session->pending != NULL) {
        session->due = now + session->interval; /* the reader is behind; it misses this one */
    } else {
        size_t size = next_event(session, output, OUTPUT, now_ns());
        send_output(session, output, size);
    }
}

/* Serve everything that is due, and arm the timer for what is due next. */
static void serve_due(void)
{
    uint64_t now = now_ns(), next = 0;
    origin.armed = 0;
    for (size_t fd = 0; fd <= origin.highest; fd++) {
        if (origin.sessions[fd] != NULL && origin.sessions[fd]->due &&
            origin.sessions[fd]->due <= now)
            come_due(origin.sessions[fd], now);
        Session *session = origin.sessions[fd]; /* it may have ended */
        if (session != NULL && session->due && (next == 0 || session->due < next))
            next = session->due;
    }
    if (next)
        arm(next);
}

static void accept_some(int listener)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return; /* nobody waits any more, or the one who waited has gone */
        if (origin.open + SPARE >= origin.limit) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Session *session = allocate(1, sizeof *session);
        session->fd = fd;
        session->interest = EPOLLIN;
        origin.sessions[fd] = session;
        origin.open++;
        origin.highest = (size_t)fd > origin.highest ? (size_t)fd : origin.highest;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
        if (epoll_ctl(origin.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die_errno("epoll_ctl");
    }
}

static void serve(struct epoll_event *event, bool *timer)
{
    int *listener = event->data.ptr;
    if (listener == &origin.timer) {
        *timer = true;
        return;
    }
    if (listener >= origin.listeners && listener < origin.listeners + MAX_LISTENERS) {
        accept_some(*listener);
        return;
    }
    Session *session = event->data.ptr;
    if (session->interest == 0)
        end_session(session); /* asked for nothing: it can only be a hang-up */
    else if (session->interest == EPOLLOUT)
        flush(session);
    else
        receive(session);
}

static void watch(int fd, void *tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    if (fd < 0 || epoll_ctl(origin.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die_errno("epoll_ctl");
}

static void listen_on(uint16_t port, int *listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof address;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die_errno("listening on loopback");
    *listener = fd;
    watch(fd, listener);
    printf("listening on http://127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int count, char **words)
{
    uint16_t port = (uint16_t)option_number(count, words, "port", 0, 65535);
    uint64_t listeners = option_number(count, words, "listeners", 1, MAX_LISTENERS);
    uint64_t lifetime = option_number(count, words, "lifetime", 1, MAX_LIFETIME);
    origin.delay = option_number(count, words, "delay-us", 0, MAX_DELAY_US) * 1000;
    if (port && listeners > 1)
        die("--listeners above 1 needs --port 0");
    prctl(PR_SET_TIMERSLACK, 1);
    alarm((unsigned)lifetime); /* SIGALRM ends the process */
    fill_block();
    origin.limit = raise_descriptor_limit();
    if (origin.limit > MAX_SESSIONS)
        origin.limit = MAX_SESSIONS;
    origin.sessions = allocate(origin.limit, sizeof *origin.sessions);
    origin.epoll = epoll_create1(EPOLL_CLOEXEC);
    origin.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(origin.timer, &origin.timer);
    for (uint64_t i = 0; i < listeners; i++)
        listen_on(port, &origin.listeners[i]);
    for (;;) {
        struct epoll_event events[EVENTS];
        bool timer = false;
        int ready = wait_ready(origin.epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++)
            serve(&events[i], &timer);
        if (timer) { /* behind the batch, since it may end sessions that the batch names */
            timer_clear(origin.timer);
            serve_due();
        }
    }
}
