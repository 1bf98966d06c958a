#define _GNU_SOURCE
#include "http.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACCEPT_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455 section 1.3 */
#define MAX_KEY 64 /* a key has 24 characters */

uint8_t block[BLOCK_SIZE];

void fill_block(void)
{
    uint32_t state = 1;
    for (size_t i = 0; i < BLOCK_SIZE; i++) {
        state = state * 1664525 + 1013904223;
        block[i] = (uint8_t)(state >> 24);
    }
}

size_t head_end(const char *data, size_t size)
{
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - data) + 4;
}

bool head_field(const char *head, size_t size, const char *name, char *value, size_t room)
{
    const char *stop = head + size;
    size_t length = strlen(name);
    for (const char *line = memchr(head, '\n', size); line != NULL && ++line < stop;
         line = memchr(line, '\n', (size_t)(stop - line))) {
        if ((size_t)(stop - line) <= length || strncasecmp(line, name, length) != 0 ||
            line[length] != ':')
            continue;
        const char *from = line + length + 1;
        const char *end = memchr(from, '\r', (size_t)(stop - from));
        if (end == NULL)
            return false;
        while (from < end && isblank((unsigned char)*from))
            from++;
        while (end > from && isblank((unsigned char)end[-1]))
            end--;
        if ((size_t)(end - from) >= room)
            return false;
        memcpy(value, from, (size_t)(end - from));
        value[end - from] = 0;
        return true;
    }
    return false;
}

uint64_t query_number(const char *target, const char *name, uint64_t otherwise, uint64_t most)
{
    size_t length = strlen(name);
    for (const char *at = strchr(target, '?'); at != NULL; at = strchr(at, '&')) {
        at++;
        if (strncmp(at, name, length) == 0 && at[length] == '=') {
            uint64_t value = strtoull(at + length + 1, NULL, 10);
            return value < most ? value : most;
        }
    }
    return otherwise;
}

static uint32_t rotate(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

/* FIPS 180-4 section 6.1.2: one block of 64 bytes. */
static void sha1_block(uint32_t hash[5], const uint8_t *data)
{
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
               (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                     : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                     : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                              : (b ^ c ^ d) + 0xca62c1d6;
        uint32_t next = rotate(a, 5) + f + e + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    hash[0] += a, hash[1] += b, hash[2] += c, hash[3] += d, hash[4] += e;
}

void accept_key(const char *key, char accept[ACCEPT_SIZE])
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    /* Key and GUID are at most 100 bytes: with their padding two blocks. */
    uint8_t data[128] = {0}, digest[21] = {0};
    uint32_t hash[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    size_t size = (size_t)snprintf((char *)data, sizeof data, "%.*s" ACCEPT_GUID, MAX_KEY, key);
    size_t blocks = (size + 9 + 63) / 64;
    data[size] = 0x80;
    data[blocks * 64 - 2] = (uint8_t)(size * 8 >> 8);
    data[blocks * 64 - 1] = (uint8_t)(size * 8);
    for (size_t i = 0; i < blocks; i++)
        sha1_block(hash, data + 64 * i);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(hash[i / 4] >> (24 - 8 * (i % 4)));
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 |
                         digest[3 * i + 2];
        for (int j = 0; j < 4; j++)
            accept[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
    }
    accept[27] = '=';
    accept[28] = 0;
}
