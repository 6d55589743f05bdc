//! Resolve, judge, then dial exactly what was judged.
//!
//! Run it with `cargo run -p embed --example dial_guard`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};

use anyhow::{Context, ensure};
use mcp_dial_guard::{Dial, Policy, parse_net};

/// The first address of `host` that may be dialled, connected; a second look-up would undo the judgement.
fn dial(policy: &Policy, host: &str, port: u16) -> anyhow::Result<TcpStream> {
    let resolved: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let mut why = format!("{host} has no address");
    for address in resolved {
        match policy.judge(address.ip(), Dial::resolved_plain()) {
            Ok(class) => {
                println!("{host} is {address}, {class:?}: dialled");
                return TcpStream::connect(address).context(address);
            }
            Err(refusal) => {
                println!("{host}: {refusal}");
                why = format!("{refusal}; {}", refusal.cure());
            }
        }
    }
    anyhow::bail!(why)
}

pub(crate) fn main() -> anyhow::Result<()> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    let policy = Policy::mcp_server();
    dial(&policy, "127.0.0.1", port)?;

    // The metadata service of a cloud, plainly and as an IPv6 address.
    for host in ["169.254.169.254", "::ffff:169.254.169.254"] {
        let refused = dial(&policy, host, 80).err().context("it was dialled")?;
        println!("refused: {refused}");
    }
    // An operator may deny more, and never allow these.
    let narrow = Policy::mcp_server().deny(parse_net("127.0.0.0/8")?);
    ensure!(dial(&narrow, "127.0.0.1", port).is_err());
    let wide = Policy::mcp_server().allow(parse_net("169.254.0.0/16")?);
    ensure!(dial(&wide, "169.254.169.254", 80).is_err());
    Ok(())
}
