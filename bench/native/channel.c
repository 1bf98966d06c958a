#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

/* RFC 6455 section 5.2. */
#define FIN 0x80
#define RESERVED 0x70
#define CONTROL_BIT 0x08
#define CONTINUATION 0x0
#define MASKED 0x80
#define TEXT 0x1
#define BINARY 0x2
#define CLOSE 0x8
#define PING 0x9
#define PONG 0xA

#define SCRATCH (256 << 10)
#define MAX_FRAME (16U << 20) /* what a target may announce */

static const char HEX[] = "0123456789abcdef";
/* Characters of text messages; none needs an escape in JSON or more than a byte in UTF-8. */
static const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 32);
}

static size_t put_header(uint8_t *to, uint8_t first, uint64_t size, uint32_t mask)
{
    size_t at = 0;
    to[at++] = first;
    int wide = size < 126 ? 0 : size < (1 << 16) ? 2 : 8;
    to[at++] = MASKED | (wide == 0 ? (uint8_t)size : wide == 2 ? 126 : 127);
    for (int i = wide - 1; i >= 0; i--)
        to[at++] = (uint8_t)(size >> (8 * i));
    memcpy(to + at, &mask, sizeof mask);
    return at + sizeof mask;
}

static void mask_into(uint8_t *to, const uint8_t *from, size_t size, uint32_t mask)
{
    const uint8_t *key = (const uint8_t *)&mask;
    for (size_t i = 0; i < size; i++)
        to[i] = from[i] ^ key[i & 3];
}

static void put_head(const Channel *channel, uint8_t *to, uint32_t sequence)
{
    uint64_t both = (uint64_t)channel->index << 32 | sequence;
    if (channel->text)
        for (int i = 0; i < HEAD_TEXT; i++)
            to[i] = (uint8_t)HEX[both >> (60 - 4 * i) & 15];
    else
        for (int i = 0; i < HEAD_BINARY; i++)
            to[i] = (uint8_t)(both >> (56 - 8 * i));
}

void channel_open(Channel *channel, int epoll, int fd, uint32_t index, size_t size, bool text,
                  size_t slots, uint32_t events)
{
    /* Any seed does, as long as no two channels say the same. */
    uint64_t state = 20001 + index;
    int one = 1;
    *channel = (Channel){.fd = fd, .index = index, .size = size, .text = text, .slots = slots,
                         .events = events};
    channel->head_size = text ? HEAD_TEXT : HEAD_BINARY;
    channel->expected = allocate(size, 1);
    for (size_t i = 0; i < size; i++) {
        uint32_t random = next_random(&state);
        channel->expected[i] = text ? (uint8_t)LETTERS[random & 63] : (uint8_t)random;
    }
    /* One mask per channel: a fresh one per message would only cost time here. */
    channel->mask = next_random(&state);
    uint8_t header[14];
    channel->header_size = put_header(header, FIN | (text ? TEXT : BINARY), size, channel->mask);
    channel->frame_size = channel->header_size + size;
    channel->frames = allocate(slots, channel->frame_size);
    for (size_t i = 0; i < slots; i++) {
        uint8_t *frame = channel->frames + i * channel->frame_size;
        memcpy(frame, header, channel->header_size);
        mask_into(frame + channel->header_size, channel->expected, size, channel->mask);
    }
    set_nonblocking(fd);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = events, .data.ptr = channel};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die_errno("epoll_ctl");
}

void channel_break(Channel *channel, int epoll, const char *format, ...)
{
    if (channel->cause[0])
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(channel->cause, sizeof channel->cause, format, arguments);
    va_end(arguments);
    /* The harness holds the socket as well, so closing would not take it from the epoll. */
    epoll_ctl(epoll, EPOLL_CTL_DEL, channel->fd, NULL);
    shutdown(channel->fd, SHUT_RDWR);
    close(channel->fd);
}

static void want_write(Channel *channel, int epoll, bool wanted)
{
    if (channel->wants_write == wanted)
        return;
    channel->wants_write = wanted;
    uint32_t events = channel->events | (wanted ? EPOLLOUT : 0);
    struct epoll_event event = {.events = events, .data.ptr = channel};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, channel->fd, &event) < 0)
        die_errno("epoll_ctl");
}

/* Fill the next block from the queue. */
static void next_block(Channel *channel)
{
    uint64_t count = channel->queued < channel->slots ? channel->queued : channel->slots;
    uint64_t sequence = channel->ledger.sent - channel->queued;
    for (uint64_t i = 0; i < count; i++) {
        uint8_t head[HEAD_TEXT];
        uint8_t *frame = channel->frames + i * channel->frame_size;
        put_head(channel, head, (uint32_t)(sequence + i));
        mask_into(frame + channel->header_size, head, channel->head_size, channel->mask);
    }
    channel->queued -= count;
    channel->block_at = 0;
    channel->block_end = count * channel->frame_size;
}

/* Send of [*at, end) what goes; whether all went. */
static bool push(Channel *channel, int epoll, const uint8_t *data, size_t *at, size_t end)
{
    while (*at < end) {
        ssize_t sent = send(channel->fd, data + *at, end - *at, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN)
                channel_break(channel, epoll, "send: %s", strerror(errno));
            return false;
        }
        *at += (size_t)sent;
    }
    return true;
}

void channel_flush(Channel *channel, int epoll)
{
    bool all = true;
    while (all && !channel->cause[0]) {
        /* A Pong goes out between two blocks, never inside a frame. */
        if (channel->block_at == channel->block_end) {
            all = push(channel, epoll, channel->control, &channel->control_at,
                       channel->control_end);
            if (!all || channel->queued == 0)
                break;
            next_block(channel);
        }
        all = push(channel, epoll, channel->frames, &channel->block_at, channel->block_end);
    }
    if (!channel->cause[0])
        want_write(channel, epoll, !all);
}

void channel_send(Channel *channel, int epoll, uint64_t count)
{
    if (channel->cause[0])
        return;
    channel->queued += count;
    channel->ledger.sent += count;
    if (!channel->wants_write)
        channel_flush(channel, epoll);
}

static void answer_ping(Channel *channel, int epoll, size_t size)
{
    /* A Pong half sent stays as it is; RFC 6455 section 5.5.3 lets a later one answer for it. */
    if (channel->control_at != channel->control_end && channel->control_at != 0)
        return;
    size_t header = put_header(channel->control, FIN | PONG, size, channel->mask);
    mask_into(channel->control + header, channel->small, size, channel->mask);
    channel->control_at = 0;
    channel->control_end = header + size;
    if (!channel->wants_write)
        channel_flush(channel, epoll);
}

/* Bytes of the frame's header that must be there before more can be said. */
static size_t header_needs(const Channel *channel)
{
    if (channel->header_have < 2)
        return 2;
    uint8_t size = channel->header[1] & 0x7F;
    return size < 126 ? 2 : size == 126 ? 4 : 10;
}

static void begin_frame(Channel *channel, int epoll)
{
    const uint8_t *header = channel->header;
    uint64_t size = header[1] & 0x7F;
    if (size >= 126) {
        size_t wide = size == 126 ? 2 : 8;
        size = 0;
        for (size_t i = 0; i < wide; i++)
            size = size << 8 | header[2 + i];
    }
    uint8_t opcode = header[0] & 0x0F;
    bool control = opcode & CONTROL_BIT;
    if (header[0] & RESERVED)
        channel_break(channel, epoll, "a frame with reserved bits set");
    else if (header[1] & MASKED)
        channel_break(channel, epoll, "a masked frame from the server's side");
    else if (size > (control ? MAX_CONTROL : MAX_FRAME))
        channel_break(channel, epoll, "a frame of %" PRIu64 " bytes", size);
    else if (!control && (opcode == CONTINUATION) != channel->opened)
        channel_break(channel, epoll, "a fragment out of sequence");
    channel->in_payload = true;
    channel->header_have = 0;
    channel->left = size;
    channel->small_at = 0;
    if (!control && !channel->opened) {
        channel->at = 0;
        channel->same = opcode == (channel->text ? TEXT : BINARY);
    }
}

/* Compare the next bytes of a message, or gather those of a control frame. */
static void take_payload(Channel *channel, const uint8_t *data, size_t size)
{
    channel->left -= size;
    if (channel->header[0] & CONTROL_BIT) {
        memcpy(channel->small + channel->small_at, data, size);
        channel->small_at += size;
        return;
    }
    size_t at = channel->at;
    channel->at += size;
    if (channel->at > channel->size)
        channel->same = false;
    if (at < channel->head_size) {
        size_t left = channel->head_size - at, part = size < left ? size : left;
        memcpy(channel->head + at, data, part);
        data += part;
        size -= part;
        at += part;
    }
    if (channel->same && size)
        channel->same = memcmp(data, channel->expected + at, size) == 0;
}

static void end_message(Channel *channel, Echoed *echoed, uint64_t now)
{
    uint32_t sequence = 0;
    if (channel->at != channel->size)
        channel->same = false;
    if (channel->same) {
        uint8_t head[HEAD_TEXT];
        char digits[9] = "";
        if (channel->text)
            sequence = (uint32_t)strtoul(memcpy(digits, channel->head + 8, 8), NULL, 16);
        else
            for (int i = 4; i < HEAD_BINARY; i++)
                sequence = sequence << 8 | channel->head[i];
        put_head(channel, head, sequence);
        channel->same = memcmp(head, channel->head, channel->head_size) == 0;
    }
    if (!channel->same)
        ledger_changed(&channel->ledger);
    else if (ledger_judge(&channel->ledger, sequence))
        echoed(channel, sequence, now);
}

static void end_frame(Channel *channel, int epoll, Echoed *echoed, uint64_t now)
{
    uint8_t opcode = channel->header[0] & 0x0F;
    channel->in_payload = false;
    if (opcode == PING) {
        answer_ping(channel, epoll, channel->small_at);
    } else if (opcode == CLOSE) {
        const uint8_t *small = channel->small;
        unsigned code = channel->small_at < 2 ? 1005 : (unsigned)(small[0] << 8 | small[1]);
        int text = channel->small_at < 2 ? 0 : (int)channel->small_at - 2;
        channel_break(channel, epoll, "Close %u %.*s", code, text, (char *)channel->small + 2);
    } else if (opcode != PONG) {
        channel->opened = !(channel->header[0] & FIN);
        if (!channel->opened)
            end_message(channel, echoed, now);
    }
}

bool channel_receive(Channel *channel, int epoll, size_t most, Echoed *echoed)
{
    static uint8_t scratch[SCRATCH];
    ssize_t got = recv(channel->fd, scratch, most < SCRATCH ? most : SCRATCH, 0);
    if (got <= 0) {
        if (got == 0)
            channel_break(channel, epoll, "closed by the target without a Close");
        else if (errno != EAGAIN)
            channel_break(channel, epoll, "receive: %s", strerror(errno));
        return false;
    }
    uint64_t now = now_ns();
    size_t size = (size_t)got;
    channel->read += size;
    for (size_t at = 0; at < size && !channel->cause[0];) {
        if (!channel->in_payload) {
            channel->header[channel->header_have++] = scratch[at++];
            if (channel->header_have == header_needs(channel))
                begin_frame(channel, epoll);
        } else {
            size_t part = channel->left < size - at ? channel->left : size - at;
            take_payload(channel, scratch + at, part);
            at += part;
        }
        if (channel->in_payload && channel->left == 0 && !channel->cause[0])
            end_frame(channel, epoll, echoed, now);
    }
    return true;
}
