/* A disk that forgets what was not synced, for LD_PRELOAD.
 *
 * Every file and directory is told by its inode and the moment of its birth, so that names may change.
 * Each fsync and fdatasync of a file under $LOST_WRITES_WATCH copies it, as it is at that moment, to
 * $LOST_WRITES_DISK/<key>.data; each fsync of a directory writes down the names that it then holds, with
 * the key and the kind of each, in <key>.names; <root> is the key of the watched directory itself. After a
 * SIGKILL that is what a power cut would have left at the worst: a name that was not synced since it was
 * given is gone, and so is every byte written after the last sync of its file.
 *
 * With $LOST_WRITES_KILL_AT = n the process kills itself instead of its n-th sync.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_BYTES 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int syncs = 0;

static void fail(const char *what) {
    perror(what);
    abort();
}

/* The key of what `name` in the open directory `at` is ("": of `at` itself), and whether it is a directory. */
static int keyed(int at, const char *name, char *key) {
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(at, name, flags, STATX_INO | STATX_TYPE | STATX_BTIME, &found)) return -1;
    snprintf(key, KEY_BYTES, "%llu-%lld-%u", (unsigned long long)found.stx_ino,
             (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    return S_ISDIR(found.stx_mode);
}

/* Replace a file of the disk at once, so that a kill leaves the one before or this one. */
static FILE *begin(const char *disk, char *aside) {
    snprintf(aside, PATH_MAX, "%s/aside", disk);
    FILE *out = fopen(aside, "w");
    if (!out) fail("lost_writes: open");
    return out;
}

static void end(FILE *out, const char *aside, const char *disk, const char *name) {
    char to[2 * PATH_MAX];
    snprintf(to, sizeof to, "%s/%s", disk, name);
    if (fclose(out) || rename(aside, to)) fail("lost_writes: write");
}

static void keep_data(int fd, const char *disk, const char *key) {
    char aside[PATH_MAX], name[KEY_BYTES + 16], self[64], buffer[1 << 16];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int in = open(self, O_RDONLY);
    if (in < 0) fail("lost_writes: open");
    FILE *out = begin(disk, aside);
    ssize_t n;
    while ((n = read(in, buffer, sizeof buffer)) > 0)
        if (fwrite(buffer, 1, n, out) != (size_t)n) fail("lost_writes: write");
    if (n < 0) fail("lost_writes: read");
    close(in);
    snprintf(name, sizeof name, "%s.data", key);
    end(out, aside, disk, name);
}

static void keep_names(const char *path, const char *disk, const char *key) {
    char aside[PATH_MAX], name[KEY_BYTES + 16], inner[KEY_BYTES];
    struct dirent *entry;
    DIR *folder = opendir(path);
    if (!folder) fail("lost_writes: opendir");
    FILE *out = begin(disk, aside);
    while ((entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        int directory = keyed(dirfd(folder), entry->d_name, inner);
        if (directory >= 0)
            fprintf(out, "%s %c %s\n", inner, directory ? 'd' : 'f', entry->d_name);
    }
    closedir(folder);
    snprintf(name, sizeof name, "%s.names", key);
    end(out, aside, disk, name);
}

static void synced(int fd) {
    const char *watch = getenv("LOST_WRITES_WATCH"), *disk = getenv("LOST_WRITES_DISK");
    const char *kill_at = getenv("LOST_WRITES_KILL_AT");
    char link[64], path[PATH_MAX], key[KEY_BYTES], aside[PATH_MAX];
    if (!watch || !disk) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    size_t prefix = strlen(watch);
    if (strncmp(path, watch, prefix) || (path[prefix] && path[prefix] != '/')) return;
    pthread_mutex_lock(&lock);
    if (kill_at && ++syncs == atoi(kill_at)) kill(getpid(), SIGKILL);
    int directory = keyed(fd, "", key);
    if (directory < 0) fail("lost_writes: statx");
    if (directory) keep_names(path, disk, key);
    else keep_data(fd, disk, key);
    if (!path[prefix]) {
        FILE *out = begin(disk, aside);
        fprintf(out, "%s", key);
        end(out, aside, disk, "root");
    }
    pthread_mutex_unlock(&lock);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int result = real(fd);
    if (!result) synced(fd);
    return result;
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int result = real(fd);
    if (!result) synced(fd);
    return result;
}
