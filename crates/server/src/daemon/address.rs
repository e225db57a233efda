//! Where to listen, as somebody writes it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// The port that tvix and snix clients look for.
pub(super) const DEFAULT_PORT: u16 = 8000;

/// An address to listen on: `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`,
/// `unix:/run/granary.sock`, or `systemd` for the sockets that the service manager passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and a port. Port 0 takes any free one.
    Ip(SocketAddr),
    /// A host name and a port: every address that the name has.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
    /// The absolute path of a Unix socket, which is made.
    Unix(PathBuf),
    /// The sockets that were passed to the process (`LISTEN_FDS`).
    Systemd,
}

/// Why a text is no [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddressError {
    /// The path of a Unix socket has to be absolute.
    #[error("{0:?} is no address to listen on: the path after \"unix:\" must be absolute")]
    RelativePath(String),
    /// There is no port, or what is there is none.
    #[error(
        "{0:?} is no address to listen on: it must end in a colon and a port from 0 to 65535, as in \"127.0.0.1:{DEFAULT_PORT}\""
    )]
    Port(String),
    /// What stands before the port is no host.
    #[error(
        "{0:?} is no address to listen on: write \"127.0.0.1:{DEFAULT_PORT}\", \"[::1]:{DEFAULT_PORT}\", \"localhost:{DEFAULT_PORT}\", \"unix:/path\" or \"systemd\""
    )]
    Host(String),
}

impl ListenAddress {
    /// Where the daemon listens unless told otherwise: this machine only.
    pub(super) const DEFAULTS: [Self; 2] = [
        Self::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT)),
        Self::Ip(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), DEFAULT_PORT)),
    ];
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        if text == "systemd" {
            return Ok(Self::Systemd);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            let absolute = path.is_absolute();
            return absolute
                .then_some(Self::Unix(path))
                .ok_or_else(|| ListenAddressError::RelativePath(text.to_owned()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| ListenAddressError::Port(text.to_owned()))?;
        let port = parse_port(port).ok_or_else(|| ListenAddressError::Port(text.to_owned()))?;
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name {
            Ok(Self::Name { host: host.to_owned(), port })
        } else {
            Err(ListenAddressError::Host(text.to_owned()))
        }
    }
}

/// Decimal digits only: `u16::from_str` would take a sign as well.
fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "127.0.0.1:8000",
            "0.0.0.0:0",
            "[::1]:8000",
            "[::]:65535",
            "localhost:8000",
            "cache.example.org:80",
            "unix:/run/granary/socket",
            "systemd",
        ] {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(
            "[::1]:8000".parse(),
            Ok(ListenAddress::Ip(SocketAddr::from((Ipv6Addr::LOCALHOST, 8000))))
        );
        assert_eq!(
            "localhost:8000".parse(),
            Ok(ListenAddress::Name { host: "localhost".to_owned(), port: 8000 })
        );
        assert_eq!("unix:/a b".parse(), Ok(ListenAddress::Unix("/a b".into())));
    }

    #[test]
    fn refuses_others() {
        let error = |text: &str| text.parse::<ListenAddress>().expect_err(text);
        for text in ["unix:", "unix:socket", "unix:./socket"] {
            assert_eq!(error(text), ListenAddressError::RelativePath(text.to_owned()));
        }
        for text in ["", "8000", "localhost", "localhost:", "localhost:+1", "127.0.0.1:65536"] {
            assert_eq!(error(text), ListenAddressError::Port(text.to_owned()));
        }
        for text in [":8000", "::1:8000", "[::1:8000", "http://localhost:8000", "a b:1"] {
            assert_eq!(error(text), ListenAddressError::Host(text.to_owned()));
        }
    }
}
