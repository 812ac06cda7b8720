/* A file system that never answers: every look at it hangs until this program is killed.
 * Build: gcc -O1 hangfs.c -o hangfs $(pkg-config fuse3 --cflags --libs) */
#define FUSE_USE_VERSION 31
#include <fuse.h>
#include <unistd.h>

static int hang(const char *path, struct stat *status, struct fuse_file_info *info) {
  (void)path;
  (void)status;
  (void)info;
  for (;;) pause();
  return 0;
}

static const struct fuse_operations operations = {.getattr = hang};

int main(int argc, char *argv[]) { return fuse_main(argc, argv, &operations, 0); }
