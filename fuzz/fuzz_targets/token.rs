//! See `tokens::token`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluis_fuzz::token(data));
