/*
 * For VMMs: lends the control virtqueue of a vDPA device to vdpad, and writes down what a guest
 * tells its device. C11 on Linux, nothing else is needed. docs/lending.md has the rules,
 * docs/api.md the messages, docs/formats.md the log; the kit's c/vmm.c is a small VMM that uses all
 * of it.
 *
 *   vdpad_ring_make   memory for the ring, laid out and sealed; map it for the device at `iova`
 *   vdpad_connect     a socket to the daemon, long before it is needed
 *   vdpad_target      what the daemon is told of the device
 *   vdpad_prepare     while the guest still runs on its source; touches no device
 *   vdpad_commit      while it is stopped: lends the ring, and takes it back with a report
 *   vdpad_ask         anything else, such as `cancel` where there will be no commit
 *   vdpad_log_...     the guest's commands, for the next migration
 *
 * Functions return 0, or -1 with errno set. Nothing is kept beside what the caller has, so threads
 * may each have their own.
 */
#ifndef VDPAD_LEND_H
#define VDPAD_LEND_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before anything is included: memfd_create and F_ADD_SEALS need it"
#endif

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* --- the ring's memory (virtio 1.4, 2.7) --- */

#define VDPAD_PAGE 4096u

struct vdpad_ring {
    int memory;          /* the memfd */
    unsigned char *base; /* where it is mapped here */
    size_t length;       /* of it, in bytes */
    uint64_t iova;       /* where the device sees its first byte */
    uint16_t size;       /* entries */
    size_t descriptors, available, used, buffers; /* where in it these begin */
};

/* For VHOST_SET_VRING_ADDR: where the device sees a part of the ring. */
static inline uint64_t vdpad_iova(const struct vdpad_ring *ring, size_t part)
{
    return ring->iova + part;
}

static inline size_t vdpad_round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

static inline void vdpad_ring_close(struct vdpad_ring *ring)
{
    if (ring->base)
        munmap(ring->base, ring->length);
    if (ring->memory >= 0)
        close(ring->memory);
    *ring = (struct vdpad_ring){.memory = -1};
}

/*
 * Makes a ring of zeros, with room for buffers behind it.
 *
 * size: entries, a power of 2 from 2 to 32768; iova: where the caller will map it for the device.
 */
static inline int vdpad_ring_make(struct vdpad_ring *ring, uint16_t size, uint64_t iova)
{
    size_t room = (size_t)size * 512;

    *ring = (struct vdpad_ring){.memory = -1, .iova = iova, .size = size};
    if (size < 2 || (size & (size - 1))) {
        errno = EINVAL;
        return -1;
    }
    ring->available = (size_t)size * 16;
    ring->used = vdpad_round_up(ring->available + 6 + (size_t)size * 2, 4);
    ring->buffers = vdpad_round_up(ring->used + 6 + (size_t)size * 8, VDPAD_PAGE);
    /* The largest commands need some KiB, and of more than 512 KiB nothing is used. */
    room = room < 0x8000 ? 0x8000 : room > 0x80000 ? 0x80000 : room;
    ring->length = ring->buffers + room;
    ring->memory = memfd_create("vdpad-cvq", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ring->memory < 0 || ftruncate(ring->memory, (off_t)ring->length)
        || fcntl(ring->memory, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
        goto failed;
    ring->base = mmap(NULL, ring->length, PROT_READ | PROT_WRITE, MAP_SHARED, ring->memory, 0);
    if (ring->base == MAP_FAILED) {
        ring->base = NULL;
        goto failed;
    }
    memset(ring->base, 0, ring->length); /* so that its pages are there */
    return 0;

failed:;
    int why = errno;
    vdpad_ring_close(ring);
    errno = why;
    return -1;
}

/* --- what the daemon is told of the device --- */

/* virtio 1.4, 5.1.3: the features that make parts of the configuration necessary. */
#define VDPAD_F_MQ 22
#define VDPAD_F_HASH_REPORT 57
#define VDPAD_F_RSS 60

/* Text that grows within its room; longer than `room` where it did not fit. */
struct vdpad_text {
    char *at;
    size_t room, length;
};

__attribute__((format(printf, 2, 3))) static inline void vdpad_put(struct vdpad_text *text,
                                                                   const char *format, ...)
{
    va_list values;
    size_t left = text->length < text->room ? text->room - text->length : 0;

    va_start(values, format);
    int more = vsnprintf(left ? text->at + text->length : NULL, left, format, values);
    va_end(values);
    text->length += more < 0 ? text->room : (size_t)more;
}

/* A list of bits, each by its number, which is a name that the daemon takes. */
static inline void vdpad_put_bits(struct vdpad_text *text, const uint64_t *words, int bits)
{
    const char *comma = "";

    for (int bit = 0; bit < bits; bit++)
        if (words[bit / 64] >> (bit % 64) & 1) {
            vdpad_put(text, "%s\"bit_%d\"", comma, bit);
            comma = ",";
        }
}

static inline uint32_t vdpad_config_word(const unsigned char *config, size_t length, size_t at,
                                         size_t bytes)
{
    uint32_t word = 0;

    for (size_t each = 0; each < bytes && at + each < length; each++)
        word |= (uint32_t)config[at + each] << (8 * each);
    return word;
}

/* The keys of struct virtio_net_config (virtio 1.4, 5.1.4) that the features make necessary. */
static inline void vdpad_put_config(struct vdpad_text *text, const uint64_t features[2],
                                    const unsigned char *config, size_t length)
{
    const int rss = features[0] >> VDPAD_F_RSS & 1;
    const int hash = rss || (features[0] >> VDPAD_F_HASH_REPORT & 1);
    const uint64_t types = vdpad_config_word(config, length, 20, 4);
    const char *comma = "";

    if (rss || (features[0] >> VDPAD_F_MQ & 1)) {
        vdpad_put(text, "\"max_virtqueue_pairs\":%" PRIu32,
                  vdpad_config_word(config, length, 8, 2));
        comma = ",";
    }
    if (!hash)
        return;
    vdpad_put(text, "%s\"rss_max_key_size\":%" PRIu32, comma,
              vdpad_config_word(config, length, 17, 1));
    vdpad_put(text, ",\"rss_max_indirection_table_length\":%" PRIu32,
              vdpad_config_word(config, length, 18, 2));
    vdpad_put(text, ",\"supported_hash_types\":[");
    vdpad_put_bits(text, &types, 32);
    vdpad_put(text, "]");
}

/*
 * Writes the JSON of a lent target, for vdpad_prepare. 4096 bytes are enough.
 *
 * features: bits 0 … 63 and 64 … 127, as negotiated with this device.
 * config: the device's configuration space, as VHOST_VDPA_GET_CONFIG gives it; `config_length` may
 * end before what the features do not need.
 */
static inline int vdpad_target(char *out, size_t room, const struct vdpad_ring *ring,
                               const uint64_t features[2], const void *config,
                               size_t config_length)
{
    struct vdpad_text text = {.at = out, .room = room};

    vdpad_put(&text, "{\"kind\":\"lent\",\"features\":[");
    vdpad_put_bits(&text, features, 128);
    vdpad_put(&text, "],\"config\":{");
    vdpad_put_config(&text, features, config, config_length);
    vdpad_put(&text, "},\"ring\":{\"size\":%u,\"memory\":{\"iova\":%" PRIu64 ",\"size\":%zu}",
              (unsigned)ring->size, ring->iova, ring->length);
    vdpad_put(&text, ",\"descriptors\":%" PRIu64 ",\"available\":%" PRIu64 ",\"used\":%" PRIu64,
              vdpad_iova(ring, ring->descriptors), vdpad_iova(ring, ring->available),
              vdpad_iova(ring, ring->used));
    vdpad_put(&text, ",\"buffers\":{\"iova\":%" PRIu64 ",\"size\":%zu}}}",
              vdpad_iova(ring, ring->buffers), ring->length - ring->buffers);
    if (text.length < room)
        return 0;
    errno = ENOBUFS;
    return -1;
}

/* --- requests --- */

#define VDPAD_MAX_DATAGRAM (200u * 1024)

struct vdpad_client {
    int socket;
    unsigned patience_ms;
    int64_t deadline_ms;                 /* of the last request, by vdpad_now_ms */
    unsigned id;                         /* of the last request */
    char reply[VDPAD_MAX_DATAGRAM + 1]; /* the last one, in JSON */
};

static inline void vdpad_disconnect(struct vdpad_client *client)
{
    if (client->socket >= 0)
        close(client->socket);
    client->socket = -1;
}

/*
 * timeout_ms: how long a request may take, to its reply; more than the deadline of a commit.
 *
 * A request that fails with ECONNREFUSED later has met a daemon that was started anew: connect
 * again.
 */
static inline int vdpad_connect(struct vdpad_client *client, const char *path, unsigned timeout_ms)
{
    const sa_family_t nobody = AF_UNIX;
    struct sockaddr_un daemon = {.sun_family = AF_UNIX};

    client->patience_ms = timeout_ms;
    client->id = 0;
    client->reply[0] = 0;
    client->socket = -1;
    if (strlen(path) >= sizeof daemon.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(daemon.sun_path, path);
    client->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    /* A name of the kernel's choice (autobind, unix(7)): without one there is no reply. */
    if (client->socket < 0
        || bind(client->socket, (const struct sockaddr *)&nobody, sizeof nobody)
        || connect(client->socket, (const struct sockaddr *)&daemon, sizeof daemon)) {
        int why = errno;
        vdpad_disconnect(client);
        errno = why;
        return -1;
    }
    return 0;
}

static inline int64_t vdpad_now_ms(void)
{
    struct timespec now = {0};

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Waits until the socket is ready for more, if what was just tried failed only since it was not; -1
 * where it failed otherwise. No signal and no reply to something else puts the deadline off.
 */
static inline int vdpad_wait(const struct vdpad_client *client, short events)
{
    struct pollfd ready = {.fd = client->socket, .events = events};
    const int64_t left = client->deadline_ms - vdpad_now_ms();

    if (errno != EAGAIN && errno != EINTR)
        return -1;
    if (left <= 0) {
        errno = ETIMEDOUT;
        return -1;
    }
    poll(&ready, 1, left < INT_MAX ? (int)left : INT_MAX);
    return 0;
}

static inline int vdpad_send(struct vdpad_client *client, const char *const *texts, size_t count,
                             const int *fds, size_t fd_count)
{
    struct iovec parts[16];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};

    for (size_t each = 0; each < count; each++)
        parts[each] = (struct iovec){(char *)(uintptr_t)texts[each], strlen(texts[each])};
    if (fd_count) {
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
    }
    while (sendmsg(client->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        if (vdpad_wait(client, POLLOUT))
            return -1;
    return 0;
}

static inline const char *vdpad_json_member(const char *object, const char *key);

/* The reply to the last request; one to an earlier one, given up by then, is passed over. */
static inline int vdpad_receive(struct vdpad_client *client)
{
    do {
        ssize_t got = recv(client->socket, client->reply, VDPAD_MAX_DATAGRAM,
                           MSG_TRUNC | MSG_DONTWAIT);
        client->reply[got < 0 || (size_t)got > VDPAD_MAX_DATAGRAM ? 0 : got] = 0;
        if (got > (ssize_t)VDPAD_MAX_DATAGRAM) {
            errno = EMSGSIZE;
            return -1;
        }
        const char *id = vdpad_json_member(client->reply, "id");
        if (id && strtoul(id, NULL, 10) == client->id)
            return 0;
        if (got >= 0)
            errno = EAGAIN;
    } while (!vdpad_wait(client, POLLIN));
    return -1;
}

/*
 * Asks for one method; the reply is then in `client->reply`, also where it is a refusal.
 *
 * params: texts that are JSON when they are put together, at most 12.
 */
static inline int vdpad_ask(struct vdpad_client *client, const char *method,
                            const char *const *params, size_t count, const int *fds,
                            size_t fd_count)
{
    char head[128];
    const char *texts[14] = {head};

    snprintf(head, sizeof head, "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"%.32s\",\"params\":",
             ++client->id, method);
    for (size_t each = 0; each < count; each++)
        texts[1 + each] = params[each];
    texts[1 + count] = "}";
    client->deadline_ms = vdpad_now_ms() + client->patience_ms;
    if (vdpad_send(client, texts, count + 2, fds, fd_count))
        return -1;
    return vdpad_receive(client);
}

/* --- replies: JSON as the daemon writes it --- */

/* Where the value ends that begins here. */
static inline const char *vdpad_json_end(const char *at)
{
    int depth = 0, quoted = 0;

    for (; *at; at++) {
        if (quoted && *at == '\\' && at[1]) {
            at++;
        } else if (*at == '"') {
            quoted = !quoted;
            if (!quoted && !depth)
                return at + 1;
        } else if (quoted) {
            continue;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if ((*at == '}' || *at == ']') && --depth <= 0) {
            return depth < 0 ? at : at + 1;
        } else if (*at == ',' && !depth) {
            return at;
        }
    }
    return at;
}

/* The value of a key of the object that begins here; NULL where there is none. */
static inline const char *vdpad_json_member(const char *object, const char *key)
{
    const size_t length = strlen(key);

    if (!object || *object != '{')
        return NULL;
    for (const char *at = object + 1; *at == '"' || *at == ',' || *at == ' ';) {
        const char *name = at + strspn(at, ", "), *end = vdpad_json_end(name);
        const char *value = end + strspn(end, ": ");
        if ((size_t)(end - name) == length + 2 && !memcmp(name + 1, key, length))
            return value;
        at = vdpad_json_end(value);
    }
    return NULL;
}

/*
 * Whether this is one object and nothing behind it, so that it stays a part of what it is put into.
 * One that does not end passes, and the daemon can make nothing of what it is put into.
 */
static inline int vdpad_json_is_object(const char *text)
{
    static const char space[] = " \t\r\n";

    text += strspn(text, space);
    if (*text != '{')
        return 0;
    text = vdpad_json_end(text);
    return !text[strspn(text, space)];
}

static inline uint32_t vdpad_json_number(const char *value)
{
    return value ? (uint32_t)strtoul(value, NULL, 10) : 0;
}

/* An index of the ring; -1 where this is none. */
static inline int32_t vdpad_json_index(const char *value)
{
    const unsigned long index = value && *value >= '0' && *value <= '9' ? strtoul(value, NULL, 10)
                                                                        : ULONG_MAX;

    return index <= UINT16_MAX ? (int32_t)index : -1;
}

/* The string that begins here, as far as there is room; what is not printable ASCII becomes '?'. */
static inline void vdpad_json_string(const char *value, char *out, size_t room)
{
    size_t length = 0;

    value = value && *value == '"' ? value + 1 : "";
    for (; *value && *value != '"' && length + 1 < room; value++) {
        char letter = *value;
        if (letter == '\\' && value[1]) {
            letter = *++value;
            if (letter == 'u' && strnlen(value, 5) > 4) {
                value += 4;
                letter = '?';
            } else if (strchr("nrtbf", letter)) {
                letter = ' ';
            }
        }
        out[length++] = letter < ' ' || letter > '~' ? '?' : letter;
    }
    out[length] = 0;
}

/* --- a migration --- */

struct vdpad_report {
    char kind[32];     /* why it was not restored, as docs/api.md names it; empty where it was */
    char message[512]; /* the same for people */
    uint32_t commands, applied, rejected, unanswered;
    char command[32], arguments[128]; /* the first that was rejected, else the first unanswered */
    int has_ring;         /* the ring is the caller's again, and goes on at the next two */
    uint16_t next_available, next_used;
    int device_must_reset; /* before the ring's memory is used again */
};

static inline void vdpad_report_line(struct vdpad_report *report, const char *lines)
{
    if (report->command[0] || !lines || lines[0] != '[' || lines[1] != '{')
        return;
    vdpad_json_string(vdpad_json_member(lines + 1, "command"), report->command,
                      sizeof report->command);
    vdpad_json_string(vdpad_json_member(lines + 1, "arguments"), report->arguments,
                      sizeof report->arguments);
}

/* Fails with EBADMSG where a reply is neither a result nor a refusal that says what it is. */
static inline int vdpad_read_report(const char *reply, struct vdpad_report *report)
{
    const char *error = vdpad_json_member(reply, "error");
    const char *data = vdpad_json_member(error, "data");
    const char *body = error ? vdpad_json_member(data, "report")
                             : vdpad_json_member(reply, "result");
    const char *ring = vdpad_json_member(body, "ring");
    const char *reset = vdpad_json_member(body, "device_must_reset");
    const int32_t next_available = vdpad_json_index(vdpad_json_member(ring, "next_available"));
    const int32_t next_used = vdpad_json_index(vdpad_json_member(ring, "next_used"));

    *report = (struct vdpad_report){.device_must_reset = 1};
    vdpad_json_string(vdpad_json_member(data, "kind"), report->kind, sizeof report->kind);
    vdpad_json_string(vdpad_json_member(error, "message"), report->message,
                      sizeof report->message);
    report->commands = vdpad_json_number(vdpad_json_member(body, "commands"));
    report->applied = vdpad_json_number(vdpad_json_member(body, "applied"));
    report->rejected = vdpad_json_number(vdpad_json_member(body, "rejected_total"));
    report->unanswered = vdpad_json_number(vdpad_json_member(body, "unanswered_total"));
    vdpad_report_line(report, vdpad_json_member(body, "rejected"));
    vdpad_report_line(report, vdpad_json_member(body, "unanswered"));
    if (next_available >= 0 && next_used >= 0) {
        report->has_ring = 1;
        report->next_available = (uint16_t)next_available;
        report->next_used = (uint16_t)next_used;
    }
    /* Without a report nothing was sent, but where vdpad does not know what failed. */
    report->device_must_reset = body && *body == '{' ? !reset || *reset != 'f'
                                                     : !strcmp(report->kind, "internal");
    if (error ? report->kind[0] : body && *body == '{')
        return 0;
    errno = EBADMSG;
    return -1;
}

static inline int vdpad_is_migration(const char *name)
{
    const size_t length = strlen(name);

    return length >= 1 && length <= 128
           && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/-")
                  == length;
}

/*
 * Has a state checked and encoded for a device that will be lent.
 *
 * migration: the caller's name for it, 1 to 128 of [A-Za-z0-9._:/-]; state: JSON, or what `vdpactl
 * convert --to native` makes of other formats; target: from vdpad_target. A refusal is in `report`,
 * whose `kind` is empty where all is well. EINVAL where one of the three is nothing of the kind;
 * EBADMSG where the daemon's reply makes no sense.
 */
static inline int vdpad_prepare(struct vdpad_client *client, const char *migration,
                                const char *state, const char *target,
                                struct vdpad_report *report)
{
    const char *const params[] = {"{\"migration\":\"", migration, "\",\"state\":", state,
                                  ",\"target\":", target, "}"};

    if (!vdpad_is_migration(migration) || !vdpad_json_is_object(state)
        || !vdpad_json_is_object(target)) {
        errno = EINVAL;
        return -1;
    }
    if (vdpad_ask(client, "prepare", params, 7, NULL, 0)
        || vdpad_read_report(client->reply, report))
        return -1;
    report->device_must_reset = 0;
    return 0;
}

/*
 * Lends the ring, idle, of a device that is at DRIVER_OK with this queue enabled. Until this
 * returns the ring and the call eventfd are not the caller's.
 *
 * kick, call: the eventfds given to VHOST_SET_VRING_KICK and VHOST_SET_VRING_CALL, call
 * non-blocking. deadline_ms: for the replay; 0 is the daemon's own.
 *
 * Where it returns -1 nothing was heard, or nothing that makes sense: the device must be reset. Where
 * `kind` is empty, the ring has come back.
 */
static inline int vdpad_commit(struct vdpad_client *client, const char *migration,
                               const struct vdpad_ring *ring, int kick, int call,
                               unsigned deadline_ms, struct vdpad_report *report)
{
    const int fds[3] = {ring->memory, kick, call};
    char deadline[48] = "}";
    const char *const params[] = {"{\"migration\":\"", migration, "\"", deadline};

    *report = (struct vdpad_report){.device_must_reset = 1};
    if (!vdpad_is_migration(migration)) {
        errno = EINVAL;
        return -1;
    }
    if (deadline_ms)
        snprintf(deadline, sizeof deadline, ",\"deadline_ms\":%u}", deadline_ms);
    if (vdpad_ask(client, "commit", params, 4, fds, 3))
        return -1;
    if (!vdpad_read_report(client->reply, report) && (report->kind[0] || report->has_ring))
        return 0;
    *report = (struct vdpad_report){.device_must_reset = 1};
    errno = EBADMSG;
    return -1;
}

/* --- the log of a guest's commands: docs/formats.md, "Command log" --- */

#define VDPAD_LOG_MAX (2u << 20)
#define VDPAD_LOG_MAX_COMMAND (1u << 18)

enum vdpad_log_kind { VDPAD_LOG_COMMAND = 1, VDPAD_LOG_RESET = 2, VDPAD_LOG_STATE = 3 };

static inline void vdpad_put_number(unsigned char *at, uint64_t number, int bytes)
{
    for (int each = 0; each < bytes; each++)
        at[each] = (unsigned char)(number >> (8 * each));
}

/*
 * Writes both whole, or takes back what there is of them.
 *
 * room: what a full log lacks. It is the same for all commands, so that none gets in behind a larger
 * one that did not, and none is missing from what looks whole.
 */
static inline int vdpad_log_write(int fd, const void *head, size_t head_length, const void *bytes,
                                  size_t length, size_t room)
{
    struct iovec parts[2] = {{(char *)(uintptr_t)head, head_length},
                             {(char *)(uintptr_t)bytes, length}};
    const size_t all = head_length + length;
    struct stat before;
    ssize_t done;

    if (fstat(fd, &before))
        return -1;
    if (room > VDPAD_LOG_MAX || before.st_size > (off_t)(VDPAD_LOG_MAX - room)) {
        errno = EFBIG;
        return -1;
    }
    do {
        done = writev(fd, parts, 2);
    } while (done < 0 && errno == EINTR);
    if (done == (ssize_t)all)
        return 0;
    if (done >= 0) {
        if (ftruncate(fd, before.st_size))
            return -1;
        errno = ENOSPC;
    }
    return -1;
}

static inline int vdpad_log_record(int fd, enum vdpad_log_kind kind, uint8_t ack, const void *bytes,
                                   size_t length)
{
    const size_t most = kind == VDPAD_LOG_STATE ? length : VDPAD_LOG_MAX_COMMAND + 1;
    unsigned char head[8] = {0};

    vdpad_put_number(head, length, 4);
    head[4] = (unsigned char)kind;
    head[5] = ack;
    return vdpad_log_write(fd, head, sizeof head, bytes, length, sizeof head + most);
}

/* The size of a file that is opened to be added to; -1 where it is none. */
static inline off_t vdpad_log_size(int fd)
{
    const int flags = fcntl(fd, F_GETFL);
    struct stat file;

    if (flags < 0 || fstat(fd, &file))
        return -1;
    if (flags & O_APPEND && S_ISREG(file.st_mode))
        return file.st_size;
    errno = EINVAL;
    return -1;
}

/*
 * Begins a log, at FEATURES_OK. The file is opened with O_APPEND and empty, else this is EINVAL. One
 * writes to it at a time.
 *
 * features: bits 0 … 63 and 64 … 127, as the guest negotiated them.
 */
static inline int vdpad_log_begin(int fd, const uint64_t features[2])
{
    unsigned char head[32] = "VDPADLOG";
    const off_t size = vdpad_log_size(fd);

    if (size) {
        errno = size < 0 ? errno : EINVAL;
        return -1;
    }
    vdpad_put_number(head + 8, 1, 4);
    vdpad_put_number(head + 16, features[0], 8);
    vdpad_put_number(head + 24, features[1], 8);
    return vdpad_log_write(fd, head, sizeof head, "", 0, sizeof head);
}

/*
 * Sees whether a log that is there can be gone on with, as `vdpactl convert --to command-log` or an
 * earlier process wrote it: EINVAL where it is none, or ends within a record, behind which nothing
 * could be read. The file is opened with O_RDWR and O_APPEND.
 */
static inline int vdpad_log_reopen(int fd)
{
    const off_t size = vdpad_log_size(fd);
    unsigned char head[32] = {0};
    off_t at = sizeof head;

    if (size < 0)
        return -1;
    if (pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head
        && !memcmp(head, "VDPADLOG\1\0\0\0\0\0\0", 16)) {
        while (at < size && pread(fd, head, 8, at) == 8)
            at += 8 + (off_t)vdpad_config_word(head, sizeof head, 0, 4);
        if (at == size)
            return 0;
    }
    errno = EINVAL;
    return -1;
}

/*
 * Writes down what the device holds, as vdpad restored it: behind vdpad_log_begin or nowhere.
 *
 * state: the JSON that was prepared; its features are the log's.
 */
static inline int vdpad_log_state(int fd, const char *state)
{
    return vdpad_log_record(fd, VDPAD_LOG_STATE, 0, state, strlen(state));
}

/*
 * Writes down a command that the device has given back, in the order in which it does so.
 *
 * bytes: all that the device could read of its chain, from the class on; ack: what it wrote. EFBIG
 * where the log is full: have it written anew (vdpactl convert --to command-log). What could not be
 * written must be, before anything else is, or the log tells what the guest has not set.
 */
static inline int vdpad_log_command(int fd, const void *bytes, size_t length, uint8_t ack)
{
    /* One byte more than is ever understood tells that there were more. */
    const size_t kept = length > VDPAD_LOG_MAX_COMMAND ? VDPAD_LOG_MAX_COMMAND + 1 : length;

    return vdpad_log_record(fd, VDPAD_LOG_COMMAND, ack, bytes, kept);
}

/* Writes down that the device was reset, and what was negotiated then. */
static inline int vdpad_log_reset(int fd, const uint64_t features[2])
{
    unsigned char words[16];

    vdpad_put_number(words, features[0], 8);
    vdpad_put_number(words + 8, features[1], 8);
    return vdpad_log_record(fd, VDPAD_LOG_RESET, 0, words, sizeof words);
}

#endif
