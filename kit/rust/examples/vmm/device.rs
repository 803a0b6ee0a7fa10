//! What stands in for a vDPA device: a thread that takes commands off the ring, acks them and
//! interrupts. In a VMM it is the device, and none of this is needed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::raw::{c_int, c_uint};
use std::os::unix::io::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use vdpad_lend::Ring;

const EFD_CLOEXEC: c_int = 0o2000000;
const EFD_NONBLOCK: c_int = 0o4000;
const NO_INTERRUPT: u16 = 1;

extern "C" {
    fn eventfd(count: c_uint, flags: c_int) -> c_int;
}

/// An eventfd.
pub fn new_eventfd(blocks: bool) -> io::Result<File> {
    let flags = EFD_CLOEXEC | if blocks { 0 } else { EFD_NONBLOCK };
    // SAFETY: the descriptor is nobody else's.
    match unsafe { eventfd(0, flags) } {
        fd if fd < 0 => Err(io::Error::last_os_error()),
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// How it is to go wrong.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// Takes nothing.
    pub silent: bool,
    /// Class and command that is refused.
    pub refused: Option<(u8, u8)>,
}

/// A device that serves.
pub struct Device {
    kick: File,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Device {
    /// Starts it on a ring and its eventfds.
    pub fn start(ring: Arc<Ring>, kick: &File, call: &File, faults: Faults) -> io::Result<Device> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut serving = Serving {
            ring,
            kick: kick.try_clone()?,
            call: call.try_clone()?,
            faults,
            next: 0,
        };
        let stop = Arc::clone(&ended);
        let thread = thread::spawn(move || serving.run(&stop));
        Ok(Device {
            kick: kick.try_clone()?,
            ended,
            thread,
        })
    }

    /// Wakes the thread for the last time.
    pub fn stop(mut self) {
        self.ended.store(true, SeqCst);
        let _ = self.kick.write(&1_u64.to_ne_bytes());
        let _ = self.thread.join();
    }
}

struct Serving {
    ring: Arc<Ring>,
    kick: File,
    call: File,
    faults: Faults,
    next: u16,
}

impl Serving {
    fn run(&mut self, ended: &AtomicBool) {
        let mut kicks = [0; 8];
        while !ended.load(SeqCst) && self.kick.read(&mut kicks).is_ok() {
            if !self.faults.silent {
                self.serve();
            }
        }
    }

    fn serve(&mut self) {
        let ring = Arc::clone(&self.ring);
        while self.next != ring.word(ring.available + 2).load(SeqCst) {
            let slot = usize::from(self.next % ring.size);
            let head = ring.word(ring.available + 4 + 2 * slot).load(SeqCst);
            self.take(head, slot);
        }
        if ring.word(ring.available).load(SeqCst) & NO_INTERRUPT == 0 {
            let _ = self.call.write(&1_u64.to_ne_bytes());
        }
    }

    /// Takes one chain: the bytes of a command, and behind them one byte for the ack.
    fn take(&mut self, head: u16, slot: usize) {
        let ring = &self.ring;
        let (command, next) = self.descriptor(head);
        let (ack, _) = self.descriptor(next);
        let code = ring.read(command, 2);
        let refused = self.faults.refused == Some((code[0], code[1]));
        ring.write(ack, &[u8::from(refused)]);
        let element = [u32::from(head).to_le_bytes(), 1_u32.to_le_bytes()].concat();
        ring.write(ring.used + 4 + 8 * slot, &element);
        self.next = self.next.wrapping_add(1);
        ring.word(ring.used + 2).store(self.next, SeqCst);
    }

    /// Where in the memory its buffer is, and the next one (virtio 1.4, 2.7.5).
    fn descriptor(&self, index: u16) -> (usize, u16) {
        let found = self.ring.read(16 * usize::from(index % self.ring.size), 16);
        let address = u64::from_le_bytes(found[..8].try_into().unwrap());
        let next = u16::from_le_bytes(found[14..].try_into().unwrap());
        ((address - self.ring.iova) as usize, next)
    }
}
