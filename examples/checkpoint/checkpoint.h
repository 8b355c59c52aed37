/* SPDX-License-Identifier: MIT
 *
 * Incremental checkpoints: the contents of a region in a file, of which each checkpoint writes only the pages that were
 * written since the one before. Whenever the program or the machine stops, the file holds the last checkpoint that was
 * finished.
 *
 * The file is a log: a header, then one record for each checkpoint, with its runs of pages, their contents and a
 * checksum of it all at the end. A record without its checksum was never finished: reading ends before it, and the next
 * checkpoint is written over it. When the log is three times as large as the region, the next checkpoint writes all
 * pages into a new file, which takes the old one's place.
 */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include <stdio.h>

#include "vmkit.h"

typedef struct checkpoint {
    vmk_region *region; /* committed as a whole */
    vmk_watch watch;
    uint64_t *pending; /* a bit for each page that was written and is in no finished record yet */
    char *path;
    FILE *file;
    uint64_t id;     /* of the file: no record of another is taken for one of its own */
    uint64_t number; /* of the last finished checkpoint; 0: none */
    uint64_t end;    /* of its record in the file */
    uint64_t limit;  /* bytes after which the program ends, as if it had crashed; for tests. 0: never */
} checkpoint;

/* Bind a region, committed as a whole and zero, to a file: what the file holds is read into it, a file that isn't there
 * is made. False: it can't be opened, or is of another kind or size; the reason is printed. */
bool checkpoint_open(checkpoint *c, vmk_region *region, const char *path);

/* Write what has changed. Nobody writes to the region meanwhile. False: it could not be written; the reason is printed,
 * the file still holds the checkpoint before, and the next one writes what this one should have. *bytes: written. */
bool checkpoint_write(checkpoint *c, uint64_t *bytes);

void checkpoint_close(checkpoint *c);

#endif
