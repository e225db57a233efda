//! The key that signs what is served: read from a file, or made on the first start.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use granary_nix_formats::{KeyError, SigningKey};

/// The secret key in the data directory.
const FILE_NAME: &str = "signing-key";

/// The public half, for whoever sets up clients.
const PUBLIC_FILE_NAME: &str = "signing-key.pub";

/// Longest key file that is read, in bytes: a name and 88 characters.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot {action} the signing key {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// What is in it is no key.
    #[error("{} holds no signing key", path.display())]
    Key { path: PathBuf, source: KeyError },
    /// The system has no randomness to give.
    #[error("cannot get the randomness for a signing key")]
    Randomness(#[source] getrandom::Error),
}

impl KeyFileError {
    /// What can be done.
    pub(crate) fn hint(&self) -> Option<String> {
        matches!(self, Self::Key { .. }).then(|| {
            "a key is one line, name:base64, as `nix-store --generate-binary-cache-key` writes it"
                .to_owned()
        })
    }
}

/// Reads the key in `path`.
pub(crate) fn read(path: &Path) -> Result<SigningKey, KeyFileError> {
    let failed = |source| KeyFileError::File { action: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others than its owner may read the signing key");
    }
    let text = io::read_to_string(io::Read::take(file, MAX_FILE_BYTES)).map_err(failed)?;
    SigningKey::parse(&text).map_err(|source| KeyFileError::Key { path: path.to_owned(), source })
}

/// Reads the key of the store in `data_dir`, making one if it has none. Only for who has
/// the store open.
pub(crate) fn read_or_create(data_dir: &Path) -> Result<SigningKey, KeyFileError> {
    let path = data_dir.join(FILE_NAME);
    match read(&path) {
        Err(KeyFileError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        known => return known,
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyFileError::Randomness)?;
    let key = SigningKey::generate(key_name(), seed)
        .map_err(|source| KeyFileError::Key { path: path.clone(), source })?;
    // The public half first: once the secret one is there, nothing here is done again.
    let public = data_dir.join(PUBLIC_FILE_NAME);
    write(&public, &key.public_key().to_string(), 0o644)?;
    write(&path, &key.to_secret_string(), 0o600)?;
    tracing::info!(path = %path.display(), name = key.name(), "made a signing key");
    Ok(key)
}

/// Writes a line to a file that is there whole or not at all, whenever the power fails.
fn write(path: &Path, line: &str, mode: u32) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::File { action: "write", path: path.to_owned(), source };
    let new = path.with_extension("new");
    // Whatever an earlier attempt left could have another mode, which opening keeps.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let written = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        writeln!(file, "{line}")?;
        // IMPORTANT: before the rename, or a crash can leave the name with nothing in it.
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(failed)
}

/// The name under which clients know a key that is made here.
fn key_name() -> String {
    let uname = rustix::system::uname();
    format!("granary-{}-1", name_part(&uname.nodename().to_string_lossy()))
}

/// The host name without what a key's name may not have.
fn name_part(host: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let part: String = host.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    if part.is_empty() { "localhost".to_owned() } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = read_or_create(directory.path()).expect("it can be made");
        let again = read_or_create(directory.path()).expect("it can be read");
        assert_eq!(made.to_secret_string(), again.to_secret_string());
        let mode = |name| {
            let metadata = fs::metadata(directory.path().join(name)).expect("it is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(FILE_NAME), 0o600);
        let public = fs::read_to_string(directory.path().join(PUBLIC_FILE_NAME)).expect("text");
        assert_eq!(public, format!("{}\n", made.public_key()));
        let files = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(files, 2, "something was left behind");
    }

    #[test]
    fn a_broken_one_is_never_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE_NAME);
        fs::write(&path, "no key\n").expect("it can be written");
        let error = read_or_create(directory.path()).expect_err("it is no key");
        assert!(matches!(error, KeyFileError::Key { .. }), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(fs::read_to_string(&path).expect("text"), "no key\n");
    }

    #[test]
    fn host_names() {
        assert_eq!(name_part("build-1.example.org"), "build-1.example.org");
        assert_eq!(name_part("a b:c\n"), "a-b-c-");
        assert_eq!(name_part(""), "localhost");
    }
}
