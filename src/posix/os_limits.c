/* SPDX-License-Identifier: MIT
 *
 * The limits on this process and what it uses, read from getrlimit and, on Linux, from /proc and the cgroup mounts. On
 * other systems those files are not there, which is no error: nothing is known then.
 *
 * A process is in one cgroup of the unified hierarchy (v2) and in one of each v1 hierarchy, of which only that with the
 * memory controller matters; on hybrid set-ups both exist and one of them has the controller. A limit of any ancestor
 * binds too, so the least from the process's cgroup up to the mount's root is taken. Three names come together in
 * finding it (cgroups(7), cgroup_namespaces(7)):
 *
 *   /proc/self/cgroup      the cgroup, as a path from the root of the hierarchy, or of the cgroup namespace;
 *   /proc/self/mountinfo   the root: which cgroup, named in the same way, is what the mount shows at
 *                          the mount point: a directory, here.
 *
 * All reading is by small blocks on the stack: no stdio, no allocation; and a line that is longer than its buffer is
 * cut (mounts of overlay file systems have very long ones, those of cgroups do not).
 */
#include "posix/os_private.h"

#define LINE_SIZE 2048

/* --- small files ------------------------------------------------------------------------------------------------ */

static int open_file(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
}

static size_t read_block(int file, char *block, size_t size)
{
    ssize_t got;
    do
        got = read(file, block, size);
    while (got < 0 && errno == EINTR);
    return got > 0 ? (size_t)got : 0;
}

bool vmki_posix_read_text(const char *path, char *text, size_t size)
{
    int file = open_file(path);
    if (file < 0)
        return false;
    size_t length = 0, got;
    do {
        got = read_block(file, text + length, size - 1 - length);
        length += got;
    } while (got != 0 && length < size - 1 && text[length - 1] != '\n');
    (void)close(file);
    text[length] = '\0';
    return length != 0;
}

/* Decimal digits, up to a space, a line's end or the text's; UINT64_MAX where that is too much. Nothing else is a
 * number. */
static bool parse_number(const char *text, uint64_t *value)
{
    uint64_t number = 0;
    const char *digit = text;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        uint64_t add = (uint64_t)(*digit - '0');
        number = number > (UINT64_MAX - add) / 10 ? UINT64_MAX : number * 10 + add;
    }
    if (digit == text || (*digit != '\0' && *digit != '\n' && *digit != ' '))
        return false;
    *value = number;
    return true;
}

bool vmki_posix_read_number(const char *path, uint64_t *value)
{
    char text[32];
    return vmki_posix_read_text(path, text, sizeof text) && parse_number(text, value);
}

bool vmki_posix_lines_open(vmki_posix_lines *in, const char *path)
{
    in->file = open_file(path);
    in->at = in->limit = 0;
    return in->file >= 0;
}

void vmki_posix_lines_close(vmki_posix_lines *in)
{
    (void)close(in->file);
}

/* Hexadecimal digits at *text, which moves past them. */
static uint64_t parse_hex(const char **text)
{
    uint64_t value = 0;
    for (;; (*text)++) {
        unsigned char c = (unsigned char)**text;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            return value;
    }
}

/* Of /proc/PID/maps and smaps: "5581e0400000-5581e0421000 rw-p ...". */
const char *vmki_posix_range_in(const char *line, uint64_t *from, uint64_t *to)
{
    *from = parse_hex(&line);
    line += *line == '-';
    *to = parse_hex(&line);
    return line;
}

bool vmki_posix_lines_next(vmki_posix_lines *in, char *line, size_t size)
{
    size_t length = 0;
    for (;;) {
        if (in->at == in->limit) {
            in->at = 0;
            in->limit = read_block(in->file, in->block, sizeof in->block);
            if (in->limit == 0) {
                line[length] = '\0';
                return length != 0;
            }
        }
        char c = in->block[in->at++];
        if (c == '\n') {
            line[length] = '\0';
            return true;
        }
        if (length < size - 1)
            line[length++] = c;
    }
}

bool vmki_posix_join(char *path, const char *prefix, const char *rest)
{
    size_t before = strlen(prefix), after = strlen(rest);
    if (before + after >= VMKI_POSIX_PATH)
        return false;
    memcpy(path, prefix, before);
    memcpy(path + before, rest, after + 1);
    return true;
}

/* --- files of named figures ------------------------------------------------------------------------------------- */

static void read_field(const char *line, vmki_posix_field *fields, size_t count, unsigned shift)
{
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(fields[i].name);
        uint64_t figure;
        if (strncmp(line, fields[i].name, length) != 0)
            continue;
        const char *text = line + length;
        while (*text == ' ' || *text == '\t')
            text++;
        if (parse_number(text, &figure) && figure <= UINT64_MAX >> shift)
            fields[i].bytes = figure << shift;
    }
}

bool vmki_posix_read_fields(const char *path, vmki_posix_field *fields, size_t count, unsigned shift)
{
    vmki_posix_lines in;
    char line[128];
    if (!vmki_posix_lines_open(&in, path))
        return false;
    while (vmki_posix_lines_next(&in, line, sizeof line))
        read_field(line, fields, count, shift);
    vmki_posix_lines_close(&in);
    return true;
}

/* --- cgroups ---------------------------------------------------------------------------------------------------- */

/* The process's cgroups, empty where it is in none. */
typedef struct membership {
    char unified[VMKI_POSIX_PATH]; /* v2 */
    char memory[VMKI_POSIX_PATH];  /* the v1 hierarchy that has the memory controller */
} membership;

/* Is the word in the list, whose items end at a comma or at a space? */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (;;) {
        size_t item = strcspn(list, ", ");
        if (item == length && strncmp(list, word, length) == 0)
            return true;
        if (list[item] != ',')
            return false;
        list += item + 1;
    }
}

/* A line is ID:CONTROLLERS:PATH, for v2 "0::PATH". A path may hold colons. */
static void membership_add(membership *cgroups, char *line)
{
    char *controllers = strchr(line, ':');
    char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (path == NULL || path[1] != '/' || strlen(path + 1) >= VMKI_POSIX_PATH)
        return;
    *path++ = '\0';
    controllers++;
    if (*controllers == '\0')
        memcpy(cgroups->unified, path, strlen(path) + 1);
    else if (list_has(controllers, "memory"))
        memcpy(cgroups->memory, path, strlen(path) + 1);
}

static bool membership_read(const char *prefix, membership *cgroups)
{
    vmki_posix_lines in;
    char line[LINE_SIZE];
    cgroups->unified[0] = cgroups->memory[0] = '\0';
    if (!vmki_posix_join(line, prefix, "/proc/self/cgroup") || !vmki_posix_lines_open(&in, line))
        return false;
    while (vmki_posix_lines_next(&in, line, sizeof line))
        membership_add(cgroups, line);
    vmki_posix_lines_close(&in);
    return cgroups->unified[0] != '\0' || cgroups->memory[0] != '\0';
}

/* A line of mountinfo (proc(5)); the strings are pieces of it. */
typedef struct mount {
    char *root, *point, *type, *options;
} mount;

/* Spaces, tabs, newlines and backslashes come as \ooo. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        bool octal = from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
                     from[3] >= '0' && from[3] <= '7';
        *to = octal ? (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0')) : *from;
        from += octal ? 4 : 1;
    }
    *to = '\0';
}

/* The word that begins at *at, which it ends, and moves behind it; NULL if there is none. */
static char *next_word(char **at)
{
    char *word = *at;
    if (*word == '\0')
        return NULL;
    size_t length = strcspn(word, " ");
    *at = word + length;
    if (**at == ' ')
        *(*at)++ = '\0';
    return word;
}

/* "id parent device ROOT POINT options [tags ...] - TYPE source OPTIONS" */
static bool mount_parse(char *line, mount *out)
{
    char *word = next_word(&line);
    for (unsigned i = 0; i < 3 && word != NULL; i++)
        word = next_word(&line);
    out->root = word;
    out->point = next_word(&line);
    do
        word = next_word(&line);
    while (word != NULL && strcmp(word, "-") != 0);
    out->type = word == NULL ? NULL : next_word(&line);
    (void)next_word(&line);
    out->options = next_word(&line);
    if (out->options == NULL)
        return false;
    unescape(out->root);
    unescape(out->point);
    return out->root[0] == '/' && out->point[0] == '/';
}

/* Does the path begin with a step up? That is how a namespace shows what lies outside it. */
static bool leads_up(const char *path)
{
    return strncmp(path, "/..", 3) == 0 && (path[3] == '/' || path[3] == '\0');
}

static bool leads_up_only(const char *path)
{
    while (leads_up(path))
        path += 3;
    return *path == '\0';
}

/* Where the cgroup is below a mount that shows `root`; NULL if it isn't there, or can't be named. */
static const char *path_inside(const char *cgroup, const char *root)
{
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(cgroup, root, length) == 0 && (cgroup[length] == '/' || cgroup[length] == '\0'))
        return leads_up(cgroup + length) ? NULL : cgroup + length;
    /* A mount from outside the namespace shows a forefather of ours; the names on the way down are hidden from us, so
     * its own limit is all that we can see. */
    return leads_up_only(root) && !leads_up(cgroup) ? "" : NULL;
}

/* Visit the directory mount + inside, and all above it up to the mount. */
static void visit_upwards(const char *prefix, const char *mount_point, const char *inside, bool unified,
                          vmki_posix_level *visit, void *context)
{
    char top[VMKI_POSIX_PATH], here[VMKI_POSIX_PATH];
    if (!vmki_posix_join(top, prefix, mount_point) || !vmki_posix_join(here, top, inside))
        return;
    size_t shortest = strlen(top), length = strlen(here);
    for (bool own = true;; own = false) {
        while (length > shortest && here[length - 1] == '/')
            length--;
        here[length] = '\0';
        visit(here, unified, own, context);
        if (length <= shortest)
            return;
        while (length > shortest && here[length - 1] != '/')
            length--;
    }
}

static void visit_mount(const char *prefix, const membership *cgroups, const mount *at, vmki_posix_level *visit,
                        void *context)
{
    bool unified = strcmp(at->type, "cgroup2") == 0;
    if (!unified && (strcmp(at->type, "cgroup") != 0 || !list_has(at->options, "memory")))
        return;
    const char *cgroup = unified ? cgroups->unified : cgroups->memory;
    const char *inside = cgroup[0] == '\0' ? NULL : path_inside(cgroup, at->root);
    if (inside != NULL)
        visit_upwards(prefix, at->point, inside, unified, visit, context);
}

void vmki_posix_cgroups_under(const char *prefix, vmki_posix_level *visit, void *context)
{
    membership cgroups;
    vmki_posix_lines in;
    char line[LINE_SIZE];
    if (!membership_read(prefix, &cgroups) || !vmki_posix_join(line, prefix, "/proc/self/mountinfo") ||
        !vmki_posix_lines_open(&in, line))
        return;
    while (vmki_posix_lines_next(&in, line, sizeof line)) {
        mount at;
        if (mount_parse(line, &at))
            visit_mount(prefix, &cgroups, &at, visit, context);
    }
    vmki_posix_lines_close(&in);
}

/* v1 writes "no limit" as the largest number of pages, in bytes: about 2^63, by the page size. v2 writes "max". */
#define V1_UNLIMITED (UINT64_C(1) << 62)

uint64_t vmki_posix_cgroup_limit(const char *directory, bool unified)
{
    char path[VMKI_POSIX_PATH];
    uint64_t limit;
    if (!vmki_posix_join(path, directory, unified ? "/memory.max" : "/memory.limit_in_bytes") ||
        !vmki_posix_read_number(path, &limit) || limit >= V1_UNLIMITED)
        return VMK_UNLIMITED;
    return limit;
}

static void lower_to_limit(const char *directory, bool unified, bool own, void *context)
{
    uint64_t *least = context;
    (void)own;
    *least = vmki_min64(*least, vmki_posix_cgroup_limit(directory, unified));
}

/* --- all limits ------------------------------------------------------------------------------------------------- */

vmk_overcommit vmki_posix_overcommit_under(const char *prefix)
{
    static const vmk_overcommit modes[] = {VMK_OVERCOMMIT_HEURISTIC, VMK_OVERCOMMIT_ALWAYS, VMK_OVERCOMMIT_NEVER};
    char path[VMKI_POSIX_PATH];
    uint64_t mode;
    if (!vmki_posix_join(path, prefix, "/proc/sys/vm/overcommit_memory") || !vmki_posix_read_number(path, &mode) ||
        mode >= sizeof modes / sizeof modes[0])
        return VMK_OVERCOMMIT_UNKNOWN;
    return modes[mode];
}

void vmki_posix_limits_under(const char *prefix, vmk_limits *limits)
{
    char path[VMKI_POSIX_PATH];
    vmki_posix_cgroups_under(prefix, lower_to_limit, &limits->memory);
    /* CommitLimit is there under every mode, and means something under one. */
    vmki_posix_field commit = {"CommitLimit:", VMK_UNLIMITED};
    if (vmki_posix_overcommit_under(prefix) == VMK_OVERCOMMIT_NEVER && vmki_posix_join(path, prefix, "/proc/meminfo") &&
        vmki_posix_read_fields(path, &commit, 1, 10) && commit.bytes < limits->commit)
        limits->commit = commit.bytes;
}

static uint64_t resource_limit(const struct rlimit *limit)
{
    return limit->rlim_cur == RLIM_INFINITY ? VMK_UNLIMITED : (uint64_t)limit->rlim_cur;
}

void vmki_os_own_limits(vmk_limits *limits)
{
    struct rlimit limit;
    if (getrlimit(VMKI_POSIX_LIMIT_AS, &limit) == 0)
        limits->address_space = resource_limit(&limit);
    if (getrlimit(RLIMIT_DATA, &limit) == 0)
        limits->data = resource_limit(&limit);
}

void vmki_os_limits(vmk_limits *limits)
{
    vmki_os_own_limits(limits);
    vmki_posix_limits_under("", limits);
}

/* --- usage ------------------------------------------------------------------------------------------------------ */

/* The figures that the kernel itself holds against the limits: VmSize is its total_vm (RLIMIT_AS), VmData its data_vm
 * (RLIMIT_DATA; statm's "data" would have the stack in it). "self" is the process's first thread, which has no memory
 * any more if it has ended before the others: so ask for the thread that asks (Linux 3.17) first. */
vmk_status vmki_os_usage(vmk_usage *usage)
{
    vmki_posix_field fields[] = {{"VmSize:", 0}, {"VmData:", 0}, {"VmRSS:", 0}};
    if (!vmki_posix_read_fields("/proc/thread-self/status", fields, 3, 10) &&
        !vmki_posix_read_fields("/proc/self/status", fields, 3, 10))
        return VMK_ERR_UNSUPPORTED;
    if (fields[0].bytes == 0)
        return VMK_ERR_UNSUPPORTED;
    usage->address_space = fields[0].bytes;
    usage->data = fields[1].bytes;
    usage->resident = fields[2].bytes;
    usage->mappings = 0; /* counting them means reading as many lines */
    return VMK_OK;
}

bool vmki_posix_address_space_exhausted(size_t size)
{
    int error = errno;
    uint64_t pages = 0;
    struct rlimit limit;
    bool limited = getrlimit(VMKI_POSIX_LIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    if (limited && (!vmki_posix_read_number("/proc/thread-self/statm", &pages) || pages == 0) &&
        !vmki_posix_read_number("/proc/self/statm", &pages))
        pages = 0;
    errno = error;
    return pages != 0 && pages * (uint64_t)sysconf(_SC_PAGESIZE) + size > (uint64_t)limit.rlim_cur;
}

/* The kernel refuses when its count is at the limit; ours may differ from it by the gate area, by what a half-done
 * split has left, and by other threads' doings since. */
#define MAPPINGS_SLACK 8

static uint64_t count_lines(const char *path)
{
    char block[4096]; /* as much as the kernel gives at once */
    uint64_t count = 0;
    size_t got;
    int file = open_file(path);
    if (file < 0)
        return 0;
    while ((got = read_block(file, block, sizeof block)) != 0)
        for (size_t i = 0; i < got; i++)
            count += block[i] == '\n';
    (void)close(file);
    return count;
}

bool vmki_posix_mappings_exhausted(void)
{
    int error = errno;
    uint64_t limit, count = 0;
    if (vmki_posix_read_number("/proc/sys/vm/max_map_count", &limit)) {
        count = count_lines("/proc/thread-self/maps");
        if (count == 0)
            count = count_lines("/proc/self/maps");
        count += MAPPINGS_SLACK;
    }
    errno = error;
    return count != 0 && count >= limit;
}
