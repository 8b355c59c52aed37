/* SPDX-License-Identifier: MIT
 *
 * What the standards, POSIX and glibc say of the C library's allocating functions; and calls before the program begins.
 */
#include "test.h"

#include <signal.h>
#include <sys/wait.h>

/* Of C23, and not in every C library. */
extern void free_sized(void *object, size_t size) __attribute__((weak));
extern void free_aligned_sized(void *object, size_t align, size_t size) __attribute__((weak));

/* --- before main ------------------------------------------------------------------------------------------------ */

static char *early[2];

static void before_constructors(void)
{
    early[0] = malloc(24);
    strcpy(early[0], "before constructors");
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = before_constructors;

__attribute__((constructor(101))) static void in_constructor(void)
{
    early[1] = calloc(1, 24);
    strcpy(early[1], "in a constructor");
    early[0] = realloc(early[0], 1000);
}

__attribute__((destructor)) static void in_destructor(void)
{
    free(early[0]);
    free(malloc(100));
}

static void test_early(void)
{
    CHECK(strcmp(early[0], "before constructors") == 0 && strcmp(early[1], "in a constructor") == 0);
    free(early[1]);
    void *object = malloc(16); /* the environment has been read, or not, rightly: a canary takes room */
    CHECK(malloc_usable_size(object) == (is_hardened() ? 24 : 16));
    free(object);
}

/* --- the family ------------------------------------------------------------------------------------------------- */

static bool aligned(const void *object, size_t align)
{
    return (uintptr_t)object % align == 0;
}

static void test_malloc(void)
{
    for (size_t size = 0; size < 3000000; size = size * 9 / 8 + 1) {
        char *object = malloc(size);
        CHECK(object != NULL && aligned(object, 16) && malloc_usable_size(object) >= size);
        memset(object, 0x5a, malloc_usable_size(object));
        char *zero = calloc(size / 3 + 1, 3);
        for (size_t i = 0; i < size; i++)
            CHECK(zero[i] == 0);
        free(object);
        free(zero);
    }
    void *a = malloc(0), *b = malloc(0);
    CHECK(a != NULL && b != NULL && a != b);
    free(a);
    free(b);
}

static void test_too_large(void)
{
    static const size_t sizes[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX - 100000};
    char *object = malloc(100);
    for (size_t i = 0; i < 4; i++) {
        size_t size = hidden_size(sizes[i]);
        void *made = &made;
        errno = 0;
        CHECK(hidden(malloc(size)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(hidden(calloc(size, 1)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(hidden(realloc(hidden(object), size)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(hidden(aligned_alloc(64, size)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(hidden(memalign(4096, size)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(hidden(valloc(size)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(hidden(pvalloc(size)) == NULL && errno == ENOMEM);
        errno = 7;
        CHECK(posix_memalign(&made, 64, size) == ENOMEM && made == &made && errno == 7);
    }
    errno = 0;
    CHECK(hidden(calloc(hidden_size(SIZE_MAX / 2), 3)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(hidden(reallocarray(hidden(object), hidden_size(SIZE_MAX / 2), 3)) == NULL && errno == ENOMEM);
    free(object);
}

static void test_realloc(void)
{
    char *object = realloc(NULL, 10);
    strcpy(object, "contents");
    for (size_t size = 10; size < 50000000; size *= 3) {
        object = realloc(object, size);
        CHECK(object != NULL && aligned(object, 16) && strcmp(object, "contents") == 0);
        object[size - 1] = 1;
    }
    for (size_t size = 40000000; size > 10; size /= 2) {
        object = realloc(object, size);
        CHECK(object != NULL && strcmp(object, "contents") == 0);
    }
    object = reallocarray(object, 10, 10);
    CHECK(malloc_usable_size(object) >= 100 && strcmp(object, "contents") == 0);
    errno = 7;
    CHECK(hidden(realloc(object, hidden_size(0))) == NULL && errno == 7); /* it is free */
    object = realloc(NULL, hidden_size(0));
    CHECK(object != NULL);
    free(object);
}

static void test_alignment(void)
{
    void *object;
    for (size_t align = 1; align <= (size_t)4 << 20; align *= 2)
        for (size_t size = 0; size <= 100000; size = size * 7 + 1) {
            object = memalign(align, size);
            CHECK(object != NULL && aligned(object, align) && malloc_usable_size(object) >= size);
            memset(object, 1, size);
            free(object);
            object = aligned_alloc(align, size);
            CHECK(object != NULL && aligned(object, align));
            object = realloc(object, size + 1);
            CHECK(object != NULL && malloc_usable_size(object) > size);
            free(object);
            int error = posix_memalign(&object, align, size);
            CHECK(error == (align < sizeof(void *) ? EINVAL : 0));
            if (error == 0)
                free(object);
        }
    object = &object;
    errno = 7;
    CHECK(posix_memalign(&object, hidden_size(0), 8) == EINVAL &&
          posix_memalign(&object, hidden_size(24), 8) == EINVAL);
    CHECK(object == &object && errno == 7);
    CHECK(hidden(aligned_alloc(hidden_size(24), 48)) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(hidden(aligned_alloc(hidden_size(0), 48)) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(hidden(memalign(hidden_size(SIZE_MAX), 48)) == NULL && errno == EINVAL);
    object = memalign(hidden_size(48), 48); /* glibc: the next power of two */
    CHECK(aligned(object, 64));
    free(object);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    object = valloc(10);
    CHECK(object != NULL && aligned(object, page));
    free(object);
    object = pvalloc(page + 1);
    CHECK(object != NULL && aligned(object, page) && malloc_usable_size(object) >= 2 * page);
    free(object);
}

static void test_free(void)
{
    static const size_t sizes[] = {1, 1000, 5000, 100000, 3000000, 80000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *object = malloc(sizes[i]);
        CHECK(object != NULL);
        object[0] = object[sizes[i] - 1] = 1;
        errno = 77;
        free(object);
        CHECK(errno == 77);
        object = malloc(sizes[i]);
        free_sized(object, sizes[i]);
        object = aligned_alloc(64, sizes[i]);
        free_aligned_sized(object, 64, sizes[i]);
    }
    free(NULL);
    free_sized(NULL, 0);
    CHECK(malloc_usable_size(NULL) == 0);
}

static void test_figures(void)
{
    char *object = hidden(malloc(3 << 20));
    memset(object, 1, 3 << 20);
#if defined(__GLIBC__)
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* for what is too small for today's sizes */
    CHECK(mallinfo().uordblks >= 3 << 20);
#if __GLIBC_PREREQ(2, 33)
    CHECK(mallinfo2().uordblks >= 3 << 20 && mallinfo2().uordblks <= mallinfo2().arena);
#endif
#endif
    free(object);
    CHECK(malloc_trim(0) == 1);
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && mallopt(-100, 5) == 1);
    malloc_stats();
}

/* --- misuse ----------------------------------------------------------------------------------------------------- */

static void free_twice(void)
{
    void *object = malloc(100), *again = hidden(object);
    free(object);
    free(again);
}

static void free_large_twice(void)
{
    void *object = malloc(1000000), *again = hidden(object);
    free(object);
    free(again);
}

static void free_foreign(void)
{
    static char somewhere[64];
    free(hidden(somewhere + 16));
}

static void free_stack(void)
{
    char here[64];
    free(hidden(here));
}

static void free_interior(void)
{
    char *object = malloc(100);
    free(hidden(object + 16));
}

static void free_odd(void)
{
    char *object = malloc(100);
    free(hidden(object + 1));
}

static void free_interior_large(void)
{
    char *object = malloc(1000000);
    free(hidden(object + 65536));
}

static void realloc_freed(void)
{
    void *object = malloc(100), *again = hidden(object);
    free(object);
    hidden(realloc(again, 200));
}

static void size_of_foreign(void)
{
    int here;
    hidden_size(malloc_usable_size(hidden(&here)));
}

static void *free_it(void *object)
{
    free(object);
    return NULL;
}

static void free_twice_elsewhere(void)
{
    pthread_t thread;
    void *object = hidden(malloc(100));
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_create(&thread, NULL, free_it, hidden(object)) == 0);
        pthread_join(thread, NULL);
    }
}

static void (*const crimes[])(void) = {
    free_twice, free_large_twice,    free_foreign,  free_stack,      free_interior,
    free_odd,   free_interior_large, realloc_freed, size_of_foreign, free_twice_elsewhere};

static void test_misuse(void)
{
    for (size_t i = 0; i < sizeof crimes / sizeof crimes[0]; i++) {
        char said[256] = "";
        int ends[2], status;
        CHECK(pipe(ends) == 0);
        pid_t child = fork();
        if (child == 0) {
            dup2(ends[1], STDERR_FILENO);
            crimes[i]();
            _exit(0);
        }
        close(ends[1]);
        CHECK(read(ends[0], said, sizeof said - 1) >= 0);
        close(ends[0]);
        CHECK(waitpid(child, &status, 0) == child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || strncmp(said, "vmkit: vmk_heap_", 16) != 0)
            fprintf(stderr, "crime %zu: %s", i, said);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        CHECK(strncmp(said, "vmkit: vmk_heap_", 16) == 0);
    }
}

int main(void)
{
    check_that_it_is_ours();
    test_early();
    test_malloc();
    test_too_large();
    test_realloc();
    test_alignment();
    test_free();
    test_figures();
    test_misuse();
    return 0;
}
