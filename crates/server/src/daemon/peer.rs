//! Who is at the other end of a connection, and what that allows.

use std::{fmt, net::SocketAddr};

use http::HeaderMap;

use crate::Access;

/// Header fields that a proxy adds. Whoever sends one spoke to somebody else first, so the
/// address of the connection says nothing of where the request comes from.
///
/// IMPORTANT: a proxy on this machine that adds none of them hands its own rights to
/// everybody it lets through. The operations guide says so.
const PROXY_HEADERS: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over TCP.
    Tcp {
        /// Our end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
    },
    /// Over a Unix socket: who may open its file is on this machine.
    Unix,
}

impl Peer {
    fn is_local(self) -> bool {
        match self {
            Self::Tcp { local, remote } => is_loopback(local) && is_loopback(remote),
            Self::Unix => true,
        }
    }

    /// What a request with these headers may do.
    pub(super) fn access(self, headers: &HeaderMap, allow_anonymous_writes: bool) -> Access {
        let forwarded = PROXY_HEADERS.iter().any(|name| headers.contains_key(*name));
        Access { writes: allow_anonymous_writes || (self.is_local() && !forwarded) }
    }
}

/// Also of the IPv4 addresses that a socket for both families shows as `::ffff:127.0.0.1`.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { remote, .. } => write!(f, "{remote}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn tcp(local: &str, remote: &str) -> Peer {
        Peer::Tcp {
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
        }
    }

    fn writes(peer: Peer, header: Option<&'static str>, anonymous: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("test"));
        if let Some(name) = header {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        peer.access(&headers, anonymous).writes
    }

    #[test]
    fn this_machine_may_write() {
        for peer in [
            Peer::Unix,
            tcp("127.0.0.1:8000", "127.0.0.1:4000"),
            tcp("127.0.0.1:8000", "127.9.9.9:4000"),
            tcp("[::1]:8000", "[::1]:4000"),
            tcp("[::ffff:127.0.0.1]:8000", "[::ffff:127.0.0.1]:4000"),
        ] {
            assert!(writes(peer, None, false), "{peer:?}");
            for name in PROXY_HEADERS {
                assert!(!writes(peer, Some(name), false), "{peer:?} with {name}");
                assert!(writes(peer, Some(name), true), "{peer:?} with {name}");
            }
        }
    }

    #[test]
    fn others_may_not() {
        for peer in [
            tcp("192.0.2.1:8000", "192.0.2.2:4000"),
            // From this machine, but by an address that others reach too.
            tcp("192.0.2.1:8000", "192.0.2.1:4000"),
            tcp("192.0.2.1:8000", "127.0.0.1:4000"),
            tcp("127.0.0.1:8000", "192.0.2.1:4000"),
            tcp("[2001:db8::1]:8000", "[::1]:4000"),
            tcp("[::ffff:192.0.2.1]:8000", "[::ffff:127.0.0.1]:4000"),
        ] {
            assert!(!writes(peer, None, false), "{peer:?}");
            assert!(writes(peer, None, true), "{peer:?}");
        }
    }
}
