//! Directories: one canonical encoding, the same by our own code and by protobuf's; and what is
//! received is held against limits and otherwise as protobuf has it.

use bytes::Bytes;
use granary_castore::Directory;
use granary_proto::castore;
use prost::Message;

/// How a field begins that is a group: those of proto3 never are, and they are refused.
const GROUP: u8 = 3;

/// Reads `data` as a canonical directory, and as any message that is one.
///
/// # Panics
///
/// If what is canonical encodes otherwise, or the two disagree.
pub fn check(data: &[u8]) {
    let message = castore::Directory::decode(data);
    match (&message, granary_proto::decode::<castore::Directory>(Bytes::copy_from_slice(data))) {
        (Ok(message), Ok(received)) => assert_eq!(*message, received),
        (Ok(_), Err(status)) => {
            assert!(data.iter().any(|byte| byte & 7 == GROUP), "refused: {status}");
        }
        (Err(_), Err(_)) => {}
        (Err(error), Ok(_)) => panic!("it was received, and is no message: {error}"),
    }
    let received = message.map_err(drop).and_then(|m| Directory::try_from(m).map_err(drop));
    let Ok(canonical) = Directory::decode(data) else {
        // Another spelling of one: its own encoding is the canonical one.
        if let Ok(received) = received {
            let encoded = received.encode();
            assert_ne!(encoded, data, "a canonical encoding was refused");
            assert_eq!(Directory::decode(&encoded), Ok(received));
        }
        return;
    };
    assert_eq!(canonical.encode(), data);
    assert_eq!(received.as_ref(), Ok(&canonical), "protobuf reads it otherwise");
    assert_eq!(castore::Directory::from(&canonical).encode_to_vec(), data);
    let entries = canonical.entries();
    assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b), "names are sorted, each once");
    for (name, node) in entries {
        assert_eq!(canonical.get(name.as_bytes()), Some(node));
    }
}
