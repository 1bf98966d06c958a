/* What the echo server says: heads, bodies and events of HTTP, echoes of WebSocket frames.
 *
 * Frames are echoed as they arrive, piece by piece: a header without the mask, then the
 * payload unmasked. So a connection needs no memory for a message of any size.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "origin.h"

/* RFC 6455 sections 5.2 and 7.4.1. */
#define FIN 0x80
#define RESERVED 0x70
#define CONTROL_BIT 0x08
#define MASKED 0x80
#define CLOSE 0x8
#define PING 0x9
#define PONG 0xA
#define MAX_CONTROL 125
#define PROTOCOL_ERROR 1002
#define TOO_BIG 1009
#define MAX_FRAME (16U << 20)

#define MAX_BODY (64U << 20)
#define MAX_EVENTS 100000
#define MAX_INTERVAL_MS 10000

static size_t put(uint8_t *to, const char *text)
{
    size_t size = strlen(text);
    memcpy(to, text, size);
    return size;
}

static size_t put_close(Session *session, uint8_t *to, unsigned code)
{
    session->closing = true;
    uint8_t frame[] = {FIN | CLOSE, 2, (uint8_t)(code >> 8), (uint8_t)code};
    memcpy(to, frame, sizeof frame);
    return sizeof frame;
}

/* Bytes of a frame's header that must be there before more can be said. */
static size_t header_needs(const Session *session)
{
    if (session->header_have < 2)
        return 2;
    uint8_t size = session->header[1] & 0x7F;
    size_t mask = session->header[1] & MASKED ? 4 : 0;
    return (size < 126 ? 2 : size == 126 ? 4 : 10) + mask;
}

/* The header of the echo of the frame whose header is complete. */
static size_t begin_frame(Session *session, uint8_t *to)
{
    uint8_t *header = session->header;
    uint8_t opcode = header[0] & 0x0F;
    size_t needs = session->header_have;
    uint64_t size = header[1] & 0x7F;
    bool control = header[0] & CONTROL_BIT;
    size_t wide = size < 126 ? 0 : size == 126 ? 2 : 8;
    if (!(header[1] & MASKED) || header[0] & RESERVED ||
        (control && (wide || !(header[0] & FIN))))
        return put_close(session, to, PROTOCOL_ERROR);
    for (size_t i = size = wide ? 0 : size; i < wide; i++)
        size = size << 8 | header[2 + i];
    if (size > MAX_FRAME)
        return put_close(session, to, TOO_BIG);
    memcpy(&session->mask, header + needs - 4, 4);
    session->in_payload = true;
    session->left = size;
    session->header_have = 0;
    session->dropped = opcode == PONG;
    if (session->dropped)
        return 0;
    to[0] = opcode == PING ? FIN | PONG : header[0];
    to[1] = header[1] & 0x7F;
    memcpy(to + 2, header + 2, wide);
    return 2 + wide;
}

/* Unmask the next part of a payload into the echo. */
static size_t echo_payload(Session *session, const uint8_t *data, size_t size, uint8_t *to)
{
    uint32_t mask = session->mask;
    unsigned turned = 8 * (size & 3);
    session->left -= size;
    if (turned) /* the first byte of the key is its lowest one in memory */
        session->mask = mask >> turned | mask << (32 - turned);
    if (session->dropped)
        return 0;
    uint64_t wide = (uint64_t)mask << 32 | mask, eight;
    size_t at = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&eight, data + at, 8);
        eight ^= wide;
        memcpy(to + at, &eight, 8);
    }
    for (; at < size; at++)
        to[at] = data[at] ^ (uint8_t)(mask >> 8 * (at & 3));
    return size;
}

static size_t echo(Session *session, const uint8_t *data, size_t size, uint8_t *to)
{
    size_t out = 0, at = 0;
    while (at < size) {
        if (!session->in_payload) {
            session->header[session->header_have++] = data[at++];
            if (session->header_have < header_needs(session))
                continue;
            out += begin_frame(session, to + out);
        } else {
            size_t part = session->left < size - at ? session->left : size - at;
            out += echo_payload(session, data + at, part, to + out);
            at += part;
        }
        if (session->in_payload && session->left == 0) {
            session->in_payload = false;
            session->closing = (session->header[0] & 0x0F) == CLOSE;
        }
        if (session->closing)
            break; /* what follows a Close is dropped */
    }
    return out;
}

static size_t respond(Session *session, uint8_t *to, const char *status, const char *body)
{
    if (!session->keep_alive)
        session->closing = true;
    return (size_t)sprintf((char *)to, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                           strlen(body), session->keep_alive ? "" : "Connection: close\r\n", body);
}

static size_t refuse(Session *session, uint8_t *to, const char *status)
{
    session->keep_alive = false;
    return respond(session, to, status, "");
}

static size_t upgrade(Session *session, const char *key, uint8_t *to)
{
    char accept[ACCEPT_SIZE];
    accept_key(key, accept);
    session->state = ECHOING;
    return (size_t)sprintf((char *)to,
                           "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                           accept);
}

static size_t begin_events(Session *session, const char *target, uint8_t *to)
{
    session->state = SENDING_EVENTS;
    session->event_number = 0;
    session->events_left = query_number(target, "count", 1, MAX_EVENTS);
    session->interval = query_number(target, "interval_ms", 20, MAX_INTERVAL_MS) * NS_PER_MS;
    session->due = now_ns() + session->interval;
    /* The second field is what a bot's framework sends to have proxies pass events at once. */
    return put(to, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                   "X-Accel-Buffering: no\r\nCache-Control: no-cache\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n");
}

static size_t route(Session *session, const char *method, const char *target, const char *head,
                    size_t size, uint8_t *to)
{
    char value[128];
    size_t path = strcspn(target, "?");
    bool get = strcmp(method, "GET") == 0;
    if (get && path >= 3 && strncmp(target + path - 3, "/ws", 3) == 0 &&
        head_field(head, size, "Sec-WebSocket-Key", value, sizeof value))
        return upgrade(session, value, to);
    if (get && (strcmp(target, "/readyz") == 0 || strcmp(target, "/livez") == 0))
        return respond(session, to, "200 OK", "ok");
    if (get && strcmp(target, "/json") == 0)
        return respond(session, to, "200 OK\r\nContent-Type: application/json", JSON_BODY);
    if (get && strncmp(target, "/down", path) == 0 && path == 5) {
        session->state = SENDING_BODY;
        session->body_at = 0;
        session->body_left = query_number(target, "size", 0, MAX_BODY);
        return (size_t)sprintf((char *)to,
                               "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                               "Content-Length: %" PRIu64 "\r\n\r\n",
                               session->body_left);
    }
    if (get && strncmp(target, "/events", path) == 0 && path == 7)
        return begin_events(session, target, to);
    if (strcmp(method, "POST") == 0 && strcmp(target, "/up") == 0) {
        if (!head_field(head, size, "Content-Length", value, sizeof value))
            return refuse(session, to, "411 Length Required");
        session->state = READING_BODY;
        session->body_left = session->body_size = strtoull(value, NULL, 10);
        if (session->body_size > MAX_BODY)
            return refuse(session, to, "413 Content Too Large");
        return 0;
    }
    return refuse(session, to, "404 Not Found");
}

static size_t answer_head(Session *session, const char *head, size_t size, uint8_t *to)
{
    char method[16], target[1024], value[128];
    int minor = 0;
    session->keep_alive = false;
    if (sscanf(head, "%15s %1023s HTTP/1.%d", method, target, &minor) != 3)
        return refuse(session, to, "400 Bad Request");
    session->keep_alive = minor == 1;
    if (head_field(head, size, "Connection", value, sizeof value) &&
        strcasestr(value, "close") != NULL)
        session->keep_alive = false;
    return route(session, method, target, head, size, to);
}

/* Take what belongs to a head; returns how much of the input that was. */
static size_t take_head(Session *session, const uint8_t *data, size_t size, uint8_t *to,
                        size_t *out)
{
    if (session->head == NULL)
        session->head = allocate(MAX_HEAD + 1, 1);
    size_t before = session->head_size;
    size_t part = size < MAX_HEAD - before ? size : MAX_HEAD - before;
    memcpy(session->head + before, data, part);
    size_t end = head_end(session->head, before + part);
    session->head_size = before + part;
    if (end == 0) {
        if (session->head_size == MAX_HEAD)
            *out += refuse(session, to + *out, "431 Request Header Fields Too Large");
        return part;
    }
    session->head[end] = 0;
    *out += answer_head(session, session->head, end, to + *out);
    free(session->head);
    session->head = NULL;
    session->head_size = 0;
    return end - before;
}

size_t answer(Session *session, const uint8_t *data, size_t size, uint8_t *to)
{
    size_t out = 0, at = 0;
    while ((at < size || (session->state == READING_BODY && session->body_left == 0)) &&
           !session->closing) {
        if (session->state == ECHOING)
            return out + echo(session, data + at, size - at, to + out);
        if (session->state == READING_HEAD && out == 0) {
            at += take_head(session, data + at, size - at, to, &out);
        } else if (session->state == READING_BODY) {
            size_t part = session->body_left < size - at ? session->body_left : size - at;
            session->body_left -= part;
            at += part;
            if (session->body_left == 0) {
                char body[40];
                snprintf(body, sizeof body, "{\"size\":%" PRIu64 "}", session->body_size);
                session->state = READING_HEAD;
                out += respond(session, to + out, "200 OK\r\nContent-Type: application/json", body);
            }
        } else {
            session->closing = true; /* no request may follow before the answer is read */
        }
    }
    return out;
}

size_t next_piece(Session *session, uint8_t *to, size_t room)
{
    size_t out = 0;
    while (out < room && session->body_left) {
        size_t from = session->body_at % BLOCK_SIZE, part = BLOCK_SIZE - from;
        part = part < room - out ? part : room - out;
        part = part < session->body_left ? part : session->body_left;
        memcpy(to + out, block + from, part);
        out += part;
        session->body_at += part;
        session->body_left -= part;
    }
    if (session->body_left == 0) {
        session->state = READING_HEAD;
        session->closing = !session->keep_alive;
    }
    return out;
}

size_t next_event(Session *session, uint8_t *to, size_t room, uint64_t now)
{
    char event[80];
    int size = snprintf(event, sizeof event, "data: %" PRIu64 " %" PRIu64 "\n\n",
                        session->event_number++, now);
    bool last = --session->events_left == 0;
    session->due = last ? 0 : session->due + session->interval;
    if (last) {
        session->state = READING_HEAD;
        session->closing = !session->keep_alive;
    }
    return (size_t)snprintf((char *)to, room, "%x\r\n%s\r\n%s", (unsigned)size, event,
                            last ? "0\r\n\r\n" : "");
}
