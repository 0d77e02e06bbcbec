//! See `manifests::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluis_fuzz::manifest(data));
