//! The ring's memory (virtio 1.4, 2.7).

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::unix::io::{AsRawFd, FromRawFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU16;

use crate::sys;

const PAGE: usize = 4096;

// The largest commands need some KiB, and of more than 512 KiB nothing is used.
const ROOM_AN_ENTRY: usize = 512;
const LEAST_ROOM: usize = 32 << 10;
const MOST_ROOM: usize = 512 << 10;

/// A split ring of zeros with room for buffers behind it, in a sealed memfd of its own.
#[derive(Debug)]
pub struct Ring {
    memory: File,
    base: *mut u8,
    /// Of the memory, in bytes.
    pub length: usize,
    /// Where the device sees its first byte.
    pub iova: u64,
    /// Entries.
    pub size: u16,
    /// Where in the memory the available ring begins; the descriptors begin at 0.
    pub available: usize,
    /// Where the used ring does.
    pub used: usize,
    /// Where the buffers do; they go to its end.
    pub buffers: usize,
}

// SAFETY: its memory is mapped for as long as it lives, and the device writes there at any time, so
// whoever reads and writes goes by copies and atomic indices anyway.
unsafe impl Send for Ring {}
unsafe impl Sync for Ring {}

fn round_up(bytes: usize, to: usize) -> usize {
    (bytes + to - 1) / to * to
}

impl Ring {
    /// Makes one of so many entries, a power of 2 from 2 to 32768, for a device that will see it at
    /// this address.
    ///
    /// # Errors
    /// The size is none, or there is no memory.
    pub fn new(size: u16, iova: u64) -> io::Result<Ring> {
        if size < 2 || !size.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entries = usize::from(size);
        let available = 16 * entries;
        let used = round_up(available + 6 + 2 * entries, 4);
        let buffers = round_up(used + 6 + 8 * entries, PAGE);
        let length = buffers + (entries * ROOM_AN_ENTRY).clamp(LEAST_ROOM, MOST_ROOM);
        let memory = sealed_memory(length)?;
        let base = mapped(&memory, length)?;
        // So that its pages are there.
        // SAFETY: just mapped, and nobody else knows of it.
        unsafe { ptr::write_bytes(base, 0, length) };
        Ok(Ring {
            memory,
            base,
            length,
            iova,
            size,
            available,
            used,
            buffers,
        })
    }

    /// The memfd.
    pub fn memory(&self) -> RawFd {
        self.memory.as_raw_fd()
    }

    /// Where it is mapped here, for VHOST_IOTLB_UPDATE.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// A copy of what stands at an offset.
    ///
    /// # Panics
    /// It goes past the memory's end.
    pub fn read(&self, at: usize, length: usize) -> Vec<u8> {
        self.check(at, length);
        let mut bytes = vec![0; length];
        // SAFETY: it is within the mapping.
        unsafe { ptr::copy_nonoverlapping(self.base.add(at), bytes.as_mut_ptr(), length) };
        bytes
    }

    /// Writes at an offset.
    ///
    /// # Panics
    /// It goes past the memory's end.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        // SAFETY: likewise.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len()) };
    }

    /// A 16-bit word, which somebody else may write at any time: an index or flags.
    ///
    /// # Panics
    /// It is odd, or goes past the memory's end.
    pub fn word(&self, at: usize) -> &AtomicU16 {
        self.check(at, 2);
        assert_eq!(at % 2, 0, "expected an even offset, got {at}");
        // SAFETY: it is within the mapping, which lives as long as self, and aligned.
        unsafe { &*self.base.add(at).cast::<AtomicU16>() }
    }

    fn check(&self, at: usize, length: usize) {
        let end = at.checked_add(length);
        assert!(
            end.map_or(false, |end| end <= self.length),
            "expected at most {} bytes, got {length} at {at}",
            self.length
        );
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped in new, and nothing of it is lent out any more.
        unsafe { sys::munmap(self.base.cast(), self.length) };
    }
}

fn sealed_memory(length: usize) -> io::Result<File> {
    let name = b"vdpad-cvq\0";
    let flags = sys::MFD_CLOEXEC | sys::MFD_ALLOW_SEALING;
    // SAFETY: the name ends with a zero; the descriptor is nobody else's.
    let memory = unsafe {
        let fd = sys::checked(sys::memfd_create(name.as_ptr().cast(), flags))?;
        File::from_raw_fd(fd)
    };
    memory.set_len(length as u64)?;
    // SAFETY: it takes no memory of ours.
    sys::checked(unsafe { sys::fcntl(memory.as_raw_fd(), sys::F_ADD_SEALS, sys::F_SEAL_SHRINK) })?;
    Ok(memory)
}

fn mapped(memory: &File, length: usize) -> io::Result<*mut u8> {
    // SAFETY: a mapping at a place of the kernel's choice replaces none.
    let base = unsafe {
        sys::mmap(
            ptr::null_mut(),
            length,
            sys::PROT_READ_WRITE,
            sys::MAP_SHARED,
            memory.as_raw_fd(),
            0,
        )
    };
    if base == usize::MAX as *mut c_void {
        return Err(io::Error::last_os_error());
    }
    Ok(base.cast())
}
