/* Hosts on one machine: network namespaces, joined by a switch in user space.
 *
 *     netlab switch FILE N              make N hosts, and carry frames between them until standard input ends
 *     netlab run NAMESPACE PID WORDS    run a command on a host, for as long as its parent PID lives
 *
 * Each host is a namespace that only this process holds, with a TAP device whose other end is the switch: when
 * the process ends, however it ends, nothing is left. FILE holds `struct control`, which netlab.py writes.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_HOSTS 32
#define MOST_RANGES 8
#define FRAME_BYTES 1600
/* Frames of one host that are on their way; the next ones are dropped, as a real switch does. */
#define MOST_WAITING 4096
/* Frames that are taken from one host before the others have their turn. */
#define AT_ONCE 64

struct host {
    uint32_t namespace_fd;
    uint32_t is_cut;
    uint32_t bytes_per_second; /* 0: as many as there are */
    uint32_t n_ranges;         /* of ports that its firewall lets through; 0: it has no firewall */
    uint32_t ranges[MOST_RANGES][2];
};

struct control {
    uint32_t n_ready;
    uint32_t delay_us;
    uint32_t loss_ppm;
    uint32_t n_blocked; /* by firewalls */
    struct host hosts[MOST_HOSTS];
};

struct frame {
    int64_t due_ns;
    uint32_t length;
    unsigned char bytes[FRAME_BYTES];
};

/* The frames of one host keep their order, so that a queue is enough. */
struct port {
    int tap;
    int64_t free_ns;
    uint32_t first, n;
    struct frame *waiting;
};

static volatile struct control *control;
static struct port ports[MOST_HOSTS];
static int n_hosts;

static void fail(const char *what)
{
    fprintf(stderr, "netlab: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* --- hosts --- */

static void set_up(const char *name, int asking)
{
    struct ifreq device = {0};
    strncpy(device.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(asking, SIOCGIFFLAGS, &device) < 0)
        fail("SIOCGIFFLAGS");
    device.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(asking, SIOCSIFFLAGS, &device) < 0)
        fail("SIOCSIFFLAGS");
}

static void set_address(unsigned long request, uint32_t address, int asking)
{
    struct ifreq device = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&device.ifr_addr;
    strcpy(device.ifr_name, "eth0");
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(address);
    if (ioctl(asking, request, &device) < 0)
        fail("address");
}

/* Host i has the address 10.77.0.(i + 1), and a hardware address that ends with i. */
static void make_host(int i)
{
    struct ifreq device = {0};
    if (unshare(CLONE_NEWNET) < 0)
        fail("unshare");
    control->hosts[i].namespace_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap < 0)
        fail("/dev/net/tun");
    strcpy(device.ifr_name, "eth0");
    device.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (ioctl(tap, TUNSETIFF, &device) < 0)
        fail("TUNSETIFF");
    device.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(device.ifr_hwaddr.sa_data, "\x02\0\0\0\0", 5);
    device.ifr_hwaddr.sa_data[5] = (char)i;
    int asking = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (ioctl(asking, SIOCSIFHWADDR, &device) < 0)
        fail("SIOCSIFHWADDR");
    set_address(SIOCSIFADDR, 0x0a4d0001 + i, asking);
    set_address(SIOCSIFNETMASK, 0xffffff00, asking);
    set_up("eth0", asking);
    set_up("lo", asking);
    close(asking);
    ports[i].tap = tap;
    ports[i].waiting = malloc(MOST_WAITING * sizeof(struct frame));
    if (ports[i].waiting == NULL)
        fail("malloc");
}

/* --- the switch --- */

/* Return whether a firewall stops a frame: what begins a connection to a port that is not open. */
static int is_blocked(const volatile struct host *to, const unsigned char *frame, uint32_t length)
{
    if (!to->n_ranges || length < 14 + 20 || frame[12] != 8 || frame[13] != 0)
        return 0;
    uint32_t header = 14 + 4 * (frame[14] & 15);
    int protocol = frame[14 + 9];
    if (length < header + 14 || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
        return 0;
    /* SYN without ACK. */
    if (protocol == IPPROTO_TCP && (frame[header + 13] & 0x12) != 0x02)
        return 0;
    uint32_t port = frame[header + 2] << 8 | frame[header + 3];
    for (uint32_t i = 0; i < to->n_ranges && i < MOST_RANGES; i++)
        if (port >= to->ranges[i][0] && port <= to->ranges[i][1])
            return 0;
    return 1;
}

static void deliver_to(int to, const unsigned char *frame, uint32_t length)
{
    const volatile struct host *host = &control->hosts[to];
    if (host->is_cut)
        return;
    if (is_blocked(host, frame, length)) {
        control->n_blocked++;
        return;
    }
    /* A host whose queue is full loses the frame. */
    if (write(ports[to].tap, frame, length) < 0 && errno != EAGAIN && errno != EIO)
        fail("write");
}

static void deliver(int from, const unsigned char *frame, uint32_t length)
{
    if (control->hosts[from].is_cut)
        return;
    if (!(frame[0] & 1)) {
        if (frame[5] < n_hosts)
            deliver_to(frame[5], frame, length);
        return;
    }
    for (int to = 0; to < n_hosts; to++)
        if (to != from)
            deliver_to(to, frame, length);
}

static int is_lost(void)
{
    static uint64_t state = 88172645463325252ULL;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % 1000000 < control->loss_ppm;
}

static void take_from(int from)
{
    static unsigned char bytes[65536];
    struct port *port = &ports[from];
    for (int taken = 0; taken < AT_ONCE; taken++) {
        ssize_t length = read(port->tap, bytes, sizeof bytes);
        if (length < 0)
            return;
        /* IPv6 is not spoken here. */
        if (length < 14 || length > FRAME_BYTES || (bytes[12] == 0x86 && bytes[13] == 0xdd))
            continue;
        if (control->hosts[from].is_cut || is_lost())
            continue;
        uint32_t rate = control->hosts[from].bytes_per_second;
        if (!rate && !control->delay_us && !port->n) {
            deliver(from, bytes, length);
            continue;
        }
        if (port->n == MOST_WAITING)
            continue;
        int64_t now = now_ns();
        if (port->free_ns < now)
            port->free_ns = now;
        if (rate)
            port->free_ns += length * 1000000000LL / rate;
        struct frame *frame = &port->waiting[(port->first + port->n++) % MOST_WAITING];
        frame->due_ns = port->free_ns + control->delay_us * 1000LL;
        frame->length = length;
        memcpy(frame->bytes, bytes, length);
    }
}

/* Deliver what is due; return when the next frame is, or 0 if none is on its way. */
static int64_t deliver_due(void)
{
    int64_t next = 0, now = now_ns();
    for (int from = 0; from < n_hosts; from++) {
        struct port *port = &ports[from];
        while (port->n) {
            struct frame *frame = &port->waiting[port->first];
            if (frame->due_ns > now) {
                if (!next || frame->due_ns < next)
                    next = frame->due_ns;
                break;
            }
            deliver(from, frame->bytes, frame->length);
            port->first = (port->first + 1) % MOST_WAITING;
            port->n--;
        }
    }
    return next;
}

static void be_switch(const char *file, int n)
{
    struct pollfd watched[MOST_HOSTS + 1];
    int shared = open(file, O_RDWR | O_CLOEXEC);
    if (shared < 0)
        fail(file);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (control == MAP_FAILED)
        fail("mmap");
    n_hosts = n;
    for (int i = 0; i < n; i++) {
        make_host(i);
        watched[i] = (struct pollfd){ports[i].tap, POLLIN, 0};
    }
    watched[n] = (struct pollfd){0, POLLIN, 0};
    control->n_ready = n;
    for (;;) {
        int64_t next = deliver_due(), left = next ? next - now_ns() : 0;
        if (left < 0)
            left = 0;
        struct timespec wait = {left / 1000000000LL, left % 1000000000LL};
        if (ppoll(watched, n + 1, next ? &wait : NULL, NULL) < 0 && errno != EINTR)
            fail("ppoll");
        /* Nothing is ever written there. */
        if (watched[n].revents)
            return;
        for (int i = 0; i < n; i++)
            if (watched[i].revents)
                take_from(i);
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "switch") == 0 && atoi(argv[3]) <= MOST_HOSTS) {
        be_switch(argv[2], atoi(argv[3]));
        return 0;
    }
    if (argc < 5 || strcmp(argv[1], "run") != 0) {
        fprintf(stderr, "netlab switch FILE N | netlab run NAMESPACE PID WORDS\n");
        return 2;
    }
    int namespace = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET) < 0)
        fail(argv[2]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* It may have ended before it was watched. */
    if (getppid() != atoi(argv[3]))
        return 1;
    execvp(argv[4], argv + 4);
    fail(argv[4]);
}
