/* Writes a log into the file that is named, as tests/kit/test_log.py has it in Python. */
#define _GNU_SOURCE
#include "vdpad-lend.h"

static unsigned char table[300000] = {1, 0};

int main(int argc, char **argv)
{
    const uint64_t features[2] = {0xe0000, 1}, others[2] = {0x60000, UINT64_C(1) << 63};
    const int unfit = memfd_create("without O_APPEND", MFD_CLOEXEC);
    const int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_APPEND, 0600) : -1;
    unsigned commands = 0;

    if (fd < 0 || vdpad_log_begin(fd, features) || vdpad_log_state(fd, "{\"version\":1}")
        || vdpad_log_command(fd, "\2\0\52\0", 4, 0) || vdpad_log_command(fd, "\2\0\53\0", 4, 255)
        || vdpad_log_command(fd, "", 0, 0) || vdpad_log_reset(fd, others))
        return 1;
    while (!vdpad_log_command(fd, table, sizeof table, 0))
        commands++;
    printf("%u commands, then %s\n", commands, strerror(errno));
    /* One that is small does not get in behind one that did not, nor another log. */
    if (!vdpad_log_command(fd, "\2\0\52\0", 4, 0) || !vdpad_log_begin(fd, features)
        || !vdpad_log_begin(unfit, features) || vdpad_log_reopen(fd))
        return 2;
    /* One whose last record is cut is not gone on with, nor is what is no log. */
    if (ftruncate(fd, lseek(fd, 0, SEEK_END) - 1) || !vdpad_log_reopen(fd)
        || ftruncate(fd, lseek(fd, 0, SEEK_END) + 1) || vdpad_log_reopen(fd)
        || !vdpad_log_reopen(unfit))
        return 3;
    return 0;
}
