//! What became of a migration, as docs/api.md has it.

use std::{error, fmt, io};

use crate::json::Value;

/// A command that was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As the specification names it: `VLAN_ADD`.
    pub command: String,
    /// `vid=42`.
    pub arguments: String,
}

/// What became of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many commands there were.
    pub commands: u32,
    /// How many the device has acked.
    pub applied: u32,
    /// How many it has refused.
    pub rejected: u32,
    /// How many it has not answered, or was never sent.
    pub unanswered: u32,
    /// The first that was rejected, else the first unanswered.
    pub first: Option<Line>,
    /// Both indices, where the ring is the caller's again.
    pub ring: Option<u16>,
    /// Before the ring's memory is used again.
    pub device_must_reset: bool,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As docs/api.md names it: `rejected`, `timeout`, `bad-lend`.
    pub kind: String,
    /// The same for people.
    pub message: String,
    /// Where a device was sent something.
    pub report: Option<Report>,
}

/// Why there is no report of a restore.
#[derive(Debug)]
pub enum Error {
    /// The daemon said why.
    Refused(Box<Refusal>),
    /// Nothing was heard of it, or nothing that makes sense.
    Unanswered(io::Error),
}

impl Error {
    /// Whether the device may still own buffers in a ring that was lent by `commit`.
    pub fn device_must_reset(&self) -> bool {
        match self {
            Error::Unanswered(_) => true,
            // Without a report nothing was sent, but where vdpad does not know what failed.
            Error::Refused(refusal) => match &refusal.report {
                Some(report) => report.device_must_reset,
                None => refusal.kind == "internal",
            },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Error::Refused(refusal) => write!(formatter, "{}: {}", refusal.kind, refusal.message),
            Error::Unanswered(error) => write!(formatter, "no answer: {error}"),
        }
    }
}

impl error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Unanswered(error)
    }
}

/// That a reply is neither a result nor a refusal that says what it is.
pub fn makes_no_sense() -> Error {
    io::Error::new(io::ErrorKind::InvalidData, "the reply makes no sense").into()
}

/// What a reply says.
pub fn read(reply: &str) -> Result<Report, Error> {
    let reply = Value(reply);
    if let Some(result) = object(reply, "result") {
        return Ok(report(result));
    }
    let failed = reply.member("error");
    let data = failed.and_then(|error| error.member("data"));
    let text = |value: Option<Value>| value.and_then(Value::string).unwrap_or_default();
    let kind = text(data.and_then(|data| data.member("kind")));
    if kind.is_empty() {
        return Err(makes_no_sense());
    }
    Err(Error::Refused(Box::new(Refusal {
        kind,
        message: text(failed.and_then(|error| error.member("message"))),
        report: data.and_then(|data| object(data, "report")).map(report),
    })))
}

fn object<'a>(of: Value<'a>, key: &str) -> Option<Value<'a>> {
    of.member(key).filter(|found| found.0.starts_with('{'))
}

fn report(body: Value) -> Report {
    let number = |key| body.member(key).and_then(Value::number).unwrap_or_default();
    let ring = body
        .member("ring")
        .and_then(|ring| ring.member("next_available"));
    Report {
        commands: number("commands"),
        applied: number("applied"),
        rejected: number("rejected_total"),
        unanswered: number("unanswered_total"),
        first: first(body, "rejected").or_else(|| first(body, "unanswered")),
        ring: ring
            .and_then(Value::number)
            .and_then(|index| index.try_into().ok()),
        device_must_reset: body
            .member("device_must_reset")
            .map_or(true, |told| !told.is_false()),
    }
}

fn first(body: Value, key: &str) -> Option<Line> {
    let line = body.member(key)?.first()?;
    let text = |key| line.member(key).and_then(Value::string).unwrap_or_default();
    Some(Line {
        command: text("command"),
        arguments: text("arguments"),
    })
}
