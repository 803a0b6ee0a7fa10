//! What of the C library the standard library does not have.

use std::ffi::c_void;
use std::io;
use std::os::raw::{c_char, c_int, c_uint};

pub const MFD_CLOEXEC: c_uint = 1;
pub const MFD_ALLOW_SEALING: c_uint = 2;
pub const F_ADD_SEALS: c_int = 1033;
pub const F_SEAL_SHRINK: c_int = 2;
pub const PROT_READ_WRITE: c_int = 3;
pub const MAP_SHARED: c_int = 1;
pub const AF_UNIX: u16 = 1;
pub const SOL_SOCKET: c_int = 1;
pub const SCM_RIGHTS: c_int = 1;
pub const MSG_NOSIGNAL: c_int = 0x4000;

/// struct msghdr of 64-bit Linux.
#[repr(C)]
pub struct Message {
    pub name: *const c_void,
    pub name_length: c_uint,
    pub parts: *const c_void,
    pub part_count: usize,
    pub control: *const c_void,
    pub control_length: usize,
    pub flags: c_int,
}

/// struct cmsghdr with three descriptors behind it, and what fills it up to a whole word.
#[repr(C)]
pub struct Descriptors {
    pub length: usize,
    pub level: c_int,
    pub kind: c_int,
    pub fds: [c_int; 3],
    pub padding: c_int,
}

extern "C" {
    pub fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    pub fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    pub fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    pub fn munmap(at: *mut c_void, length: usize) -> c_int;
    pub fn bind(fd: c_int, address: *const u16, length: c_uint) -> c_int;
    pub fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
}

/// What a call that gives -1 for an error has given.
pub fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
