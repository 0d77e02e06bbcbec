//! See `http2::http2_engine`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluis_fuzz::http2_engine(data));
