//! For VMMs: lends the control virtqueue of a vDPA device to vdpad, and writes down what a guest
//! tells its device. Nothing is needed but the C library. docs/lending.md has the rules,
//! docs/api.md the messages, docs/formats.md the log; examples/vmm is a small VMM that uses all of
//! it.
//!
//! - [`Ring`]: memory for the ring, laid out and sealed; map it for the device at its `iova`.
//! - [`Client::connect`]: a socket to the daemon, long before it is needed.
//! - [`target`]: what the daemon is told of the device.
//! - [`Client::prepare`], while the guest still runs on its source; touches no device.
//! - [`Client::commit`], while it is stopped: lends the ring, and takes it back with a report.
//! - [`Client::ask`]: anything else, such as `cancel` where there will be no commit.
//! - [`Log`]: the guest's commands, for the next migration.

#![warn(missing_docs)]

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little"
)))]
compile_error!("expected 64-bit little-endian Linux, which hosts of vDPA devices are");

mod client;
mod json;
mod log;
mod report;
mod ring;
mod sys;
mod target;

pub use client::Client;
pub use log::Log;
pub use report::{Error, Line, Refusal, Report};
pub use ring::Ring;
pub use target::target;
