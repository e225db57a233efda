//! Listening sockets.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net as unix,
    },
    path::{Path, PathBuf},
    task::{Context, Poll},
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    runtime::Handle,
};
use tracing::warn;

use super::{ListenAddress, ListenError, activation};

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 1024;

/// What the system answers for an address family that it does not have (`EAFNOSUPPORT`).
const NO_SUCH_FAMILY: i32 = 97;

/// A socket that listens. A Unix socket that [`bind`] made is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: ListenAddress,
    /// Held for its drop.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    /// Over TCP, with the address of the other end.
    Tcp(TcpStream, SocketAddr),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// The same connection, as one of another event loop.
    pub(super) fn moved_to(self, event_loop: &Handle) -> io::Result<Self> {
        let _entered = event_loop.enter();
        Ok(match self {
            Self::Tcp(stream, remote) => {
                Self::Tcp(TcpStream::from_std(stream.into_std()?)?, remote)
            }
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
        })
    }
}

impl Listener {
    /// Where it listens: with the port that was taken if 0 was asked for.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    pub(super) fn from_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Self::tcp(TcpListener::from_std(listener)?)
    }

    pub(super) fn from_unix(listener: unix::UnixListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let path = address.as_pathname().unwrap_or(Path::new("")).to_owned();
        listener.set_nonblocking(true)?;
        let socket = Socket::Unix(UnixListener::from_std(listener)?);
        Ok(Self { socket, address: ListenAddress::Unix(path), _file: None })
    }

    fn tcp(listener: TcpListener) -> io::Result<Self> {
        let address = ListenAddress::Ip(listener.local_addr()?);
        Ok(Self { socket: Socket::Tcp(listener), address, _file: None })
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match &self.socket {
            Socket::Tcp(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, remote)| Accepted::Tcp(stream, remote))
            }
            Socket::Unix(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| Accepted::Unix(stream))
            }
        }
    }
}

/// Listens on all of `addresses`. If there are none: on the sockets that the service
/// manager passed, else on port 8000 of the loopback addresses, where a machine without
/// IPv6 does with the one it has.
///
/// # Errors
///
/// If one of them cannot be listened on.
pub async fn bind(addresses: &[ListenAddress]) -> Result<Vec<Listener>, ListenError> {
    if let Some(address) = activation::default_address()
        && addresses.is_empty()
    {
        return bind_each(&[address]).await;
    }
    if addresses.is_empty() {
        bind_loopback(&ListenAddress::DEFAULTS).await
    } else {
        bind_each(addresses).await
    }
}

async fn bind_each(addresses: &[ListenAddress]) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.extend(bind_one(address).await?);
    }
    Ok(listeners)
}

/// Like [`bind_each`], but a machine may lack one of the address families.
async fn bind_loopback(addresses: &[ListenAddress]) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        match bind_one(address).await {
            Ok(bound) => listeners.extend(bound),
            Err(ListenError::Bind { source, .. })
                if is_absent(&source) && (index + 1 < addresses.len() || !listeners.is_empty()) =>
            {
                warn!(%address, "this machine does not have the address, going on without it");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

async fn bind_one(address: &ListenAddress) -> Result<Vec<Listener>, ListenError> {
    match address {
        ListenAddress::Ip(ip) => Ok(vec![bind_tcp(address, *ip)?]),
        ListenAddress::Name { host, port } => {
            let resolved = tokio::net::lookup_host((host.as_str(), *port)).await;
            let mut ips: Vec<_> = resolved
                .map_err(|source| ListenError::Resolve { address: address.clone(), source })?
                .map(ListenAddress::Ip)
                .collect();
            ips.sort_by_key(ToString::to_string);
            ips.dedup();
            Box::pin(bind_loopback(&ips)).await
        }
        ListenAddress::Unix(path) => Ok(vec![bind_unix(address, path)?]),
        ListenAddress::Systemd => activation::listeners(),
    }
}

fn bind_tcp(address: &ListenAddress, ip: SocketAddr) -> Result<Listener, ListenError> {
    let bound = || {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of a process before this one that still linger do not bar the port.
        socket.set_reuseaddr(true)?;
        // A peer that vanished while it owed us data is found out, in the kernel's time.
        socket.set_keepalive(true)?;
        socket.bind(ip)?;
        Listener::tcp(socket.listen(BACKLOG)?)
    };
    bound().map_err(|source| bind_error(address, source))
}

fn bind_error(address: &ListenAddress, source: io::Error) -> ListenError {
    let address = address.clone();
    if source.kind() == io::ErrorKind::AddrInUse {
        ListenError::InUse { address }
    } else {
        ListenError::Bind { address, source }
    }
}

fn bind_unix(address: &ListenAddress, path: &Path) -> Result<Listener, ListenError> {
    remove_stale(address, path)?;
    let bound = || {
        let listener = UnixListener::bind(path)?;
        let metadata = fs::symlink_metadata(path)?;
        let id = (metadata.dev(), metadata.ino());
        Ok(Listener {
            socket: Socket::Unix(listener),
            address: address.clone(),
            _file: Some(SocketFile { path: path.to_owned(), id }),
        })
    };
    bound().map_err(|source| bind_error(address, source))
}

/// Removes a socket that a process which is no more left behind.
fn remove_stale(address: &ListenAddress, path: &Path) -> Result<(), ListenError> {
    let bind_error = |source| ListenError::Bind { address: address.clone(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(bind_error(error)),
    }
    match unix::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { address: address.clone() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(bind_error)
        }
        // It was removed in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Its queue is full: somebody is there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(ListenError::InUse { address: address.clone() })
        }
        Err(error) => Err(bind_error(error)),
    }
}

/// The file of a Unix socket that we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put its own there.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}
