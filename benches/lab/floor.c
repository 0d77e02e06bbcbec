// What the calls of a proxy cost by themselves: no proxy that makes them can be cheaper.
//
// In:    bytes of a client, bytes of a connection of its own to the origin.
// Out:   the same bytes at the other side: a recv(2) and a send(2) for each way, and a share of epoll_wait(2);
//        or the same by io_uring, where all that is due goes into the kernel by one call.
// Never: looks at a byte; waits for a peer that takes only a part (it hangs up); serves anything but the bench.
//
// usage: floor epoll|uring PORT ORIGIN_PORT (built with -DURING -luring for the second)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#ifdef URING
#include <liburing.h>
#endif

enum { ENDS = 65536, SIZE = 16384, EVENTS = 256 };
static int peer[ENDS], has_ended[ENDS];
static struct sockaddr_in origin;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int listens(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 1024)) die("listen");
    return fd;
}

static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

// The origin's end of a client's new connection.
static int pair(int client) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || fd >= ENDS || client >= ENDS || connect(fd, (void *)&origin, sizeof origin)) die("connect");
    no_delay(fd);
    no_delay(client);
    peer[client] = fd;
    peer[fd] = client;
    has_ended[client] = has_ended[fd] = 0;
    return fd;
}

// One end has ended: the other one ends too. Their numbers are free when both have.
static void hang_up(int fd) {
    has_ended[fd] = 1;
    shutdown(peer[fd], SHUT_RDWR);
    if (has_ended[peer[fd]]) {
        close(peer[fd]);
        close(fd);
    }
}

static void by_epoll(int listener) {
    static char bytes[SIZE];
    int ready = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
    epoll_ctl(ready, EPOLL_CTL_ADD, listener, &event);
    event.events = EPOLLIN | EPOLLET;
    for (;;) {
        int count = epoll_wait(ready, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int client = accept(listener, NULL, NULL);
                if (client < 0) continue;
                int ends[] = {client, pair(client)};
                for (int end = 0; end < 2; end++) {
                    event.data.fd = ends[end];
                    epoll_ctl(ready, EPOLL_CTL_ADD, ends[end], &event);
                }
                continue;
            }
            ssize_t len = recv(fd, bytes, SIZE, MSG_DONTWAIT);
            if (len < 0 && errno == EAGAIN) continue;
            if (len <= 0) hang_up(fd);
            else if (send(peer[fd], bytes, len, MSG_NOSIGNAL) != len) shutdown(fd, SHUT_RDWR);
        }
    }
}

#ifdef URING
enum { READ = 1, WRITE = 2, ACCEPT = 3 };

static void reads(struct io_uring *ring, char **own, int fd) {
    if (!own[fd] && !(own[fd] = malloc(2 * SIZE))) die("malloc");
    struct io_uring_sqe *entry = io_uring_get_sqe(ring);
    io_uring_prep_recv(entry, fd, own[fd], SIZE, 0);
    io_uring_sqe_set_data64(entry, (__u64)fd << 2 | READ);
}

static void by_uring(int listener) {
    static char *own[ENDS];
    struct io_uring ring;
    struct io_uring_params how = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE, .cq_entries = 8192};
    if (io_uring_queue_init_params(4096, &ring, &how)) die("io_uring");
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
    io_uring_prep_multishot_accept(entry, listener, NULL, NULL, 0);
    io_uring_sqe_set_data64(entry, ACCEPT);
    for (;;) {
        io_uring_submit_and_wait(&ring, 1);
        struct io_uring_cqe *done;
        unsigned head, seen = 0;
        io_uring_for_each_cqe(&ring, head, done) {
            seen++;
            int fd = done->user_data >> 2, kind = done->user_data & 3;
            if (kind == WRITE) continue;
            if (kind == ACCEPT) {
                if (done->res < 0) continue;
                reads(&ring, own, pair(done->res));
                reads(&ring, own, done->res);
                continue;
            }
            if (done->res <= 0) {
                hang_up(fd);
                continue;
            }
            // A copy, so that the next read may begin at once.
            memcpy(own[fd] + SIZE, own[fd], done->res);
            entry = io_uring_get_sqe(&ring);
            io_uring_prep_send(entry, peer[fd], own[fd] + SIZE, done->res, MSG_NOSIGNAL);
            io_uring_sqe_set_data64(entry, (__u64)fd << 2 | WRITE);
            entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
            reads(&ring, own, fd);
        }
        io_uring_cq_advance(&ring, seen);
    }
}
#endif

int main(int count, char **words) {
    if (count != 4) {
        fprintf(stderr, "usage: %s epoll|uring PORT ORIGIN_PORT\n", words[0]);
        return 2;
    }
    origin = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(atoi(words[3])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = listens(atoi(words[2]));
#ifdef URING
    if (!strcmp(words[1], "uring")) by_uring(listener);
#endif
    by_epoll(listener);
}
