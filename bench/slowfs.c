/* A folder as a busy parallel file system shows it: every operation that reaches its servers waits
   for a while and is counted.

   What a client of Lustre or GPFS holds a lock on it need not ask for again: names, attributes,
   absent names and data that were seen once are answered without asking until the mount ends. Every
   open asks, as on Lustre. Where a file is read on from what is there already, the client reads
   ahead, twice as far each time, up to ahead_kib (Lustre's reads take 1 to 4 MiB at once); 0 leaves
   that to the kernel, which stops at 128 KiB. A new mount is a node that has not seen the folder yet.

       gcc -O2 -o slowfs slowfs.c $(pkg-config fuse3 --cflags --libs)
       slowfs MOUNTPOINT -o source=FOLDER,delay_us=1000,ahead_kib=1024

   The folder is shown read-only. MOUNTPOINT/.slowfs.json has the counters; reading it costs nothing
   and is not counted. */

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
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
    unsigned ahead_kib;
} settings = {.ahead_kib = 1024};

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

/* ---- what the client has of a file's data ---- */

#define PAGE 4096
enum { ABSENT, ASKED, PRESENT };

struct file {
    struct file *next;
    dev_t device;
    ino_t inode;
    size_t pages, window; /* in pages; the window is how much was read ahead last */
    unsigned char state[];
};

static struct file *files;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;

struct handle {
    int descriptor;
    struct file *file;
};

static struct file *file_of(int descriptor)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return NULL;
    pthread_mutex_lock(&lock);
    struct file *file = files;
    while (file && (file->device != status.st_dev || file->inode != status.st_ino))
        file = file->next;
    if (!file) {
        size_t pages = (status.st_size + PAGE - 1) / PAGE;
        if ((file = calloc(1, sizeof *file + pages))) {
            *file = (struct file){.next = files, .device = status.st_dev, .inode = status.st_ino,
                                  .pages = pages};
            files = file;
        }
    }
    pthread_mutex_unlock(&lock);
    return file;
}

/* How many pages from `first` on are asked for at once: at least to `after`, more when this goes on
   from what is there, and never what is there or on its way. */
static size_t to_ask(struct file *file, size_t first, size_t after)
{
    size_t most = settings.ahead_kib * 1024 / PAGE, count = after - first;
    if (first > 0 && file->state[first - 1] == ABSENT) {
        file->window = count;
    } else {
        file->window = file->window * 2 > count ? file->window * 2 : count;
        file->window = file->window < most ? file->window : most;
        count = count > file->window ? count : file->window;
    }
    size_t end = first;
    while (end < file->pages && end < first + count && file->state[end] == ABSENT)
        end++;
    return end - first;
}

/* Have the pages from `at` to `after`: ask for absent ones, wait for those that others asked for. */
static void fetch(struct file *file, size_t at, size_t after)
{
    after = after < file->pages ? after : file->pages;
    pthread_mutex_lock(&lock);
    while (at < after) {
        if (file->state[at] == PRESENT) {
            at++;
        } else if (file->state[at] == ASKED) {
            pthread_cond_wait(&arrived, &lock);
        } else {
            size_t count = to_ask(file, at, after);
            memset(file->state + at, ASKED, count);
            pthread_mutex_unlock(&lock);
            ask_server(READS);
            counters[READ_BYTES] += (long long)count * PAGE;
            pthread_mutex_lock(&lock);
            memset(file->state + at, PRESENT, count);
            pthread_cond_broadcast(&arrived);
            at += count;
        }
    }
    pthread_mutex_unlock(&lock);
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
    struct handle *handle = malloc(sizeof *handle);
    if (!handle)
        return -ENOMEM;
    handle->descriptor = open(place, O_RDONLY | O_CLOEXEC);
    if (handle->descriptor < 0) {
        int error = errno;
        free(handle);
        return -error;
    }
    handle->file = file_of(handle->descriptor);
    info->fh = (uintptr_t)handle;
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
    struct handle *handle = (struct handle *)(uintptr_t)info->fh;
    if (handle->file)
        fetch(handle->file, offset / PAGE, (offset + size + PAGE - 1) / PAGE);
    ssize_t count = pread(handle->descriptor, data, size, offset);
    return count < 0 ? -errno : count;
}

static int slow_release(const char *path, struct fuse_file_info *info)
{
    struct handle *handle = (struct handle *)(uintptr_t)info->fh;
    if (strcmp(path, COUNTERS) == 0)
        return 0;
    close(handle->descriptor);
    free(handle);
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
    {"ahead_kib=%u", offsetof(__typeof__(settings), ahead_kib), 1},
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
