//! The log of a guest's commands: docs/formats.md, "Command log".

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;

const MAX_SIZE: u64 = 2 << 20;
const MAX_COMMAND: usize = 1 << 18;

const BEGINNING: &[u8; 16] = b"VDPADLOG\x01\0\0\0\0\0\0\0";
const HEADER: usize = 32;

const COMMAND: u8 = 1;
const RESET: u8 = 2;
const STATE: u8 = 3;

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: File,
}

impl Log {
    /// Begins one at FEATURES_OK, in a file that is not there yet.
    ///
    /// `features` are the bits that the guest negotiated.
    ///
    /// # Errors
    /// The file is there, or cannot be written.
    pub fn begin(path: &Path, features: u128) -> io::Result<Log> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        let mut log = Log { file };
        log.write(BEGINNING, &features.to_le_bytes(), HEADER)?;
        Ok(log)
    }

    /// Goes on with one that is there: what `vdpactl convert --to command-log` wrote, or what an
    /// earlier process did.
    ///
    /// # Errors
    /// The file is not there, cannot be read and written, is no log of this version, or ends within a
    /// record, behind which nothing could be read.
    pub fn open(path: &Path) -> io::Result<Log> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut bytes = vec![0; BEGINNING.len()];
        (&file).read_exact(&mut bytes)?;
        (&file).take(MAX_SIZE).read_to_end(&mut bytes)?;
        if !bytes.starts_with(BEGINNING) || !ends_behind_a_record(&bytes) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "expected a command log of version 1 that is whole",
            ));
        }
        Ok(Log { file })
    }

    /// Writes down what the device holds, as vdpad restored it: first, or not at all.
    ///
    /// `state` is the JSON that was prepared; its features are the log's.
    ///
    /// # Errors
    /// As of [`Log::command`].
    pub fn state(&mut self, state: &str) -> io::Result<()> {
        self.record(STATE, 0, state.as_bytes())
    }

    /// Writes down a command that the device has given back, in the order in which it does so.
    ///
    /// `bytes` are all that the device could read of its chain, from the class on, `ack` is what it
    /// wrote.
    ///
    /// # Errors
    /// The file cannot be written, or the log is full: have it written anew (`vdpactl convert --to
    /// command-log`). Nothing of the record is left in it, and it must be written before anything
    /// else is, or the log tells what the guest has not set.
    pub fn command(&mut self, bytes: &[u8], ack: u8) -> io::Result<()> {
        // One byte more than is ever understood tells that there were more.
        self.record(COMMAND, ack, &bytes[..bytes.len().min(MAX_COMMAND + 1)])
    }

    /// Writes down that the device was reset, and what was negotiated then.
    ///
    /// # Errors
    /// As of [`Log::command`].
    pub fn reset(&mut self, features: u128) -> io::Result<()> {
        self.record(RESET, 0, &features.to_le_bytes())
    }

    fn record(&mut self, kind: u8, ack: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut head = [0; 8];
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4] = kind;
        head[5] = ack;
        let most = if kind == STATE {
            bytes.len()
        } else {
            MAX_COMMAND + 1
        };
        self.write(&head, bytes, head.len() + most)
    }

    /// Writes both whole, or takes back what there is of them.
    ///
    /// `room` is what a full log lacks. It is the same for all commands, so that none gets in behind a
    /// larger one that did not, and none is missing from what looks whole.
    fn write(&mut self, head: &[u8], bytes: &[u8], room: usize) -> io::Result<()> {
        let before = self.file.metadata()?.len();
        let all = head.len() + bytes.len();
        if before.saturating_add(room as u64) > MAX_SIZE {
            return Err(io::Error::new(io::ErrorKind::Other, "the log is full"));
        }
        let parts = [IoSlice::new(head), IoSlice::new(bytes)];
        let written = loop {
            match self.file.write_vectored(&parts) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => break written?,
            }
        };
        if written == all {
            return Ok(());
        }
        self.file.set_len(before)?;
        Err(io::ErrorKind::WriteZero.into())
    }
}

fn ends_behind_a_record(log: &[u8]) -> bool {
    let mut rest = log.get(HEADER..);
    while let Some([a, b, c, d, _, _, _, _, data @ ..]) = rest {
        rest = data.get(u32::from_le_bytes([*a, *b, *c, *d]) as usize..);
    }
    rest.map_or(false, <[u8]>::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, process};

    #[test]
    fn what_is_no_log_is_not_gone_on_with() {
        let path = env::temp_dir().join(format!("vdpad-lend-{}.log", process::id()));
        let why = |path| Log::open(path).unwrap_err().kind();
        assert_eq!(why(&path), io::ErrorKind::NotFound);
        for (bytes, kind) in [
            (&b"VDPADLOG"[..], io::ErrorKind::UnexpectedEof),
            (
                &b"VDPADLOG\x02\0\0\0\0\0\0\0"[..],
                io::ErrorKind::InvalidData,
            ),
        ] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(why(&path), kind);
        }
        fs::remove_file(&path).unwrap();
    }
    #[test]
    fn a_log_is_whole_between_two_records_and_nowhere_else() {
        let mut log = vec![0; HEADER];
        log.extend([2, 0, 0, 0, 1, 0, 0, 0, 9, 0]);
        log.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        for length in 0..=log.len() {
            let is_whole = [HEADER, HEADER + 10, log.len()].contains(&length);
            assert_eq!(ends_behind_a_record(&log[..length]), is_whole, "{length}");
        }
    }
}
