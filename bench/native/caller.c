#define _GNU_SOURCE
#include "caller.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#define MAX_BODY 4096 /* of an answer to /start */
#define MAX_ANSWER (MAX_HEAD + MAX_BODY)
#define MAX_REQUEST 2048
#define START_BODY "{\"transport\":\"websocket\"}"
#define HANDSHAKE_KEY "dGhlIHNhbXBsZSBub25jZQ==" /* that of RFC 6455 section 1.3 */
#define HANDSHAKE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
/* RFC 6455 sections 5.2 and 7.4.1. */
#define BINARY 0x82
#define CLOSE 0x88
#define MASKED 0x80

static const uint8_t GOODBYE[] = {CLOSE, MASKED | 2, 0, 0, 0, 0, 0x03, 0xE8};

/* Drop a connection; closing takes it from the epoll. */
static void drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void fail(Caller *caller, const char *why)
{
    caller->phase = FAILED;
    caller->cause = why;
    drop(&caller->http);
    drop(&caller->ws);
}

void caller_open(Caller *caller, const Plan *plan, int epoll, uint32_t index)
{
    size_t wide = plan->size < 126 ? 0 : 2;
    *caller = (Caller){.plan = plan, .epoll = epoll, .phase = RESTING, .http = -1, .ws = -1};
    caller->room = MAX_ANSWER + plan->size;
    caller->got = allocate(caller->room + 1, 1);
    caller->frame_size = 2 + wide + 4 + plan->size;
    caller->echo_size = 2 + wide + plan->size;
    caller->frame = allocate(caller->frame_size, 1);
    caller->message = allocate(caller->echo_size, 1);
    uint32_t mask = 0x9E3779B9U * (index + 1), state = index + 1;
    uint8_t *header = caller->message, *payload = header + 2 + wide;
    header[0] = BINARY;
    header[1] = wide ? 126 : (uint8_t)plan->size;
    if (wide) {
        header[2] = (uint8_t)(plan->size >> 8);
        header[3] = (uint8_t)plan->size;
    }
    memcpy(caller->frame, header, 2 + wide);
    caller->frame[1] |= MASKED;
    memcpy(caller->frame + 2 + wide, &mask, sizeof mask);
    for (size_t i = 0; i < plan->size; i++) {
        state = state * 1664525 + 1013904223;
        payload[i] = (uint8_t)(state >> 24);
        caller->frame[6 + wide + i] = payload[i] ^ ((const uint8_t *)&mask)[i & 3];
    }
}

/* Enter a phase that begins with a request of its own. */
static void enter(Caller *caller, Phase phase)
{
    caller->phase = phase;
    caller->times[phase] = now_ns();
    caller->have = 0;
    caller->asked = false;
}

/* A connection under way, watched for what becomes of it. */
static void dial(Caller *caller, int *fd)
{
    int one = 1;
    const struct sockaddr *address = (const struct sockaddr *)&caller->plan->address;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        die_errno("socket");
    setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = caller};
    if (connect(*fd, address, sizeof caller->plan->address) < 0 && errno != EINPROGRESS)
        fail(caller, strerror(errno));
    else if (epoll_ctl(caller->epoll, EPOLL_CTL_ADD, *fd, &event) < 0)
        die_errno("epoll_ctl");
}

/* Send a request whole, and wait for its answer; requests fit into a fresh socket's buffer. */
static void ask(Caller *caller, int fd, const void *data, size_t size)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = caller};
    caller->asked = true;
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent != (ssize_t)size)
        fail(caller, sent < 0 ? strerror(errno) : "a request does not fit into the socket");
    else if (epoll_ctl(caller->epoll, EPOLL_CTL_MOD, fd, &event) < 0)
        die_errno("epoll_ctl");
}

static void ask_start(Caller *caller)
{
    char request[MAX_REQUEST];
    const Plan *plan = caller->plan;
    int size = snprintf(request, sizeof request,
                        "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"
                        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                        plan->start, plan->host, plan->key, strlen(START_BODY), START_BODY);
    ask(caller, caller->http, request, (size_t)size < sizeof request ? (size_t)size : 0);
}

static void ask_upgrade(Caller *caller)
{
    char request[MAX_REQUEST], bearer[MAX_TOKEN + 32] = "";
    if (caller->token[0])
        snprintf(bearer, sizeof bearer, "Authorization: Bearer %s\r\n", caller->token);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Key: " HANDSHAKE_KEY "\r\n"
                        "Sec-WebSocket-Version: 13\r\n%s\r\n",
                        caller->path, caller->plan->host, bearer);
    ask(caller, caller->ws, request, (size_t)size < sizeof request ? (size_t)size : 0);
}

static void begin_connect(Caller *caller)
{
    enter(caller, CONNECTING);
    dial(caller, &caller->ws);
}

void caller_begin(Caller *caller, const char *token)
{
    const Plan *plan = caller->plan;
    enter(caller, STARTING);
    snprintf(caller->token, sizeof caller->token, "%s", token);
    snprintf(caller->path, sizeof caller->path, "%s", plan->path == NULL ? "" : plan->path);
    if (plan->start == NULL)
        begin_connect(caller);
    else if (caller->http < 0)
        dial(caller, &caller->http);
    else
        ask_start(caller);
}

/* The text of a JSON member that needs no unescaping; whether there is one that fits. */
static bool json_text(const char *body, const char *name, char *value, size_t room)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *at = strstr(body, quoted);
    at = at == NULL ? NULL : strchr(at + strlen(quoted), '"');
    size_t size = at == NULL ? 0 : strcspn(at + 1, "\"\\");
    if (at == NULL || size >= room || at[1 + size] != '"')
        return false;
    memcpy(value, at + 1, size);
    value[size] = 0;
    return true;
}

/* The answer to /start, once it is whole: a token, and where to go with it. */
static void take_start(Caller *caller)
{
    char value[32], url[MAX_PATH + 64];
    char *head = (char *)caller->got;
    size_t end = head_end(head, caller->have);
    if (end == 0)
        return;
    if (strncmp(head, "HTTP/1.1 200", 12) != 0) {
        fail(caller, "a start was not answered with 200");
    } else if (!head_field(head, end, "Content-Length", value, sizeof value)) {
        fail(caller, "a start's answer has no length");
    } else if (caller->have >= end + strtoul(value, NULL, 10)) {
        head[caller->have] = 0;
        bool found = json_text(head + end, "token", caller->token, sizeof caller->token) &&
                     json_text(head + end, "wsUrl", url, sizeof url) &&
                     strncmp(url, "ws://", 5) == 0 && strchr(url + 5, '/') != NULL;
        if (!found) {
            fail(caller, "a start's answer has no token or no wsUrl");
            return;
        }
        snprintf(caller->path, sizeof caller->path, "%s", strchr(url + 5, '/'));
        struct epoll_event nothing = {.events = 0, .data.ptr = caller};
        if (head_field(head, end, "Connection", value, sizeof value) &&
            strcasecmp(value, "close") == 0)
            drop(&caller->http);
        else if (epoll_ctl(caller->epoll, EPOLL_CTL_MOD, caller->http, &nothing) < 0)
            die_errno("epoll_ctl");
        begin_connect(caller);
    }
}

static void take_upgrade(Caller *caller)
{
    char value[64], *head = (char *)caller->got;
    size_t end = head_end(head, caller->have);
    if (end == 0)
        return;
    if (strncmp(head, "HTTP/1.1 101", 12) != 0) {
        fail(caller, "an upgrade was not answered with 101");
    } else if (!head_field(head, end, "Sec-WebSocket-Accept", value, sizeof value) ||
               strcmp(value, HANDSHAKE_ACCEPT) != 0) {
        fail(caller, "an upgrade has a wrong accept key");
    } else if (caller->have != end) {
        fail(caller, "bytes came behind an upgrade");
    } else {
        enter(caller, ECHOING);
        ask(caller, caller->ws, caller->frame, caller->frame_size);
    }
}

static void take_echo(Caller *caller)
{
    if (caller->have < caller->echo_size)
        return;
    if (caller->have > caller->echo_size ||
        memcmp(caller->got, caller->message, caller->echo_size) != 0) {
        fail(caller, "an echo was changed");
        return;
    }
    enter(caller, CLOSING);
    ask(caller, caller->ws, GOODBYE, sizeof GOODBYE);
}

static void take_close(Caller *caller)
{
    if (caller->have < 4)
        return;
    if (caller->got[0] != CLOSE) {
        fail(caller, "no Close in answer to Close");
        return;
    }
    drop(&caller->ws);
    caller->phase = DONE;
}

static void receive(Caller *caller, int fd)
{
    ssize_t got = recv(fd, caller->got + caller->have, caller->room - caller->have, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        fail(caller, got == 0 ? "closed before the answer was whole" : strerror(errno));
        return;
    }
    caller->have += (size_t)got;
    if (caller->phase == STARTING)
        take_start(caller);
    else if (caller->phase == CONNECTING)
        take_upgrade(caller);
    else if (caller->phase == ECHOING)
        take_echo(caller);
    else
        take_close(caller);
}

void caller_step(Caller *caller)
{
    if (caller->phase >= PHASES)
        return; /* an event of a connection that this batch has already dropped */
    int fd = caller->phase == STARTING ? caller->http : caller->ws;
    if (caller->asked)
        receive(caller, fd);
    else if (caller->phase == STARTING)
        ask_start(caller);
    else
        ask_upgrade(caller);
}
