#include "ledger.h"

#include <stdlib.h>
#include <string.h>

/* Room for the bits up to `sequence`; there is none until something is missing. */
static void make_room(Ledger *ledger, uint64_t sequence)
{
    if (sequence < ledger->capacity)
        return;
    uint64_t bytes = (sequence / 8 + 1) * 2;
    uint8_t *bits = realloc(ledger->bits, bytes);
    if (bits == NULL)
        abort();
    memset(bits + ledger->capacity / 8, 0, bytes - ledger->capacity / 8);
    ledger->bits = bits;
    ledger->capacity = bytes * 8;
}

/* Expect the one behind `sequence` next; those passed over may still come. */
static void pass_over(Ledger *ledger, uint64_t sequence)
{
    make_room(ledger, sequence);
    for (; ledger->expected < sequence; ledger->expected++)
        ledger->bits[ledger->expected / 8] |= (uint8_t)(1U << (ledger->expected & 7));
}

static bool take_missing(Ledger *ledger, uint64_t sequence)
{
    uint8_t bit = (uint8_t)(1U << (sequence & 7));
    if (sequence >= ledger->capacity || !(ledger->bits[sequence / 8] & bit))
        return false;
    ledger->bits[sequence / 8] &= (uint8_t)~bit;
    return true;
}

bool ledger_judge(Ledger *ledger, uint64_t sequence)
{
    if (sequence >= ledger->sent) {
        ledger_changed(ledger);
        return false;
    }
    if (sequence < ledger->expected) {
        if (!take_missing(ledger, sequence)) {
            ledger->duplicated++;
            return false;
        }
        ledger->reordered++;
    } else {
        if (sequence > ledger->expected)
            pass_over(ledger, sequence);
        ledger->expected = sequence + 1;
    }
    ledger->intact++;
    return true;
}

void ledger_changed(Ledger *ledger)
{
    ledger->changed++;
    /* Most likely it was the one that was expected; if not, that one may still come. */
    if (ledger->expected < ledger->sent)
        pass_over(ledger, ledger->expected + 1);
}

uint64_t ledger_lost(const Ledger *ledger)
{
    uint64_t back = ledger->intact + ledger->changed;
    return back < ledger->sent ? ledger->sent - back : 0;
}
