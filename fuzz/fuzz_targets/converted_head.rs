//! See `checks::converted_head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluis_fuzz::converted_head(data));
