/* The little HTTP/1.1 that origin and requests need, and what the one sends the other. */
#ifndef HTTP_H
#define HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_HEAD (16 << 10)

/* The small answer of GET /json. */
#define JSON_BODY "{\"status\":\"ready\",\"language\":\"en\",\"turns\":12,\"muted\":false}"

/* Large bodies repeat this block; its size is no power of two, so that a piece that
 * a target loses or moves shows. */
#define BLOCK_SIZE 65521
extern uint8_t block[BLOCK_SIZE];
void fill_block(void);

/* The end of a head in data[0, size), behind its empty line; 0 when it is not there. */
size_t head_end(const char *data, size_t size);

/* The value of a field, trimmed and copied; false when it is not there or too long. */
bool head_field(const char *head, size_t size, const char *name, char *value, size_t room);

/* The number behind `name=` in a query; `otherwise` when there is none, `most` at most. */
uint64_t query_number(const char *target, const char *name, uint64_t otherwise, uint64_t most);

#define ACCEPT_SIZE 29 /* 28 characters and a zero */

/* Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2). */
void accept_key(const char *key, char accept[ACCEPT_SIZE]);

#endif
