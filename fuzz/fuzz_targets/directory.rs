#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| granary_fuzzing::directory::check(data));
