//! Small objects that wait to share a frame.

use bytes::Bytes;

use crate::{
    format::{Object, ObjectKind},
    log::LooseObject,
};

/// Objects that will lie in one frame, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Group {
    raw: Vec<u8>,
    objects: Vec<Object>,
}

impl Group {
    pub(super) fn push(&mut self, kind: ObjectKind, digest: [u8; 32], bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("a frame is far smaller than 4 GiB");
        self.raw.extend_from_slice(bytes);
        self.objects.push(Object { kind, digest, len, literals_len: 0 });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// The raw bytes of the frame, and what lies in it; the group is empty then.
    pub(super) fn take(&mut self) -> (Bytes, Vec<Object>) {
        (std::mem::take(&mut self.raw).into(), std::mem::take(&mut self.objects))
    }

    /// The objects one by one; the group is empty then.
    pub(super) fn take_loose(&mut self) -> Vec<LooseObject> {
        let (mut raw, objects) = self.take();
        objects
            .into_iter()
            .map(|object| LooseObject { object, bytes: raw.split_to(object.len as usize) })
            .collect()
    }
}
