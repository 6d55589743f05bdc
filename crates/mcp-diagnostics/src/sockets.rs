//! Which TCP sockets are listened on, read from `/proc` (Linux).
//!
//! Two questions: does a process hold a listening socket at all, and on which addresses does anybody on this host
//! listen on a given port.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Addresses on which the process `pid` listens, as far as this user may see its descriptors.
///
/// # Errors
///
/// When `/proc/PID` cannot be read: no such process, or it belongs to another user.
pub fn listeners_of(pid: u32) -> io::Result<Vec<SocketAddr>> {
    let process = Path::new("/proc").join(pid.to_string());
    let mut held = HashSet::new();
    for entry in std::fs::read_dir(process.join("fd"))? {
        // A descriptor may be closed between the listing and the look at it.
        let Ok(target) = std::fs::read_link(entry?.path()) else {
            continue;
        };
        held.extend(socket_inode(&target));
    }
    let found = listening(&process.join("net"))?;
    Ok(found
        .into_iter()
        .filter(|socket| held.contains(&socket.inode))
        .map(|socket| socket.address)
        .collect())
}

/// Addresses on which anybody in this network namespace listens on `port`.
///
/// # Errors
///
/// When `/proc/self/net` cannot be read.
pub fn listeners_on(port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = listening(Path::new("/proc/self/net"))?;
    Ok(found
        .into_iter()
        .map(|socket| socket.address)
        .filter(|address| address.port() == port)
        .collect())
}

fn socket_inode(target: &Path) -> Option<u64> {
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

struct Listening {
    address: SocketAddr,
    inode: u64,
}

fn listening(net: &Path) -> io::Result<Vec<Listening>> {
    let mut found: Vec<_> = std::fs::read_to_string(net.join("tcp"))?
        .lines()
        .filter_map(parse_line)
        .collect();
    match std::fs::read_to_string(net.join("tcp6")) {
        Ok(table) => found.extend(table.lines().filter_map(parse_line)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {} // IPv6 is switched off
        Err(e) => return Err(e),
    }
    Ok(found)
}

/// One line of `/proc/net/tcp` or `tcp6`, if it is a socket in the state LISTEN.
fn parse_line(line: &str) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    if state != LISTEN {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listening {
        address: SocketAddr::new(parse_ip(ip)?, port),
        inode,
    })
}

/// The kernel prints each 32-bit word of an address in the host's byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(hex.get(at..at + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => word(0).map(|octets| Ipv4Addr::from(octets).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_own_listener_is_found_and_gone_after_it_closes() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else {
                continue;
            }; // no IPv6 here
            let address = listener.local_addr().unwrap();
            assert!(listeners_of(std::process::id()).unwrap().contains(&address));
            assert_eq!(listeners_on(address.port()).unwrap(), [address]);
            drop(listener);
            assert!(!listeners_of(std::process::id()).unwrap().contains(&address));
        }
    }

    #[test]
    fn connected_sockets_do_not_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let found = listeners_of(std::process::id()).unwrap();
        assert!(!found.contains(&client.local_addr().unwrap()));
    }

    #[test]
    fn lines_that_are_not_sockets_are_passed_over() {
        for line in [
            "",
            "  sl  local_address rem_address   st",
            "0: zz:1 0:0 0A 0 0 0 0 0 1",
            "0: 0100007F:1F90",
        ] {
            assert!(parse_line(line).is_none(), "{line}");
        }
    }
}
