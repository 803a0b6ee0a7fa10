//! Asks the daemon at a socket for a method, with params in JSON, and prints its reply.

use std::path::Path;
use std::time::Duration;
use vdpad_lend::Client;

fn main() -> std::io::Result<()> {
    let given: Vec<String> = std::env::args().collect();
    let mut client = Client::connect(Path::new(&given[1]), Duration::from_secs(20))?;
    println!("{}", client.ask(&given[2], &given[3], None)?);
    Ok(())
}
