/* A folder as a busy parallel file system shows it: every operation that reaches its servers waits
   for a while and is counted.

   What a client of Lustre or GPFS holds a lock on it need not ask for again: names, attributes,
   absent names and data that were seen once are answered by the kernel until the mount ends. Every
   open asks, as on Lustre. A new mount is a node that has not seen the folder yet.

       gcc -O2 -o slowfs slowfs.c $(pkg-config fuse3 --cflags --libs)
       slowfs MOUNTPOINT -o source=FOLDER,delay_us=1000

   The folder is shown read-only. MOUNTPOINT/.slowfs.json has the counters; reading it costs nothing
   and is not counted. */

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define FOREVER_S 86400.0
#define COUNTERS "/.slowfs.json"

static struct {
    char *source;
    unsigned delay_us;
} settings;

enum { ATTRIBUTES, OPENS, LINKS, LISTINGS, READS, READ_BYTES, KINDS };
static const char *const names[KINDS] = {"attributes", "opens", "links",
                                         "listings",   "reads", "read_bytes"};
static atomic_llong counters[KINDS];

/* One round trip to a server. Operations of several threads wait side by side. */
static void ask_server(int kind)
{
    struct timespec left = {.tv_sec = settings.delay_us / 1000000,
                            .tv_nsec = (settings.delay_us % 1000000) * 1000L};
    counters[kind]++;
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static int render_counters(char *text, size_t size)
{
    int at = 0;
    for (int kind = 0; kind < KINDS; kind++)
        at += snprintf(text + at, size - at, "%s\"%s\": %lld", kind ? ", " : "{", names[kind],
                       (long long)counters[kind]);
    at += snprintf(text + at, size - at, "}\n");
    return at;
}

static int place_of(const char *path, char place[PATH_MAX])
{
    int length = snprintf(place, PATH_MAX, "%s%s", settings.source, path);
    return length < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int slow_getattr(const char *path, struct stat *status, struct fuse_file_info *info)
{
    char place[PATH_MAX];
    (void)info;
    if (strcmp(path, COUNTERS) == 0) {
        memset(status, 0, sizeof *status);
        status->st_mode = S_IFREG | 0444;
        status->st_nlink = 1;
        return 0;
    }
    if (place_of(path, place) != 0)
        return -ENAMETOOLONG;
    ask_server(ATTRIBUTES);
    return lstat(place, status) == 0 ? 0 : -errno;
}

static int slow_readlink(const char *path, char *target, size_t size)
{
    char place[PATH_MAX];
    if (place_of(path, place) != 0)
        return -ENAMETOOLONG;
    ask_server(LINKS);
    ssize_t length = readlink(place, target, size - 1);
    if (length < 0)
        return -errno;
    target[length] = 0;
    return 0;
}

static int slow_open(const char *path, struct fuse_file_info *info)
{
    char place[PATH_MAX];
    if (strcmp(path, COUNTERS) == 0) {
        info->direct_io = 1; /* its size is not known before */
        return 0;
    }
    if (place_of(path, place) != 0)
        return -ENAMETOOLONG;
    ask_server(OPENS);
    int file = open(place, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    info->fh = file;
    info->keep_cache = 1;
    return 0;
}

static int slow_read(const char *path, char *data, size_t size, off_t offset,
                     struct fuse_file_info *info)
{
    if (strcmp(path, COUNTERS) == 0) {
        char text[512];
        int length = render_counters(text, sizeof text);
        if (offset >= length)
            return 0;
        size = size < (size_t)(length - offset) ? size : (size_t)(length - offset);
        memcpy(data, text + offset, size);
        return size;
    }
    ask_server(READS);
    ssize_t count = pread(info->fh, data, size, offset);
    if (count < 0)
        return -errno;
    counters[READ_BYTES] += count;
    return count;
}

static int slow_release(const char *path, struct fuse_file_info *info)
{
    if (strcmp(path, COUNTERS) != 0)
        close(info->fh);
    return 0;
}

static int slow_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                        struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
    char place[PATH_MAX];
    (void)offset, (void)info, (void)flags;
    if (place_of(path, place) != 0)
        return -ENAMETOOLONG;
    ask_server(LISTINGS);
    DIR *folder = opendir(place);
    if (!folder)
        return -errno;
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat status = {.st_ino = entry->d_ino, .st_mode = DTTOIF(entry->d_type)};
        if (fill(buffer, entry->d_name, &status, 0, 0) != 0)
            break;
    }
    closedir(folder);
    return 0;
}

static int slow_opendir(const char *path, struct fuse_file_info *info)
{
    (void)path;
    info->cache_readdir = 1;
    info->keep_cache = 1;
    return 0;
}

static int slow_statfs(const char *path, struct statvfs *status)
{
    (void)path;
    return statvfs(settings.source, status) == 0 ? 0 : -errno;
}

static void *slow_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    connection->max_readahead = 4 << 20; /* the kernel takes as much of it as it allows */
    config->use_ino = 1;
    config->kernel_cache = 1;
    config->entry_timeout = config->attr_timeout = config->negative_timeout = FOREVER_S;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = slow_init,
    .getattr = slow_getattr,
    .readlink = slow_readlink,
    .open = slow_open,
    .read = slow_read,
    .release = slow_release,
    .opendir = slow_opendir,
    .readdir = slow_readdir,
    .statfs = slow_statfs,
};

static const struct fuse_opt options[] = {
    {"source=%s", offsetof(__typeof__(settings), source), 1},
    {"delay_us=%u", offsetof(__typeof__(settings), delay_us), 1},
    FUSE_OPT_END,
};

int main(int count, char **words)
{
    struct fuse_args arguments = FUSE_ARGS_INIT(count, words);
    if (fuse_opt_parse(&arguments, &settings, options, NULL) != 0)
        return 2;
    if (!settings.source || settings.source[0] != '/') {
        fprintf(stderr, "slowfs: -o source=FOLDER must name a folder by its absolute path\n");
        return 2;
    }
    fuse_opt_add_arg(&arguments, "-oro,fsname=slowfs,subtype=slowfs");
    return fuse_main(arguments.argc, arguments.argv, &operations, NULL);
}
