//! Writes a log into the file that is named, as tests/kit/test_log.py has it in Python.

use std::path::Path;
use vdpad_lend::Log;

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).expect("a path");
    let mut log = Log::begin(Path::new(&path), 0xe0000 | 1 << 64)?;
    log.state("{\"version\":1}")?;
    drop(log);
    let mut log = Log::open(Path::new(&path))?;
    log.command(&[2, 0, 42, 0], 0)?;
    log.command(&[2, 0, 43, 0], 255)?;
    log.command(&[], 0)?;
    log.reset(0x60000 | 1 << 127)?;
    let mut table = vec![0; 300_000];
    table[0] = 1;
    let mut commands = 0;
    loop {
        match log.command(&table, 0) {
            Ok(()) => commands += 1,
            Err(error) => break println!("{commands} commands, then {error}"),
        }
    }
    // One that is small does not get in behind one that did not, nor another log.
    assert!(log.command(&[2, 0, 42, 0], 0).is_err());
    assert!(Log::begin(Path::new(&path), 0).is_err());
    Ok(())
}
