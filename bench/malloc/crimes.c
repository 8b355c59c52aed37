/* SPDX-License-Identifier: MIT
 *
 *     malloc_crimes NUMBER
 *
 * Commit one crime against malloc. Whoever finds it out ends the program; else it prints what came of it and ends with
 * 0. Without NUMBER: their names.
 */
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>

#include "work.h"

enum { MANY = 1000, LARGE = 200000 };
static void *volatile kept[MANY];
static char target[256] __attribute__((aligned(16)));

static void *get(size_t size)
{
    void *block = work_escape(malloc(size));
    if (block == NULL)
        work_fail("no memory");
    memset(block, 1, size);
    return block;
}

/* What a program does afterwards: some blocks of many sizes come and go. */
static void go_on(void)
{
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < MANY; i++)
            kept[i] = get(16 + i % 64 * 16);
        for (size_t i = 0; i < MANY; i++)
            free(kept[i]);
    }
}

static void twice(void)
{
    void *p = get(100);
    free(p);
    free(p);
}
static void twice_after_another(void)
{
    void *p = get(100), *q = get(100);
    free(p);
    free(q);
    free(p);
}
static void twice_after_many(void)
{
    void *p = get(100), *others[100];
    for (int i = 0; i < 100; i++)
        others[i] = get(100);
    free(p);
    for (int i = 0; i < 100; i++)
        free(others[i]);
    free(p);
}
static void twice_large(void)
{
    void *p = get(LARGE);
    free(p);
    free(p);
}
static void *free_it(void *p)
{
    free(p);
    return NULL;
}
static void twice_by_another(void)
{
    void *p = get(100);
    pthread_t thread;
    free(p);
    if (pthread_create(&thread, NULL, free_it, p) == 0)
        pthread_join(thread, NULL);
}
static void interior(void)
{
    char *p = get(200);
    free(p + 64);
}
static void unaligned(void)
{
    char *p = get(200);
    free(p + 4);
}
static void interior_large(void)
{
    char *p = get(LARGE);
    free(p + 4096);
}
static void stack(void)
{
    char p[256];
    free(work_escape(p + 64));
}
static void statics(void)
{
    free(work_escape(target + 64));
}
static void foreign(void)
{
    char *p = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    free(p + 4096);
}
static void realloc_freed(void)
{
    void *p = get(100);
    free(p);
    kept[0] = realloc(p, 5000);
}
static void realloc_interior(void)
{
    char *p = get(200);
    kept[0] = realloc(p + 64, 5000);
}
static void size_of_freed(void)
{
    void *p = get(100);
    free(p);
    printf("%zu\n", malloc_usable_size(p));
}
static void past_small(void)
{
    char *p = get(100);
    memset(work_escape(p), 2, malloc_usable_size(p) + 8);
    free(p);
    go_on();
}
static void past_large(void)
{
    char *p = get(LARGE);
    memset(work_escape(p), 2, malloc_usable_size(p) + 32768);
    free(p);
    go_on();
}
static void write_after_free(void)
{
    char *p = get(100);
    free(p);
    memset(work_escape(p), 2, 64);
    go_on();
}

/* A link that was overwritten, so that memory of the program's choice is handed out: what such bugs are used for. */
static void wild(void)
{
    for (size_t i = 0; i < 8; i++)
        kept[i] = get(100);
    for (size_t i = 0; i < 8; i++)
        free(kept[i]);
    *(uintptr_t volatile *)kept[6] = (uintptr_t)target; /* as it stands there, and as the latest of glibc has it */
    *(uintptr_t volatile *)kept[7] = (uintptr_t)target ^ (uintptr_t)kept[7] >> 12;
    for (size_t i = 0; i < MANY; i++)
        if (malloc(100) == (void *)target) {
            printf("memory of the program's choice was handed out\n");
            exit(0);
        }
    go_on();
}

static const struct {
    const char *name;
    void (*commit)(void);
} crimes[] = {
    {"free twice", twice},
    {"free twice, another in between", twice_after_another},
    {"free twice, a hundred in between", twice_after_many},
    {"free twice, large", twice_large},
    {"free twice, by another thread", twice_by_another},
    {"free of an interior address", interior},
    {"free of an unaligned address", unaligned},
    {"free of an interior address, large", interior_large},
    {"free of the stack", stack},
    {"free of static data", statics},
    {"free of mapped memory", foreign},
    {"realloc of what was freed", realloc_freed},
    {"realloc of an interior address", realloc_interior},
    {"size of what was freed", size_of_freed},
    {"write behind a small block", past_small},
    {"write behind a large block", past_large},
    {"write to what was freed", write_after_free},
    {"a link overwritten", wild},
};
enum { CRIMES = sizeof crimes / sizeof crimes[0] };

int main(int argc, char **argv)
{
    size_t number = argc > 1 ? strtoul(argv[1], NULL, 10) : CRIMES;
    for (size_t i = 0; i < CRIMES && argc == 1; i++)
        puts(crimes[i].name);
    if (number < CRIMES)
        crimes[number].commit();
    puts(number < CRIMES ? "nothing was noticed" : "");
    return 0;
}
