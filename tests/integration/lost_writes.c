/* A disk that forgets what was not synced, for LD_PRELOAD.
 *
 * Every fsync and fdatasync of a file under $LOST_WRITES_WATCH copies the file, as it is at that moment,
 * to the same name under $LOST_WRITES_DISK; every fsync of the watched directory records which names it
 * then holds (<name>.named). After a SIGKILL that second directory is what a power cut would have left at the
 * worst: a file whose name was never synced is gone, and so is every byte written after its last sync.
 *
 * With $LOST_WRITES_KILL_AT = n the process kills itself instead of its n-th sync of a file.
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

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int syncs = 0;

static void fail(const char *what) {
    perror(what);
    abort();
}

static void copy(const char *from, const char *to) {
    char aside[PATH_MAX + 16], buffer[1 << 16];
    snprintf(aside, sizeof aside, "%s.aside", to);
    int in = open(from, O_RDONLY), out = open(aside, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (in < 0 || out < 0) fail("lost_writes: open");
    ssize_t n;
    while ((n = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, n) != n) fail("lost_writes: write");
    if (n < 0) fail("lost_writes: read");
    close(in);
    close(out);
    if (rename(aside, to)) fail("lost_writes: rename");
}

static void name_all(const char *watch, const char *disk) {
    char path[2 * PATH_MAX];
    struct dirent *entry;
    DIR *markers = opendir(disk), *folder = opendir(watch);
    if (!folder || !markers) fail("lost_writes: opendir");
    while ((entry = readdir(markers))) {
        size_t length = strlen(entry->d_name);
        if (length < 6 || strcmp(entry->d_name + length - 6, ".named")) continue;
        snprintf(path, sizeof path, "%s/%.*s", watch, (int)length - 6, entry->d_name);
        if (!access(path, F_OK)) continue;
        snprintf(path, sizeof path, "%s/%s", disk, entry->d_name);
        unlink(path);
    }
    closedir(markers);
    while ((entry = readdir(folder))) {
        if (entry->d_type != DT_REG) continue;
        snprintf(path, sizeof path, "%s/%s.named", disk, entry->d_name);
        close(open(path, O_WRONLY | O_CREAT, 0600));
    }
    closedir(folder);
}

static void synced(int fd) {
    const char *watch = getenv("LOST_WRITES_WATCH"), *disk = getenv("LOST_WRITES_DISK");
    const char *kill_at = getenv("LOST_WRITES_KILL_AT");
    char link[64], path[PATH_MAX], to[2 * PATH_MAX];
    if (!watch || !disk) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    size_t prefix = strlen(watch);
    if (strncmp(path, watch, prefix)) return;
    pthread_mutex_lock(&lock);
    if (path[prefix] == 0) {
        name_all(watch, disk);
    } else if (path[prefix] == '/') {
        if (kill_at && ++syncs == atoi(kill_at)) kill(getpid(), SIGKILL);
        snprintf(to, sizeof to, "%s/%s", disk, path + prefix + 1);
        copy(path, to);
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
