//! Requests, as datagrams with descriptors.

use std::ffi::c_void;
use std::io::{self, IoSlice};
use std::os::unix::io::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{mem, ptr};

use crate::json::Value;
use crate::report::{self, Error, Report};
use crate::ring::Ring;
use crate::sys;

const MAX_DATAGRAM: usize = 200 << 10;

/// A socket to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: UnixDatagram,
    patience: Duration,
    id: u32,
    reply: Vec<u8>,
}

impl Client {
    /// Connects to the daemon at a path.
    ///
    /// `patience` is how long a request may take, to its reply: more than the deadline of a commit.
    ///
    /// # Errors
    /// There is no daemon, or it is not for this user.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Client> {
        let socket = UnixDatagram::unbound()?;
        // A name of the kernel's choice (autobind, unix(7)): without one there is no reply.
        let nobody = sys::AF_UNIX;
        // SAFETY: it reads the two bytes that it is told of.
        sys::checked(unsafe { sys::bind(socket.as_raw_fd(), &nobody, 2) })?;
        socket.connect(path)?;
        Ok(Client {
            socket,
            patience,
            id: 0,
            reply: vec![0; MAX_DATAGRAM + 1],
        })
    }

    /// Has a state checked and encoded for a device that will be lent; gives how many commands it
    /// takes.
    ///
    /// `migration` is the caller's name for it, 1 to 128 of `[A-Za-z0-9._:/-]`; `state` is JSON, or
    /// what `vdpactl convert --to native` makes of other formats; `target` is from
    /// [`crate::target`].
    ///
    /// # Errors
    /// It was refused, or nothing was heard that makes sense, or one of the three is nothing of the
    /// kind. No device was touched.
    pub fn prepare(&mut self, migration: &str, state: &str, target: &str) -> Result<u32, Error> {
        check_migration(migration)?;
        for text in [state, target] {
            check(Value(text).is_object(), "expected one object of JSON")?;
        }
        let params =
            format!("{{\"migration\":\"{migration}\",\"state\":{state},\"target\":{target}}}");
        Ok(report::read(self.ask("prepare", &params, None)?)?.commands)
    }

    /// Lends the ring, idle, of a device that is at DRIVER_OK with this queue enabled. Until this
    /// returns the ring and the call eventfd are not the caller's.
    ///
    /// `kick` and `call` are the eventfds given to VHOST_SET_VRING_KICK and _CALL, `call`
    /// non-blocking; `deadline` is for the replay, and the daemon's own where it is none.
    ///
    /// # Errors
    /// It was refused, or nothing was heard that makes sense; [`Error::device_must_reset`] says what
    /// to do.
    pub fn commit(
        &mut self,
        migration: &str,
        ring: &Ring,
        kick: RawFd,
        call: RawFd,
        deadline: Option<Duration>,
    ) -> Result<Report, Error> {
        check_migration(migration)?;
        let deadline = match deadline {
            Some(deadline) => format!(",\"deadline_ms\":{}", deadline.as_millis()),
            None => String::new(),
        };
        let params = format!("{{\"migration\":\"{migration}\"{deadline}}}");
        let report =
            report::read(self.ask("commit", &params, Some([ring.memory(), kick, call]))?)?;
        match report.ring {
            Some(_) => Ok(report),
            None => Err(report::makes_no_sense()),
        }
    }

    /// Asks for any method of docs/api.md, such as `cancel`; gives the reply as it came, in JSON,
    /// also where it is a refusal.
    ///
    /// `params` are JSON; `fds` are a lent ring's memory, kick and call.
    ///
    /// # Errors
    /// Nothing was heard.
    pub fn ask(&mut self, method: &str, params: &str, fds: Option<[RawFd; 3]>) -> io::Result<&str> {
        self.id = self.id.wrapping_add(1);
        let request = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"{method}\",\"params\":{params}}}",
            self.id
        );
        let begun = Instant::now();
        self.send(request.as_bytes(), fds, begun)?;
        let length = self.receive(begun)?;
        Ok(std::str::from_utf8(&self.reply[..length]).unwrap_or_default())
    }

    /// The length of the reply to the last request; one to an earlier one, given up by then, is
    /// passed over.
    fn receive(&mut self, begun: Instant) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(Some(self.left(begun)?))?;
            let length = match self.socket.recv(&mut self.reply) {
                Err(error) if passes(&error) => continue,
                received => received?,
            };
            check(
                length <= MAX_DATAGRAM,
                "expected a reply of at most 200 KiB",
            )?;
            let text = std::str::from_utf8(&self.reply[..length]).unwrap_or_default();
            if Value(text).member("id").and_then(Value::number) == Some(self.id) {
                return Ok(length);
            }
        }
    }

    fn send(&self, request: &[u8], fds: Option<[RawFd; 3]>, begun: Instant) -> io::Result<()> {
        loop {
            self.socket.set_write_timeout(Some(self.left(begun)?))?;
            match send(&self.socket, request, fds) {
                Err(error) if passes(&error) => continue,
                sent => return sent,
            }
        }
    }

    /// What is left of the time for a request. No signal and no reply to something else puts its
    /// end off.
    fn left(&self, begun: Instant) -> io::Result<Duration> {
        let left = self.patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

/// Whether this ends no request but with its time.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

fn check(is_so: bool, expected: &'static str) -> io::Result<()> {
    if is_so {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, expected))
}

fn check_migration(name: &str) -> io::Result<()> {
    let is_one = |letter: u8| letter.is_ascii_alphanumeric() || b"._:/-".contains(&letter);
    check(
        (1..=128).contains(&name.len()) && name.bytes().all(is_one),
        "expected a migration's name of 1 to 128 of [A-Za-z0-9._:/-]",
    )
}

fn send(socket: &UnixDatagram, request: &[u8], fds: Option<[RawFd; 3]>) -> io::Result<()> {
    let parts = [IoSlice::new(request)];
    let control = fds.map(|fds| sys::Descriptors {
        length: mem::size_of::<sys::Descriptors>() - mem::size_of::<RawFd>(),
        level: sys::SOL_SOCKET,
        kind: sys::SCM_RIGHTS,
        fds,
        padding: 0,
    });
    let control = control.as_ref();
    let message = sys::Message {
        name: ptr::null(),
        name_length: 0,
        parts: parts.as_ptr().cast::<c_void>(),
        part_count: parts.len(),
        control: control.map_or(ptr::null(), |each| (each as *const sys::Descriptors).cast()),
        control_length: control.map_or(0, mem::size_of_val),
        flags: 0,
    };
    // SAFETY: all that it points to outlives the call; an IoSlice is a struct iovec.
    let sent = unsafe { sys::sendmsg(socket.as_raw_fd(), &message, sys::MSG_NOSIGNAL) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
