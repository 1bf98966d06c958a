/* The client's end of one WebSocket whose other end echoes.
 *
 * Message `sequence` of channel `index` is a pure function of both: a head with both
 * numbers, then bytes that only this channel has. So an echo is compared with what
 * must have been sent while it arrives, and nothing that was sent is kept. What waits
 * to be sent is therefore only a number.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ledger.h"

#define HEAD_BINARY 8 /* index and sequence, 4 bytes each, big-endian */
#define HEAD_TEXT 16  /* the same in hexadecimal */
#define MAX_CONTROL 125 /* RFC 6455 section 5.5 */
#define MIN_SIZE 24
#define MAX_SIZE (4U << 20)
#define MAX_CHANNELS 5000

typedef struct Channel {
    int fd;
    uint32_t index;
    Ledger ledger;
    char cause[160]; /* why it broke; empty while it works */

    /* Sending: `slots` whole masked frames side by side, of which a block goes out at once. */
    uint8_t *frames;
    size_t frame_size, header_size, slots;
    uint64_t queued;           /* messages that wait for a block */
    size_t block_at, block_end; /* the part of the block that is not sent yet */
    uint8_t control[MAX_CONTROL + 6]; /* a Pong under way: header, mask, payload */
    size_t control_at, control_end;
    uint32_t events; /* asked of epoll beside being writable */
    bool wants_write;

    /* Receiving. */
    uint8_t *expected; /* the payload of a message; its head is not looked at */
    size_t size, head_size;
    uint8_t header[10]; /* of the frame that arrives */
    size_t header_have;
    bool in_payload;
    uint64_t left; /* bytes of its payload to come */
    bool opened, same; /* of the message that arrives: more fragments follow; as it was sent so far */
    size_t at;         /* bytes of it seen */
    uint8_t head[HEAD_TEXT];
    uint8_t small[MAX_CONTROL]; /* a control frame's payload, which may come between fragments */
    size_t small_at;
    uint32_t mask;
    bool text;

    uint64_t read;                 /* bytes received in all */
    uint64_t *sent_at;             /* for the program: by sequence modulo its window */
} Channel;

/* What the program does with an echo that is intact. */
typedef void Echoed(Channel *channel, uint64_t sequence, uint64_t now);

/* Make one around a connected socket and add it to the epoll; writable is asked for later.
 *
 * slots: messages that may go out with one system call.
 * events: EPOLLIN, or 0 for a program that reads by its own clock.
 */
void channel_open(Channel *channel, int epoll, int fd, uint32_t index, size_t size, bool text,
                  size_t slots, uint32_t events);

/* Send `count` more messages, or as much as the socket takes; the rest goes when it is writable. */
void channel_send(Channel *channel, int epoll, uint64_t count);

/* Go on sending; for EPOLLOUT. */
void channel_flush(Channel *channel, int epoll);

/* Receive once, at most `most` bytes, and judge every echo; whether there was anything. */
bool channel_receive(Channel *channel, int epoll, size_t most, Echoed *echoed);

/* It is of no more use: remember why, close. */
void channel_break(Channel *channel, int epoll, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The descriptors in "3,4,5"; dies unless there are 1 to MAX_CHANNELS of them. */
int parse_descriptors(const char *text, int *descriptors);

/* The sums over all channels, as JSON members. */
void print_accounts(const Channel *channels, int count);

/* Messages that have not come back yet, over all channels that work. */
bool any_outstanding(const Channel *channels, int count);

#endif
