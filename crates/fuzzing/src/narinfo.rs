//! narinfo: what was read is written as a text that says the same and stays as it is.

use granary_nix_formats::NarInfo;

/// Reads `data` as a narinfo.
///
/// # Panics
///
/// If its text is read as something else.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(narinfo) = NarInfo::parse(text) else { return };
    let written = narinfo.to_string();
    let again = NarInfo::parse(&written).expect("what was written can be read");
    assert_eq!(again, narinfo, "{written}");
    assert_eq!(again.to_string(), written);
    // Nix reads lines: a value that breaks out of its own would be another field.
    let lines = written.lines().filter(|line| line.starts_with("StorePath: ")).count();
    assert_eq!(lines, 1, "{written}");
    assert_eq!(again.fingerprint(), narinfo.fingerprint());
}
