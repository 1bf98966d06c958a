/* Keeps one core from falling asleep, at the lowest priority that there is.
 *
 * A core without work halts. On a virtual machine that gives it back to the host, and to get it
 * again takes 30 to 100 us, never twice the same: as much as a message's whole way through a
 * target. A process of SCHED_IDLE steps aside for any other at once, so it takes no time from
 * what is measured; it only keeps the core.
 *
 * awake --core N --lifetime SECONDS
 */
#define _GNU_SOURCE
#include <sched.h>
#include <unistd.h>

#include "common.h"

int main(int count, char **words)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(option_number(count, words, "core", 0, CPU_SETSIZE - 1), &cores);
    alarm((unsigned)option_number(count, words, "lifetime", 1, 24 * 3600));
    struct sched_param lowest = {.sched_priority = 0};
    if (sched_setaffinity(0, sizeof cores, &cores) < 0)
        die_errno("sched_setaffinity");
    if (sched_setscheduler(0, SCHED_IDLE, &lowest) < 0)
        die_errno("sched_setscheduler");
    for (volatile unsigned long turns = 0;; turns++) /* ended by a signal, at the latest the alarm */
        ;
}
