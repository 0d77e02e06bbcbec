//! See `http2::hpack_decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluis_fuzz::hpack_decode(data));
