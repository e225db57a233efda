#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| granary_fuzzing::index::check(data));
