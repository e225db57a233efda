//! What is told of a collection.

/// What a collection did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Paths that are kept.
    pub kept_paths: u64,
    /// Paths that went.
    pub removed_paths: u64,
    /// They, by the name of their package; those that free most first.
    pub packages: Vec<Package>,
    /// Pins that had expired and went.
    pub expired_pins: u64,
    /// Blobs, directories and parts of them that went.
    pub removed_objects: u64,
    /// Bytes of all packs before.
    pub stored_bytes_before: u64,
    /// Bytes of all packs after.
    pub stored_bytes_after: u64,
    /// Bytes in packs that nothing needs and that were left.
    pub unused_bytes_after: u64,
    /// Bytes that were copied to make space.
    pub copied_bytes: u64,
    /// Packs that went.
    pub removed_packs: u64,
    /// Packs that were left alone because they are damaged.
    pub damaged_packs: u64,
}

/// What went of one package.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Its name without the version.
    pub name: String,
    /// How many paths.
    pub paths: u64,
    /// Bytes on disk that nothing else needs, about.
    pub bytes: u64,
}

/// The name of a store path without its version: up to a dash with a digit behind it.
pub(super) fn package_name(name: &str) -> &str {
    let version = name
        .match_indices('-')
        .find(|(at, _)| name[at + 1..].starts_with(|first: char| first.is_ascii_digit()));
    version.map_or(name, |(at, _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_no_version() {
        for (name, package) in [
            ("hello-2.12.1", "hello"),
            ("gcc-wrapper-12.2.0-man", "gcc-wrapper"),
            ("python3.11-numpy-1.26", "python3.11-numpy"),
            ("source", "source"),
            ("x-", "x-"),
        ] {
            assert_eq!(package_name(name), package);
        }
    }
}
