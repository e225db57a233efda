//! Why the index does not answer.

use std::{io, sync::Arc};

use granary_castore::Error;

use crate::{
    disk::{FREE_SPACE, is_full},
    format::Malformed,
};

/// Why the index does not answer. A broken index is not lost data: it is rebuilt.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("the tables of the index failed")]
    Tables(#[from] granary_tables::Error),
    #[error("an index entry is malformed")]
    Malformed(#[from] Malformed),
    #[error("cannot start the thread of the index")]
    Thread(#[source] Arc<io::Error>),
    #[error("the thread of the index has ended")]
    Ended,
}

impl IndexError {
    /// Whether the trouble lies with the machine or the moment, so that an index that is
    /// built anew would fare no better.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::Tables(granary_tables::Error::Damaged { .. }) => false,
            Self::Thread(_) | Self::Ended | Self::Tables(granary_tables::Error::Io { .. }) => true,
        }
    }

    fn is_disk_full(&self) -> bool {
        matches!(self, Self::Tables(granary_tables::Error::Io { cause, .. }) if is_full(cause))
    }
}

impl From<IndexError> for Error {
    fn from(error: IndexError) -> Self {
        if error.is_disk_full() {
            Self::unavailable(format!("cannot write the index; {FREE_SPACE}")).because(error)
        } else if error.is_passing() {
            Self::unavailable("cannot use the index").because(error)
        } else {
            Self::corrupt("the index is damaged; a restart builds it anew from the packs")
                .because(error)
        }
    }
}
