/* What the programs say about all channels together. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "channel.h"
#include "common.h"

#define MAX_CAUSES 10 /* of broken channels that a result names */
#define MAX_DESCRIPTOR (1 << 24)

int parse_descriptors(const char *text, int *descriptors)
{
    int count = 0;
    for (char *end = NULL; *text; text = *end ? end + 1 : end) {
        long fd = strtol(text, &end, 10);
        if (end == text || (*end && *end != ',') || fd < 0 || fd > MAX_DESCRIPTOR ||
            count == MAX_CHANNELS)
            die("--descriptors holds %s; expected 1 to %d numbers", text, MAX_CHANNELS);
        descriptors[count++] = (int)fd;
    }
    if (count == 0)
        die("--descriptors is empty");
    return count;
}

bool any_outstanding(const Channel *channels, int count)
{
    for (int i = 0; i < count; i++)
        if (!channels[i].cause[0] && ledger_lost(&channels[i].ledger))
            return true;
    return false;
}

void print_accounts(const Channel *channels, int count)
{
    Ledger sum = {0};
    uint64_t lost = 0;
    int broken = 0;
    printf("\"causes\":[");
    for (int i = 0; i < count; i++) {
        const Ledger *one = &channels[i].ledger;
        sum.sent += one->sent;
        sum.intact += one->intact;
        sum.reordered += one->reordered;
        sum.duplicated += one->duplicated;
        sum.changed += one->changed;
        lost += ledger_lost(one);
        if (channels[i].cause[0] && broken++ < MAX_CAUSES) {
            printf(broken > 1 ? "," : "");
            print_string(channels[i].cause);
        }
    }
    printf("],\"broken\":%d,\"sent\":%" PRIu64 ",\"echoed\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"reordered\":%" PRIu64 ",\"duplicated\":%" PRIu64 ",\"changed\":%" PRIu64,
           broken, sum.sent, sum.intact, lost, sum.reordered, sum.duplicated, sum.changed);
}
