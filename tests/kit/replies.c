/* Reads a reply cut at every byte, and then whole; a read past its end is the sanitizer's to find. */
#define _GNU_SOURCE
#include "vdpad-lend.h"

int main(int argc, char **argv)
{
    struct vdpad_report report = {0};
    const char *whole = argc == 2 ? argv[1] : "";

    for (size_t length = 0; length <= strlen(whole); length++) {
        char *cut = calloc(1, length + 1);
        if (!cut)
            return 1;
        memcpy(cut, whole, length);
        vdpad_read_report(cut, &report);
        free(cut);
    }
    printf("%s|%s|%s|%s|%u|%u|%d|%u|%d\n", report.kind, report.message, report.command,
           report.arguments, report.rejected, report.unanswered, report.has_ring,
           (unsigned)report.next_used, report.device_must_reset);
    return 0;
}
