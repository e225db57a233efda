//! The two sets of names.

use http::{Uri, uri::PathAndQuery};

/// A service under the name that its implementation is generated for, and the newer one.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) older: &'static str,
    pub(super) newer: &'static str,
}

/// Services that go by two names.
pub(super) const BLOBS: Names =
    Names { older: "tvix.castore.v1.BlobService", newer: "snix.castore.v1.BlobService" };
/// See [`BLOBS`].
pub(super) const DIRECTORIES: Names =
    Names { older: "tvix.castore.v1.DirectoryService", newer: "snix.castore.v1.DirectoryService" };
/// See [`BLOBS`].
pub(super) const PATH_INFOS: Names =
    Names { older: "tvix.store.v1.PathInfoService", newer: "snix.store.v1.PathInfoService" };

impl Names {
    /// The same call under the older name of its service.
    pub(super) fn older_uri(&self, uri: Uri) -> Uri {
        let path = uri.path().strip_prefix('/').and_then(|path| path.strip_prefix(self.newer));
        let Some(method) = path else { return uri };
        let renamed = PathAndQuery::try_from(format!("/{}{method}", self.older));
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(renamed.expect("a part of a valid path behind a fixed one"));
        Uri::from_parts(parts).expect("only the path was changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newer_name_changes() {
        for (uri, older) in [
            ("/snix.castore.v1.BlobService/Put", "/tvix.castore.v1.BlobService/Put"),
            (
                "http://host:8000/snix.castore.v1.BlobService/Put?x",
                "http://host:8000/tvix.castore.v1.BlobService/Put",
            ),
            ("/tvix.castore.v1.BlobService/Put", "/tvix.castore.v1.BlobService/Put"),
            ("/other/Put", "/other/Put"),
        ] {
            let renamed = BLOBS.older_uri(uri.parse().expect("a URI"));
            assert_eq!(renamed.to_string(), older);
        }
    }
}
