/* SPDX-License-Identifier: MIT
 *
 * threads WHAT: fork in a storm of threads; very many short threads; plugins; threads that allocate after their end.
 * VMKIT_ROUNDS=0.1: less of it.
 */
#include "test.h"

#include <sys/wait.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* mallinfo, which is too small for today's sizes */

enum { STORM = 4, SHARED = 256, STORM_ROUNDS = 40, SHORT_THREADS = 100000, LATE_THREADS = 2000 };

static uintptr_t rounds(uintptr_t count)
{
    const char *factor = getenv("VMKIT_ROUNDS");
    return factor != NULL ? (uintptr_t)((double)count * atof(factor)) : count;
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Mostly small. */
static size_t some_size(uint32_t *state)
{
    size_t size = next_random(state) % 1000;
    uint32_t kind = next_random(state) % 100;
    return kind == 0 ? size * 100 : kind < 10 ? size * 20 : size;
}

/* KiB that the process takes. A 32-bit program may be run by an emulator, which needs memory for what it does: then
 * what malloc says of itself must do. */
static size_t memory_now(const char *field)
{
    char line[256];
    size_t kib = 0;
    if (sizeof(void *) < 8)
        return (size_t)mallinfo().arena >> 10;
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtoul(line + strlen(field), NULL, 10);
    fclose(file);
    return kib;
}

/* --- fork in a storm -------------------------------------------------------------------------------------------- */

static void *shared[SHARED]; /* what one thread allocates another frees */
static int over;

static void stir(uint32_t *state, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        size_t size = some_size(state);
        char *object = next_random(state) % 4 == 0 ? calloc(1, size) : malloc(size);
        CHECK(object != NULL);
        memset(object, 1, size);
        if (next_random(state) % 16 == 0)
            object = realloc(object, some_size(state) + 1);
        free(__atomic_exchange_n(&shared[next_random(state) % SHARED], object, __ATOMIC_ACQ_REL));
    }
}

static void *storm(void *seed)
{
    uint32_t state = (uint32_t)(uintptr_t)seed;
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE))
        stir(&state, 100);
    return NULL;
}

static void *short_storm(void *seed)
{
    uint32_t state = (uint32_t)(uintptr_t)seed;
    stir(&state, 500);
    return NULL;
}

/* All that came with the fork can be freed, and threads come and go here as well. */
static void in_child(uint32_t round)
{
    pthread_t threads[2];
    uint32_t state = round;
    alarm(60);
    for (uintptr_t i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, short_storm, (void *)(i + round)) == 0);
    stir(&state, 1000);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SHARED; i++)
        free(shared[i]);
    malloc_trim(0);
    if (round % 10 == 0) { /* and it forks itself */
        pid_t child = fork();
        if (child == 0) {
            free(malloc(100000));
            exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    exit(0);
}

static void test_fork(void)
{
    pthread_t threads[STORM], brief;
    for (uintptr_t i = 0; i < STORM; i++)
        CHECK(pthread_create(&threads[i], NULL, storm, (void *)(i + 1)) == 0);
    for (uint32_t round = 0; round < rounds(STORM_ROUNDS); round++) {
        int status;
        CHECK(pthread_create(&brief, NULL, short_storm, (void *)(uintptr_t)(round + 100)) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            in_child(round);
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
        pthread_join(brief, NULL);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < STORM; i++)
        pthread_join(threads[i], NULL);
}

/* --- very many short threads ------------------------------------------------------------------------------------ */

static void *short_thread(void *given)
{
    uint32_t state = (uint32_t)(uintptr_t)given;
    void *objects[20];
    for (int i = 0; i < 20; i++)
        objects[i] = malloc(next_random(&state) % 300);
    for (int i = 1; i < 20; i++)
        free(objects[i]);
    return objects[0]; /* freed by who joins */
}

static void test_churn(void)
{
    size_t before = 0;
    for (uintptr_t i = 0; i < rounds(SHORT_THREADS) / 4; i++) {
        pthread_t threads[4];
        for (uintptr_t j = 0; j < 4; j++)
            CHECK(pthread_create(&threads[j], NULL, short_thread, (void *)(i * 4 + j)) == 0);
        for (int j = 0; j < 4; j++) {
            void *object;
            pthread_join(threads[j], &object);
            free(object);
        }
        if (i == rounds(SHORT_THREADS) / 40)
            before = memory_now("VmRSS:");
    }
    size_t after = memory_now("VmRSS:");
    fprintf(stderr, "resident: %zu KiB after a tenth of the threads, %zu after all\n", before, after);
    CHECK(after <= before + (is_hardened() ? 4096 : 2048)); /* what is kept back varies */
}

/* Each leaves an object behind: what others of its slab's slots are free later threads find. */
static void *leaving_thread(void *unused)
{
    (void)unused;
    return malloc(300);
}

static void test_leave(void)
{
    static void *objects[LATE_THREADS];
    size_t before = memory_now("VmData:");
    for (int i = 0; i < LATE_THREADS; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, leaving_thread, NULL) == 0 && pthread_join(thread, &objects[i]) == 0);
    }
    size_t after = memory_now("VmData:");
    for (int i = 0; i < LATE_THREADS; i++)
        free(objects[i]);
    CHECK(after <= before + 16384);
}

/* --- after the end ---------------------------------------------------------------------------------------------- */

static pthread_key_t late_keys[3];
static int late_rounds;

/* A destructor that wants to be called again, and is until the C library has had enough. */
static void late(void *given)
{
    char *object = malloc(200);
    strcpy(object, "late");
    free(given);
    for (int i = 0; i < 3; i++)
        if (pthread_getspecific(late_keys[i]) == NULL)
            pthread_setspecific(late_keys[i], realloc(object, 300)), object = calloc(1, 50);
    free(object);
    void *aligned;
    CHECK(posix_memalign(&aligned, 256, 500) == 0);
    free(aligned);
    __atomic_add_fetch(&late_rounds, 1, __ATOMIC_RELAXED);
}

static void *late_thread(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++)
        pthread_setspecific(late_keys[i], malloc(100));
    return NULL;
}

static void test_late(void)
{
    size_t before = 0;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_key_create(&late_keys[i], late) == 0);
    for (int i = 0; i < LATE_THREADS; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, late_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
        if (i == LATE_THREADS / 10)
            before = memory_now("VmRSS:");
    }
    size_t after = memory_now("VmRSS:");
    fprintf(stderr, "resident: %zu KiB, then %zu; destructors ran %d times\n", before, after, late_rounds);
    CHECK(late_rounds >= 3 * 3 * LATE_THREADS);
    CHECK(after <= before + 3 * LATE_THREADS * 400 / 1024 + 1024); /* three objects are lost with each, the last ones */
}

/* --- plugins ---------------------------------------------------------------------------------------------------- */

static void test_plugin(const char *path)
{
    size_t before = 0;
    for (int i = 0; i < 300; i++) {
        void *plugin = dlopen(path, i % 2 != 0 ? RTLD_NOW : RTLD_LAZY | RTLD_GLOBAL);
        if (plugin == NULL)
            fprintf(stderr, "%s\n", dlerror());
        CHECK(plugin != NULL);
        char *(*work)(void) = (char *(*)(void))dlsym(plugin, "plugin_work");
        CHECK(work != NULL);
        char *made = work();
        CHECK(dlclose(plugin) == 0);
        CHECK(strcmp(made, "plugin") == 0);
        free(made);
        CHECK(dlopen("/nowhere/at/all.so", RTLD_NOW) == NULL && dlerror() != NULL);
        if (i == 30)
            before = memory_now("VmRSS:");
    }
    CHECK(memory_now("VmRSS:") <= before + 1024);
}

/* --- many keys: what the C library keeps of them it allocates, while a thread is given its cache ----------------- */

static void *thread_of_keys(void *key)
{
    pthread_setspecific(*(pthread_key_t *)key, "value");
    void *object = malloc(10);
    CHECK(strcmp(pthread_getspecific(*(pthread_key_t *)key), "value") == 0);
    free(object);
    return NULL;
}

static void test_keys(void)
{
    pthread_key_t keys[600];
    for (int i = 0; i < 600; i++)
        CHECK(pthread_key_create(&keys[i], NULL) == 0);
    for (int i = 0; i < 600; i += 7) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, thread_of_keys, &keys[i]) == 0 && pthread_join(thread, NULL) == 0);
    }
}

/* --- under a limit on the process ------------------------------------------------------------------------------- */

/* As many blocks as there are, each with a link to the one before, and what that tells of the end; then none. */
static size_t all_there_are(size_t size)
{
    void *last = NULL, *block;
    size_t count = 0;
    errno = 0;
    for (; (block = hidden(malloc(size))) != NULL; count++, last = block)
        *(void **)block = last;
    CHECK(errno == ENOMEM);
    CHECK(last == NULL || hidden(realloc(last, (size_t)1 << 30)) == NULL); /* and it is as it was */
    while (last != NULL) {
        block = *(void **)last;
        free(last);
        last = block;
    }
    return count;
}

/* What one size has had can be had by another, again and again. */
static void test_exhaustion(void)
{
    static const size_t sizes[] = {100, 5000, 100000, (size_t)3 << 20};
    size_t most = 0, least = SIZE_MAX;
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            size_t bytes = all_there_are(sizes[i]) * sizes[i];
            most = bytes > most ? bytes : most;
            least = bytes < least ? bytes : least;
        }
    CHECK(least > most / 2);
    CHECK(least > (size_t)8 << 20);
}

int main(int count, char **arguments)
{
    const char *what = count > 1 ? arguments[1] : "";
    if (strcmp(what, "start") == 0) { /* with any malloc */
        free(hidden(malloc(100)));
        return 0;
    }
    check_that_it_is_ours();
    if (strcmp(what, "fork") == 0)
        test_fork();
    else if (strcmp(what, "churn") == 0)
        test_churn();
    else if (strcmp(what, "leave") == 0)
        test_leave();
    else if (strcmp(what, "late") == 0)
        test_late();
    else if (strcmp(what, "keys") == 0)
        test_keys();
    else if (strcmp(what, "exhaustion") == 0) /* under ulimit -v */
        test_exhaustion();
    else if (count == 3 && strcmp(what, "plugin") == 0)
        test_plugin(arguments[2]);
    else
        return 2;
    return 0;
}
