/* One caller, who makes one call after the other: start, connect, first echo, close. */
#ifndef CALLER_H
#define CALLER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http.h"

#define MAX_TOKEN 600 /* relay/policy/tokens.py allows 512 */
#define MAX_PATH 256
#define MIN_SIZE 24
#define MAX_SIZE 60000 /* a frame with a length of 16 bits */

/* What a call does; each but the last three waits for an answer. */
typedef enum { STARTING, CONNECTING, ECHOING, CLOSING, PHASES, RESTING, DONE, FAILED } Phase;

/* Where to call and how. */
typedef struct {
    struct sockaddr_in address;
    const char *host;
    const char *path;  /* of the WebSocket; NULL when /start tells it */
    const char *start; /* path of POST /start; NULL without one */
    const char *key;
    size_t size; /* of the message */
} Plan;

typedef struct {
    const Plan *plan;
    int epoll;
    Phase phase;
    int http; /* the connection for /start, kept; -1: there is none */
    int ws;   /* -1: there is none */
    bool asked; /* the request of this phase is sent */
    char token[MAX_TOKEN], path[MAX_PATH];
    uint8_t *got; /* the answer of this phase as far as it is there */
    size_t have, room;
    uint8_t *message; /* its echo, as it must come back */
    uint8_t *frame;   /* the message as it is sent */
    size_t frame_size, echo_size;
    uint64_t times[PHASES]; /* when each phase began */
    const char *cause;      /* of FAILED */
} Caller;

/* Make one; messages of different callers differ. */
void caller_open(Caller *caller, const Plan *plan, int epoll, uint32_t index);

/* Begin a call; the token goes with the handshake unless /start gives one. */
void caller_begin(Caller *caller, const char *token);

/* Go on, since a socket of it is ready; see `phase` for what came of it. */
void caller_step(Caller *caller);

#endif
