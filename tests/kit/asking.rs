//! As asking.c.

use std::io::{ErrorKind, Result as Done};
use std::os::raw::{c_int, c_long};
use std::os::unix::io::AsRawFd;
use std::path::Path;
use std::time::Duration;
use std::{env, fs::File, ptr};

use vdpad_lend::{Client, Error, Ring};

const SIGALRM: c_int = 14;
const OFTEN: [c_long; 4] = [0, 5000, 0, 5000];

extern "C" {
    fn signal(signal: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn setitimer(which: c_int, times: *const c_long, before: *mut c_long) -> c_int;
}

extern "C" fn passed_over(_: c_int) {}

fn tell<T>(what: &str, heard: &Result<T, Error>) {
    let why = match heard {
        Ok(_) => "done".into(),
        Err(Error::Refused(refusal)) => refusal.kind.clone(),
        Err(Error::Unanswered(error)) => match error.kind() {
            ErrorKind::TimedOut => "timed out".into(),
            ErrorKind::InvalidData => "no sense".into(),
            ErrorKind::InvalidInput => "not sent".into(),
            _ => error.to_string(),
        },
    };
    println!("{what}: {why}");
}

fn main() -> Done<()> {
    let given: Vec<String> = env::args().collect();
    let mut client = Client::connect(Path::new(&given[1]), Duration::from_millis(500))?;
    let ring = Ring::new(64, 0x10_0000)?;
    // Nothing here is rung.
    let bell = File::open("/dev/null")?;
    // SAFETY: the handler does nothing, and the kernel only reads the times.
    unsafe {
        signal(SIGALRM, passed_over);
        setitimer(0, OFTEN.as_ptr(), ptr::null_mut());
    }
    tell("prepare", &client.prepare(&given[2], &given[3], "{}"));
    let (kick, call) = (bell.as_raw_fd(), bell.as_raw_fd());
    let heard = client.commit(&given[2], &ring, kick, call, None);
    tell("commit", &heard);
    let reset = match &heard {
        Ok(report) => report.device_must_reset,
        Err(error) => error.device_must_reset(),
    };
    println!("reset: {}", if reset { "yes" } else { "no" });
    Ok(())
}
