//! Sockets that the service manager opened and passed to the process.

use std::{
    env, process,
    sync::{Mutex, PoisonError},
};

use listenfd::ListenFd;

use super::{ListenAddress, ListenError, listener::Listener};

/// What was passed and not yet taken. The environment tells it once, and a socket may not
/// be taken twice.
static PASSED: Mutex<Option<ListenFd>> = Mutex::new(None);

/// Whether the service manager says that it passes sockets, and to this process: the
/// variables are inherited, and may be meant for another.
pub(super) fn announced() -> bool {
    let passes = env::var_os("LISTEN_FDS").is_some_and(|count| !count.is_empty() && count != "0");
    let to_us = env::var("LISTEN_PID").map_or(true, |pid| pid == process::id().to_string());
    passes && to_us
}

/// Takes the passed sockets.
pub(super) fn listeners() -> Result<Vec<Listener>, ListenError> {
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    take(passed.get_or_insert_with(ListenFd::from_env))
}

fn take(passed: &mut ListenFd) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        // A TCP socket is refused as a Unix one and the other way around, and stays there.
        if let Ok(unix) = passed.take_unix_listener(index) {
            listeners
                .extend(unix.map(Listener::from_unix).transpose().map_err(passed_error(index))?);
            continue;
        }
        let tcp = passed.take_tcp_listener(index).map_err(passed_error(index))?;
        listeners.extend(tcp.map(Listener::from_tcp).transpose().map_err(passed_error(index))?);
    }
    if listeners.is_empty() { Err(ListenError::NothingPassed) } else { Ok(listeners) }
}

fn passed_error(index: usize) -> impl FnOnce(std::io::Error) -> ListenError {
    move |source| ListenError::Passed { index, source }
}

/// The address that stands for the passed sockets when none is given.
pub(super) fn default_address() -> Option<ListenAddress> {
    announced().then_some(ListenAddress::Systemd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passed_is_an_error() {
        assert!(matches!(take(&mut ListenFd::empty()), Err(ListenError::NothingPassed)));
    }
}
