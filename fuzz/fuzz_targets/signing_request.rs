//! See `requests::signing_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluis_fuzz::signing_request(data));
