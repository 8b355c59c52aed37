/* SPDX-License-Identifier: MIT
 *
 * Runs a fuzz target without a fuzzer: fuzz_LAYER [file or directory ...]. First the inputs in the files, and in the
 * files of the directories; one that isn't there is no mistake, for a corpus may be empty. Then pseudo-random ones: by
 * VMKIT_SEED, or the time, and as many as VMKIT_ROUNDS (a factor) says.
 *
 * The input that ends in an abort is written to fuzz_failed.bin, to be run again as a file.
 */
#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "fuzz.h"
#include "support_private.h"

enum { INPUT_SIZE_MAX = 1 << 16, RANDOM_SIZE_MAX = 600, INPUTS = 150 };

static uint8_t input[INPUT_SIZE_MAX];
static size_t input_size;

static void keep_input(int signal_number)
{
    (void)signal_number;
    FILE *file = fopen("fuzz_failed.bin", "wb");
    if (file != NULL) {
        fwrite(input, 1, input_size, file);
        fclose(file);
        fputs("the input is in fuzz_failed.bin\n", stderr);
    }
}

/* The target gets a copy of just the size, so that a sanitizer sees it read past the end. */
static void run(void)
{
    uint8_t *copy = malloc(input_size != 0 ? input_size : 1);
    if (copy == NULL)
        abort();
    memcpy(copy, input, input_size);
    (void)LLVMFuzzerTestOneInput(copy, input_size);
    free(copy);
}

/* False if it is no file that can be read. */
static bool run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    input_size = fread(input, 1, sizeof input, file);
    bool whole = !ferror(file);
    fclose(file);
    if (whole)
        run();
    return whole;
}

static size_t run_directory(DIR *directory, const char *path)
{
    char name[1024];
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int length = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.' && length > 0 && (size_t)length < sizeof name)
            count += run_file(name);
    }
    return count;
}

static size_t run_path(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return run_file(path);
    size_t count = run_directory(directory, path);
    closedir(directory);
    return count;
}

static uint64_t splitmix(uint64_t *state)
{
    uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* Half of the inputs have no failure planned, and go further. */
static void make_random(uint64_t seed, uint64_t number)
{
    uint64_t state = seed + number * UINT64_C(0xd1342543de82ef95);
    input_size = (size_t)(splitmix(&state) % RANDOM_SIZE_MAX);
    for (size_t i = 0; i < input_size; i++)
        input[i] = (uint8_t)splitmix(&state);
    if (number % 2 == 0)
        input[0] = 0;
}

int main(int argc, char **argv)
{
    const char *text = getenv("VMKIT_SEED");
    uint64_t seed = text != NULL && *text != '\0' ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    size_t files = 0;
    support_prepare(argv[0]);
    signal(SIGABRT, keep_input);
    printf("seed: %llu (VMKIT_SEED)\n", (unsigned long long)seed);
    fflush(stdout);
    for (int i = 1; i < argc; i++)
        files += run_path(argv[i]);
    size_t count = support_rounds(INPUTS);
    for (size_t i = 0; i < count; i++) {
        make_random(seed, i);
        run();
    }
    printf("%u inputs from files, %u random ones: all well\n", (unsigned)files, (unsigned)count);
    return 0;
}
