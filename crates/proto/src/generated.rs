//! What `build.rs` makes of `protos/`. The nesting is that of the packages, because the
//! generated code names its neighbours by it.

pub(crate) mod tvix {
    pub(crate) mod castore {
        /// Blobs and directories.
        #[expect(missing_docs, clippy::pedantic, reason = "generated")]
        pub mod v1 {
            tonic::include_proto!("tvix.castore.v1");
        }
    }

    pub(crate) mod store {
        /// Path infos.
        #[expect(missing_docs, clippy::pedantic, reason = "generated")]
        pub mod v1 {
            tonic::include_proto!("tvix.store.v1");
        }
    }
}

pub(crate) mod snix {
    pub(crate) mod castore {
        /// Clients of blobs and directories, under the newer names.
        #[expect(clippy::pedantic, reason = "generated")]
        pub mod v1 {
            tonic::include_proto!("snix.castore.v1");
        }
    }

    pub(crate) mod store {
        /// Clients of path infos, under the newer names.
        #[expect(clippy::pedantic, reason = "generated")]
        pub mod v1 {
            tonic::include_proto!("snix.store.v1");
        }
    }
}

pub(crate) mod granary {
    /// What our own client asks beside the services that it shares with others.
    #[expect(missing_docs, clippy::pedantic, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("granary.v1");
    }
}
