//! Socket options of a link.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Options of the socket under a link; both ends should set them.
///
/// `TCP_NODELAY` is always on: the driver itself decides what leaves together. The rest is a second net under the
/// link's own pings, for the time when no driver runs yet, and for the kernel's buffers after it is gone.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    keepalive: Duration,
    user_timeout: Duration,
    unsent: u32,
}

impl TcpOptions {
    /// Idle time before the kernel probes the peer (default 30 s; at least 1 s).
    #[must_use]
    pub fn set_keepalive(self, idle: Duration) -> Self {
        Self {
            keepalive: idle.max(Duration::from_secs(1)),
            ..self
        }
    }

    /// How long sent bytes may stay unacknowledged before the kernel gives up (default 30 s; Linux only).
    #[must_use]
    pub fn set_user_timeout(self, after: Duration) -> Self {
        Self {
            user_timeout: after.max(Duration::from_secs(1)),
            ..self
        }
    }

    /// Bytes that may wait in the kernel without having been sent (default 128 KiB; at least 16 KiB; Linux only).
    ///
    /// What waits there is beyond the scheduler: a small answer gets in line behind it. Without a bound the kernel
    /// takes megabytes of a bulk stream, which is a third of a second at 100 Mbit/s. What is on its way and not yet
    /// acknowledged does not count, so throughput over long paths is not bounded by this.
    #[must_use]
    pub fn set_unsent(self, bytes: u32) -> Self {
        Self {
            unsent: bytes.max(16 * 1024),
            ..self
        }
    }

    /// Sets the options on a connected socket.
    ///
    /// # Errors
    ///
    /// The socket is already gone.
    pub fn apply(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let socket = SockRef::from(socket);
        let keepalive = TcpKeepalive::new()
            .with_time(self.keepalive)
            .with_interval(self.keepalive / 3);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
            socket.set_tcp_notsent_lowat(self.unsent)?;
        }
        Ok(())
    }
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(30),
            user_timeout: Duration::from_secs(30),
            unsent: 128 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn options_reach_the_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        TcpOptions::default().apply(&socket).unwrap();
        assert!(socket.nodelay().unwrap());
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            let timeout = socket.tcp_user_timeout().unwrap();
            assert_eq!(timeout, Some(Duration::from_secs(30)));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024);
        }
    }
}
