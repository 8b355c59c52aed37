/* SPDX-License-Identifier: MIT
 *
 * words [--top N | --all | --figures] [PATH ...]
 *
 * Counts the distinct identifiers (letters, digits and underscores, not starting with a digit) of all regular files
 * under the paths, /usr/include by default, and prints the most frequent ones and what the tables cost. The same counts
 * come from
 *
 *     find PATH ... -type f -exec cat {} + | tr -cs 'A-Za-z0-9_' '\n' | grep '^[A-Za-z_]' | sort | uniq -c
 *
 * but for the words that cat joins where a file does not end in a line's end. tests/check_words.sh compares the two.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "words.h"

#ifdef _WIN32
#define lstat stat /* no symbolic links to be left out */
#endif

enum { TOP_DEFAULT = 20, TOP_MAX = 1000, PATH_LENGTH_MAX = 4096, BUFFER_SIZE = 64 * 1024, WORD_LENGTH_MAX = 64 * 1024 };

/* --- reading ---------------------------------------------------------------------------------------------------- */

typedef struct reader {
    words *set;
    uint64_t files;
    uint64_t bytes;
    uint64_t unreadable;
    size_t length; /* of the word being read, which may cross the end of the buffer */
    char word[WORD_LENGTH_MAX];
    char buffer[BUFFER_SIZE];
} reader;

static void fail(const char *what, vmk_status status)
{
    fprintf(stderr, "words: %s: %s\n", what, vmk_status_text(status));
    exit(1);
}

static bool is_word_letter(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void end_word(reader *in)
{
    if (in->length > 0 && (in->word[0] < '0' || in->word[0] > '9')) {
        vmk_status status = words_add(in->set, in->word, in->length);
        if (status != VMK_OK)
            fail("no room for another word", status);
    }
    in->length = 0;
}

static void read_file(reader *in, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        in->unreadable++;
        return;
    }
    size_t got;
    in->files++;
    while ((got = fread(in->buffer, 1, sizeof in->buffer, file)) > 0) {
        in->bytes += got;
        for (size_t i = 0; i < got; i++) {
            char c = in->buffer[i];
            if (!is_word_letter((unsigned char)c))
                end_word(in);
            else if (in->length < sizeof in->word)
                in->word[in->length++] = c;
            else
                fail("a word is longer than 64 KiB", VMK_ERR_LIMIT);
        }
    }
    end_word(in);
    if (ferror(file))
        in->unreadable++;
    fclose(file);
}

/* `path` has room for PATH_LENGTH_MAX characters, and is as it was when this returns. */
static void read_tree(reader *in, char *path)
{
    struct stat about;
    if (lstat(path, &about) != 0) {
        in->unreadable++;
    } else if (S_ISREG(about.st_mode)) {
        read_file(in, path);
    } else if (S_ISDIR(about.st_mode)) {
        DIR *dir = opendir(path);
        size_t length = strlen(path);
        if (dir == NULL) {
            in->unreadable++;
            return;
        }
        for (struct dirent *item; (item = readdir(dir)) != NULL;) {
            if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
                continue;
            if (length + 1 + strlen(item->d_name) >= PATH_LENGTH_MAX) {
                in->unreadable++;
                continue;
            }
            path[length] = '/';
            strcpy(path + length + 1, item->d_name);
            read_tree(in, path);
            path[length] = '\0';
        }
        closedir(dir);
    }
}

/* --- printing --------------------------------------------------------------------------------------------------- */

static void print_word(const words *set, const entry *e)
{
    printf("%7" PRIu64 " %.*s\n", e->count, (int)e->length, letter_table_at(&set->letters, e->letters));
}

static bool comes_before(const words *set, const entry *a, const entry *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(letter_table_at(&set->letters, a->letters), letter_table_at(&set->letters, b->letters), shorter);
    return order != 0 ? order < 0 : a->length < b->length;
}

static void print_top(const words *set, size_t wanted)
{
    static const entry *top[TOP_MAX + 1];
    size_t known = 0;
    for (size_t number = 1; number < set->entries_used; number++) {
        const entry *e = entry_table_at(&set->entries, number);
        size_t at = known < wanted ? known++ : wanted;
        for (; at > 0 && comes_before(set, e, top[at - 1]); at--)
            top[at] = top[at - 1];
        top[at] = e;
    }
    for (size_t i = 0; i < known; i++)
        print_word(set, top[i]);
}

static void print_all(const words *set)
{
    for (size_t number = 1; number < set->entries_used; number++)
        print_word(set, entry_table_at(&set->entries, number));
}

static void print_figures(const reader *in, double seconds, bool for_programs)
{
    const words *set = in->set;
    vmk_stats stats;
    vmk_usage usage = {0};
    vmk_stats_now(&stats);
    if (vmk_usage_now(&usage) != VMK_OK)
        usage = (vmk_usage){0};
    if (for_programs) {
        printf("files=%" PRIu64 "\nbytes=%" PRIu64 "\ndistinct=%zu\ntotal=%" PRIu64 "\nindex_capacity=%zu\n", in->files,
               in->bytes, set->entries_used - 1, set->total, set->chains.table.capacity);
        printf("reserved=%zu\ncommitted=%zu\nresident=%" PRIu64 "\ncommits=%" PRIu64 "\nseconds=%.2f\n", stats.reserved,
               stats.committed, usage.resident, stats.commit_count, seconds);
        return;
    }
    printf("\n%zu distinct identifiers of %" PRIu64 " in %" PRIu64 " files (%.1f MiB)", set->entries_used - 1,
           set->total, in->files, (double)in->bytes / (1 << 20));
    if (in->unreadable != 0)
        printf("; %" PRIu64 " could not be read", in->unreadable);
    printf("\nreserved   %10.1f MiB of address space by vmkit, %.1f MiB of it for the index\n",
           (double)stats.reserved / (1 << 20), (double)set->chains.table.part_size / (1 << 20));
    printf("committed  %10.1f MiB, in %" PRIu64 " steps\n", (double)stats.committed / (1 << 20), stats.commit_count);
    printf("resident   %10.1f MiB, the whole process\n", (double)usage.resident / (1 << 20));
    printf("time       %10.2f s of the processor\n", seconds);
}

/* --- arguments -------------------------------------------------------------------------------------------------- */

static void usage_and_exit(void)
{
    fprintf(stderr, "usage: words [--top N | --all | --figures] [PATH ...]\n"
                    "counts the identifiers of all files under the paths (default /usr/include)\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static reader in;
    static words set;
    enum { TOP, ALL, FIGURES } mode = TOP;
    size_t wanted = TOP_DEFAULT;
    int at = 1;
    if (at < argc && strcmp(argv[at], "--all") == 0) {
        mode = ALL;
        at++;
    } else if (at < argc && strcmp(argv[at], "--figures") == 0) {
        mode = FIGURES;
        at++;
    } else if (at + 1 < argc && strcmp(argv[at], "--top") == 0) {
        wanted = (size_t)strtoul(argv[at + 1], NULL, 10);
        if (wanted == 0 || wanted > TOP_MAX)
            usage_and_exit();
        at += 2;
    }
    if (at < argc && argv[at][0] == '-')
        usage_and_exit();

    clock_t start = clock();
    vmk_status status = words_init(&set);
    if (status != VMK_OK)
        fail("can't reserve the tables", status);
    in.set = &set;
    static char path[PATH_LENGTH_MAX];
    do {
        snprintf(path, sizeof path, "%s", at < argc ? argv[at] : "/usr/include");
        read_tree(&in, path);
    } while (++at < argc);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (mode == ALL)
        print_all(&set);
    else if (mode == TOP)
        print_top(&set, wanted);
    if (mode != ALL)
        print_figures(&in, seconds, mode == FIGURES);
    words_fini(&set);
    return in.files == 0;
}
