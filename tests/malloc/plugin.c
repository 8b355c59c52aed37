/* SPDX-License-Identifier: MIT
 *
 * What is opened while the program runs, and closed again: it allocates when it comes and frees when it goes, and so do
 * its threads.
 */
#include "test.h"

static char *kept;
static __thread char own[64]; /* not of the initial ones: the C library allocates for it */

__attribute__((constructor)) static void comes(void)
{
    kept = malloc(5000);
    strcpy(kept, "plugin");
}

__attribute__((destructor)) static void goes(void)
{
    free(kept);
}

static void *work(void *given)
{
    strcpy(own, kept);
    free(given);
    return strdup(own);
}

/* What the caller has to free. */
char *plugin_work(void)
{
    pthread_t thread;
    void *made;
    CHECK(pthread_create(&thread, NULL, work, malloc(300)) == 0 && pthread_join(thread, &made) == 0);
    strcpy(own, made);
    return made;
}
