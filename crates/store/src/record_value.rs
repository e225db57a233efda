//! The envelope of every record value: JSON with a version.

use bytes::Bytes;
use granary_castore::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version that is written, and the only one that is read.
pub(crate) const VERSION: u32 = 1;

/// What all versions have in common.
#[derive(Deserialize)]
struct Envelope {
    v: u32,
}

/// The version with the fields of a value.
#[derive(Serialize)]
struct Enveloped<'a, T> {
    v: u32,
    #[serde(flatten)]
    fields: &'a T,
}

/// Encodes the fields of a value.
pub(crate) fn encode(fields: &impl Serialize) -> Bytes {
    serde_json::to_vec(&Enveloped { v: VERSION, fields })
        .expect("structs with text keys always have a JSON form")
        .into()
}

/// Decodes a value; `what` names the record for the message.
pub(crate) fn decode<T: DeserializeOwned>(what: impl Fn() -> String, value: &[u8]) -> Result<T> {
    let envelope: Envelope =
        serde_json::from_slice(value).map_err(|error| damaged(&what).because(error))?;
    if envelope.v != VERSION {
        return Err(Error::corrupt(format!(
            "{} has version {}, and only {VERSION} is known: it was written by another granary",
            what(),
            envelope.v
        )));
    }
    serde_json::from_slice(value).map_err(|error| damaged(&what).because(error))
}

/// The record cannot be what this crate wrote.
pub(crate) fn damaged(what: &impl Fn() -> String) -> Error {
    Error::corrupt(format!("{} cannot be read", what()))
}

/// Bytes as base64 in JSON, for those that need not be UTF-8.
pub(crate) mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        bytes: impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes.as_ref()))
    }

    pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<Vec<u8>>,
    {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let len = bytes.len();
        T::try_from(bytes).map_err(|_| D::Error::custom(format!("{len} bytes are wrong here")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Fields {
        #[serde(with = "base64")]
        digest: [u8; 4],
    }

    #[test]
    fn golden_value() {
        let fields = Fields { digest: [0, 1, 2, 255] };
        let value = encode(&fields);
        assert_eq!(&value[..], br#"{"v":1,"digest":"AAEC/w=="}"#);
        assert_eq!(decode::<Fields>(|| "a record".into(), &value).expect("just written"), fields);
    }

    #[test]
    fn refuses_the_unknown_and_the_damaged() {
        let read = |value: &str| {
            decode::<Fields>(|| "the record of x".into(), value.as_bytes()).expect_err(value)
        };
        let newer = read(r#"{"v":2,"digest":"AAEC/w=="}"#);
        assert!(matches!(newer, Error::Corrupt(_)));
        assert!(newer.to_string().contains("version 2"), "{newer}");
        for value in ["", "{}", r#"{"v":1}"#, r#"{"v":1,"digest":"AAEC"}"#, r#"{"v":1,"digest":3}"#]
        {
            let error = read(value);
            assert!(matches!(error, Error::Corrupt(_)), "{value}");
            assert!(error.to_string().contains("the record of x"), "{error}");
        }
    }
}
