#define _GNU_SOURCE
#include "answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILERS };

void answer_begin(Answer *answer, const Wanted *wanted)
{
    answer->wanted = wanted;
    answer->head_size = answer->line_size = answer->event_size = 0;
    answer->in_body = answer->chunked = answer->complete = answer->closes = false;
    answer->left = answer->body_at = answer->event_number = 0;
    answer->chunk_state = CHUNK_SIZE;
    answer->wrong = NULL;
}

/* Add a byte to a line; whether the line is complete. What is too long is cut. */
static bool add_to_line(char *line, size_t room, size_t *size, char byte)
{
    if (byte == '\n') {
        if (*size && line[*size - 1] == '\r')
            (*size)--;
        line[*size] = 0;
        return true;
    }
    if (*size < room - 1)
        line[(*size)++] = byte;
    return false;
}

static void take_events(Answer *answer, const char *data, size_t size, Event *event)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t number, sent_at;
        if (!add_to_line(answer->event, sizeof answer->event, &answer->event_size, data[i]))
            continue;
        if (answer->event_size) {
            if (sscanf(answer->event, "data: %" SCNu64 " %" SCNu64, &number, &sent_at) != 2 ||
                number != answer->event_number)
                answer->wrong = "an event is missing or changed";
            else
                event(sent_at);
            answer->event_number++;
        }
        answer->event_size = 0;
    }
}

static void take_body(Answer *answer, const char *data, size_t size, Event *event)
{
    const Wanted *wanted = answer->wanted;
    uint64_t whole = wanted->text ? strlen(wanted->text) : wanted->size;
    if (wanted->events) {
        take_events(answer, data, size, event);
    } else if (answer->body_at + size > whole) {
        answer->wrong = "a body is too long";
    } else if (wanted->text) {
        if (memcmp(wanted->text + answer->body_at, data, size) != 0)
            answer->wrong = "a body is changed";
    } else {
        for (size_t at = 0; at < size;) {
            size_t from = (answer->body_at + at) % BLOCK_SIZE, part = BLOCK_SIZE - from;
            part = part < size - at ? part : size - at;
            if (memcmp(block + from, data + at, part) != 0)
                answer->wrong = "a body is changed";
            at += part;
        }
    }
    answer->body_at += size;
}

static void finish(Answer *answer)
{
    const Wanted *wanted = answer->wanted;
    answer->complete = true;
    if (wanted->events ? answer->event_number != wanted->events
                       : answer->body_at != (wanted->text ? strlen(wanted->text) : wanted->size))
        answer->wrong = "a body is too short";
}

static void judge_head(Answer *answer, size_t end)
{
    char value[64];
    int minor = 0, status = 0;
    static char text[32];
    answer->in_body = true;
    if (sscanf(answer->head, "HTTP/1.%d %3d", &minor, &status) != 2) {
        answer->wrong = "an answer is not HTTP/1";
    } else if (status != 200) {
        snprintf(text, sizeof text, "status %d", status);
        answer->wrong = text;
    }
    answer->closes = minor == 0;
    if (head_field(answer->head, end, "Connection", value, sizeof value))
        answer->closes = strcasestr(value, "close") != NULL;
    if (head_field(answer->head, end, "Transfer-Encoding", value, sizeof value))
        answer->chunked = strcasecmp(value, "chunked") == 0;
    if (answer->chunked)
        return;
    if (head_field(answer->head, end, "Content-Length", value, sizeof value))
        answer->left = strtoull(value, NULL, 10);
    else
        answer->wrong = answer->wrong ? answer->wrong : "an answer has no length";
    if (answer->left == 0)
        finish(answer);
}

/* Take bytes of the head; how many belonged to it. */
static size_t take_head(Answer *answer, const char *data, size_t size)
{
    size_t before = answer->head_size;
    size_t part = size < MAX_HEAD - before ? size : MAX_HEAD - before;
    memcpy(answer->head + before, data, part);
    answer->head_size += part;
    answer->head[answer->head_size] = 0;
    size_t end = head_end(answer->head, answer->head_size);
    if (end == 0) {
        if (answer->head_size == MAX_HEAD)
            answer->wrong = "a head is too long";
        return part;
    }
    judge_head(answer, end);
    return end - before;
}

/* Take bytes of a chunked body; how many. */
static size_t take_chunked(Answer *answer, const char *data, size_t size, Event *event)
{
    if (answer->chunk_state == CHUNK_DATA) {
        size_t part = answer->left < size ? answer->left : size;
        take_body(answer, data, part, event);
        answer->left -= part;
        if (answer->left == 0)
            answer->chunk_state = CHUNK_END;
        return part;
    }
    if (!add_to_line(answer->line, sizeof answer->line, &answer->line_size, data[0]))
        return 1;
    bool empty = answer->line_size == 0;
    answer->line_size = 0;
    if (answer->chunk_state == CHUNK_SIZE) {
        answer->left = strtoull(answer->line, NULL, 16);
        answer->chunk_state = answer->left ? CHUNK_DATA : TRAILERS;
        if (empty)
            answer->wrong = "a chunk has no size";
    } else if (answer->chunk_state == CHUNK_END) {
        answer->chunk_state = CHUNK_SIZE;
        if (!empty)
            answer->wrong = "a chunk is longer than its size";
    } else if (empty) {
        finish(answer);
    }
    return 1;
}

void answer_take(Answer *answer, const char *data, size_t size, Event *event)
{
    size_t at = 0;
    while (at < size && !answer->complete && answer->wrong == NULL) {
        if (!answer->in_body) {
            at += take_head(answer, data + at, size - at);
        } else if (answer->chunked) {
            at += take_chunked(answer, data + at, size - at, event);
        } else {
            size_t part = answer->left < size - at ? answer->left : size - at;
            take_body(answer, data + at, part, event);
            answer->left -= part;
            at += part;
            if (answer->left == 0)
                finish(answer);
        }
    }
    if (answer->complete && at < size && answer->wrong == NULL)
        answer->wrong = "bytes behind the end of an answer";
}
