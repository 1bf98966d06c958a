/* What one call has sent and what came back: order and content of every echo; pure.
 *
 * Laws: after any series of echoes lost + intact + changed = sent, as long as nothing
 * came that was never sent; an echo counts in exactly one of intact, changed and
 * duplicated (one that came late is intact as well as reordered). A changed one stands
 * in for one that was sent, whichever it was.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t sent, expected; /* the next sequences to be sent and to come back */
    uint64_t intact, changed, reordered, duplicated;
    uint64_t capacity; /* sequences that the bits below have room for */
    uint8_t *bits;     /* which ones below `expected` are not back yet */
} Ledger;

/* An echo of `sequence`, compared and found equal; whether it counts as intact. */
bool ledger_judge(Ledger *ledger, uint64_t sequence);

/* An echo that equals nothing that was sent. */
void ledger_changed(Ledger *ledger);

/* Messages sent of which nothing has come back (yet). */
uint64_t ledger_lost(const Ledger *ledger);

#endif
