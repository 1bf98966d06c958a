/* One HTTP answer as it arrives: status, framing, and what its body must be. */
#ifndef ANSWER_H
#define ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http.h"

/* What a body has to be. */
typedef struct {
    const char *text;      /* exactly this, or NULL */
    uint64_t size;         /* so many bytes of the block, when there is no text */
    uint64_t events;       /* or so many events, in order */
} Wanted;

typedef struct {
    const Wanted *wanted;
    char head[MAX_HEAD + 1];
    size_t head_size;
    bool in_body, chunked, complete, closes;
    uint64_t left;    /* of the body, or of the chunk */
    int chunk_state;
    char line[96];    /* a chunk's size, or an event's line */
    size_t line_size;
    char event[96];
    size_t event_size;
    uint64_t body_at, event_number;
    const char *wrong; /* what is wrong with it; NULL while nothing is */
} Answer;

/* What happens with an event: when it was sent. */
typedef void Event(uint64_t sent_at);

/* Forget everything; the next byte is the first one of a status line. */
void answer_begin(Answer *answer, const Wanted *wanted);

/* Take bytes until the answer is complete or wrong; bytes behind its end make it wrong. */
void answer_take(Answer *answer, const char *data, size_t size, Event *event);

#endif
