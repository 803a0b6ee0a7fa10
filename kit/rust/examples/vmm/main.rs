//! A small VMM: has vdpad restore its device, takes the ring back, and goes on recording.
//!
//!     vmm [-r CLASS.COMMAND] [-s] [-b] [-x] SOCKET STATE LOG
//!
//! STATE is JSON; of the features in it this VMM knows those of docs/examples/state.json. LOG must
//! not be there yet. The options have things go wrong: a device that refuses a command, or is
//! silent; the memory lent in place of the call; kick and call swapped. It ends with 0 where the
//! device was restored.

mod device;

use std::error::Error as AnyError;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::io::AsRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, process, thread};

use device::{new_eventfd, Device, Faults};
use vdpad_lend::{target, Client, Error, Log, Report, Ring};

const IOVA: u64 = 0x10_0000;
const DEADLINE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

/// docs/examples/state.json's; RING_EVENT_IDX is not negotiated with this device.
const GUEST_FEATURES: u128 = 0x1230_0001_20df_99a7;
const RING_EVENT_IDX: u32 = 29;

#[derive(Default)]
struct Options {
    faults: Faults,
    bad_lend: bool,
    swapped: bool,
    files: Vec<String>,
}

struct Vmm {
    client: Client,
    ring: Arc<Ring>,
    kick: File,
    call: File,
    state: String,
    migration: String,
}

/// struct virtio_net_config: 4 queue pairs, keys of 40 bytes, 128 entries, hash types 0 … 5.
fn config_space() -> [u8; 24] {
    let mut config = [0; 24];
    (config[8], config[17], config[18], config[20]) = (4, 40, 128, 0x3f);
    config
}

impl Vmm {
    /// While the guest still runs on its source.
    fn prepare(&mut self) -> Result<(), Error> {
        let features = GUEST_FEATURES & !(1 << RING_EVENT_IDX);
        let device = target(&self.ring, features, &config_space());
        let commands = self.client.prepare(&self.migration, &self.state, &device)?;
        println!("prepared: {commands} commands");
        Ok(())
    }

    /// The guest is stopped, the device is up.
    fn commit(&mut self, options: &Options) -> Result<Report, Error> {
        let (mut kick, mut call) = (self.kick.as_raw_fd(), self.call.as_raw_fd());
        if options.swapped {
            (kick, call) = (call, kick);
        }
        if options.bad_lend {
            call = self.ring.memory();
        }
        let ring = &self.ring;
        let report = self
            .client
            .commit(&self.migration, ring, kick, call, Some(DEADLINE))?;
        println!(
            "restored: {} of {} commands",
            report.applied, report.commands
        );
        Ok(report)
    }

    /// Sends the guest's command through the ring that came back, as a shadow does; gives the ack.
    fn send(&mut self, at: u16, bytes: &[u8]) -> u8 {
        let ring = &self.ring;
        let address = ring.iova + ring.buffers as u64;
        let length = bytes.len() as u32;
        let mut chain = Vec::new();
        chain.extend(address.to_le_bytes());
        chain.extend(length.to_le_bytes());
        chain.extend([1, 0, 1, 0]);
        chain.extend((address + u64::from(length)).to_le_bytes());
        chain.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        ring.write(0, &chain);
        ring.write(ring.buffers, bytes);
        ring.write(ring.buffers + bytes.len(), &[0xff]);
        ring.word(ring.available + 4 + 2 * usize::from(at % ring.size))
            .store(0, SeqCst);
        ring.word(ring.available + 2)
            .store(at.wrapping_add(1), SeqCst);
        let _ = self.kick.write(&1_u64.to_ne_bytes());
        while ring.word(ring.used + 2).load(SeqCst) != at.wrapping_add(1) {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.call.read(&mut [0; 8]);
        ring.read(ring.buffers + bytes.len(), 1)[0]
    }

    /// The guest runs here: what it sets now is what the next migration needs.
    fn go_on(&mut self, at: u16, log: &Path) -> Result<(), Box<dyn AnyError>> {
        let vlan_add = [2, 0, 0x99, 0x09]; // 2457
        let mut log = Log::begin(log, GUEST_FEATURES)?;
        log.state(&self.state)?;
        let ack = self.send(at, &vlan_add);
        log.command(&vlan_add, ack)?;
        println!("the guest goes on at {at}, its command is acked with {ack}");
        Ok(())
    }

    fn migrate(&mut self, options: &Options) -> Result<(), Box<dyn AnyError>> {
        self.prepare()?;
        let report = self.commit(options)?;
        self.go_on(
            report.ring.unwrap_or_default(),
            Path::new(&options.files[2]),
        )
    }
}

fn explain(error: &(dyn AnyError + 'static)) {
    let (refused, reset) = match error.downcast_ref::<Error>() {
        Some(error @ Error::Refused(refused)) => (refused, error.device_must_reset()),
        _ => return eprintln!("{error}"),
    };
    println!("{}: {}", refused.kind, refused.message);
    if let Some(report) = &refused.report {
        if let Some(first) = &report.first {
            println!("first: {} {}", first.command, first.arguments);
        }
        println!("applied: {} of {}", report.applied, report.commands);
    }
    println!(
        "the device must be reset: {}",
        if reset { "yes" } else { "no" }
    );
}

fn options() -> Option<Options> {
    let mut options = Options::default();
    let mut given = env::args().skip(1);
    while let Some(each) = given.next() {
        match each.as_str() {
            "-r" => {
                let (class, command) = given
                    .next()?
                    .split_once('.')
                    .map(|(class, command)| (class.parse().ok(), command.parse().ok()))?;
                options.faults.refused = Some((class?, command?));
            }
            "-s" => options.faults.silent = true,
            "-b" => options.bad_lend = true,
            "-x" => options.swapped = true,
            _ => options.files.push(each),
        }
    }
    (options.files.len() == 3).then_some(options)
}

fn run(options: &Options) -> Result<(), Box<dyn AnyError>> {
    let client = Client::connect(Path::new(&options.files[0]), PATIENCE)?;
    let state = fs::read_to_string(&options.files[1])?;
    let ring = Arc::new(Ring::new(64, IOVA)?);
    let (kick, call) = (new_eventfd(true)?, new_eventfd(false)?);
    let device = Device::start(Arc::clone(&ring), &kick, &call, options.faults)?;
    let migration = format!("vmm-{}", process::id());
    let mut vmm = Vmm {
        client,
        ring,
        kick,
        call,
        state,
        migration,
    };
    let done = vmm.migrate(options);
    device.stop();
    done
}

fn main() -> ExitCode {
    let options = match options() {
        Some(options) => options,
        None => {
            eprintln!("usage: vmm [-r CLASS.COMMAND] [-s] [-b] [-x] SOCKET STATE LOG");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
