/*
 * Prepares and commits, with half a second for each, and says what was heard: `asking SOCKET MIGRATION
 * STATE`. A signal comes every few milliseconds.
 */
#define _GNU_SOURCE
#include "vdpad-lend.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/time.h>

static void passed_over(int signal)
{
    (void)signal;
}

static void tell(const char *what, int failed, const struct vdpad_report *report)
{
    const char *why = !failed ? report->kind : errno == ETIMEDOUT ? "timed out"
                      : errno == EBADMSG                          ? "no sense"
                      : errno == EINVAL                           ? "not sent"
                                                                  : strerror(errno);

    printf("%s: %s\n", what, why[0] ? why : "done");
}

int main(int argc, char **argv)
{
    static struct vdpad_client client;
    const struct sigaction action = {.sa_handler = passed_over};
    const struct itimerval often = {{0, 5000}, {0, 5000}};
    struct vdpad_report report = {0};
    struct vdpad_ring ring;
    int kick = eventfd(0, 0), call = eventfd(0, EFD_NONBLOCK), failed;

    if (argc != 4 || vdpad_connect(&client, argv[1], 500) || vdpad_ring_make(&ring, 64, 0x100000)
        || sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &often, NULL))
        return 1;
    failed = vdpad_prepare(&client, argv[2], argv[3], "{}", &report);
    tell("prepare", failed, &report);
    failed = vdpad_commit(&client, argv[2], &ring, kick, call, 0, &report);
    tell("commit", failed, &report);
    printf("reset: %s\n", report.device_must_reset ? "yes" : "no");
    vdpad_ring_close(&ring);
    vdpad_disconnect(&client);
    return 0;
}
