/* SPDX-License-Identifier: MIT
 *
 *     malloc_run REPORT LIBRARY PROGRAM [ARGUMENT...]
 *
 * Run a program with a library preloaded, and write to the file REPORT: seconds by the clock, seconds of processor
 * time, the largest resident set of any one process in KiB, and the exit status (128 and more: a signal).
 *
 * This is a program of its own because the system counts as the peak of a process also what it had before exec: a child
 * of python's would have at least python's memory, which is more than many workloads need.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WARM_BYTES = 128 << 20 }; /* about what the largest workloads need */

/* Hypervisors take memory that a guest does not use, and whoever touches it next pays many times a page fault. So it is
 * touched and freed here before the clock starts, and every run finds the machine's memory in the same state. */
static void warm(void)
{
    void *base = mmap(NULL, WARM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (base != MAP_FAILED)
        munmap(base, WARM_BYTES);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

static void child(char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* or an endless program would be left when this one is killed for taking long */
    if (setenv("LD_PRELOAD", argv[2], 1) == 0)
        execvp(argv[3], argv + 3);
    perror(argv[3]);
    _exit(127);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: malloc_run REPORT LIBRARY PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    warm();
    double start = now();
    pid_t process = fork();
    if (process == 0)
        child(argv);
    int status;
    struct rusage usage;
    if (process < 0 || wait4(process, &status, 0, &usage) != process) {
        perror("malloc_run");
        return 2;
    }
    double end = now();
    FILE *report = fopen(argv[1], "w");
    if (report == NULL) {
        perror(argv[1]);
        return 2;
    }
    fprintf(report, "%.6f %.6f %ld %d\n", end - start, seconds(usage.ru_utime) + seconds(usage.ru_stime),
            usage.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return fclose(report) == 0 ? 0 : 2;
}
