/* The echo server's connections: what origin.c (sockets) and answers.c (bytes) share. */
#ifndef ORIGIN_H
#define ORIGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http.h"

#define SCRATCH (256 << 10) /* bytes read at once */
#define OUTPUT (SCRATCH + 1024)

typedef enum { READING_HEAD, READING_BODY, SENDING_BODY, SENDING_EVENTS, ECHOING } State;

typedef struct Session {
    int fd;
    State state;
    bool closing;    /* closed once everything is sent */
    bool keep_alive; /* what the request wants */
    char *head;      /* the part of a head that is there; NULL when there is none */
    size_t head_size;

    /* WebSocket: the frame that arrives. */
    uint8_t header[14];
    size_t header_have;
    uint64_t left;      /* of its payload */
    uint32_t mask;      /* turned to where its payload goes on */
    bool in_payload, dropped;

    /* HTTP. */
    uint64_t body_left, body_at, body_size; /* of the body that is read or sent */
    uint64_t events_left, event_number, interval;

    /* What could not be sent yet, or not before `due` (ns; 0: as soon as it goes). */
    uint8_t *pending;
    size_t pending_at, pending_end;
    uint64_t due;
    uint32_t interest; /* what epoll is asked for */
} Session;

/* What this much input is answered with; at most OUTPUT bytes are written to `to`.
 *
 * Sets `closing` and the session's state; `size` is at most SCRATCH.
 */
size_t answer(Session *session, const uint8_t *data, size_t size, uint8_t *to);

/* The next piece of a body that is sent; for SENDING_BODY. */
size_t next_piece(Session *session, uint8_t *to, size_t room);

/* The next event, with its time; the last one ends the answer; for SENDING_EVENTS. */
size_t next_event(Session *session, uint8_t *to, size_t room, uint64_t now);

#endif
