//! What must hold for any bytes that are read as a token or as a set of keys.

use sluis_jwt::{KeySet, Origin, Token};

/// Nothing panics; a set that is read has a key; bytes that are both a token and keys do not verify
/// themselves.
///
/// # Panics
///
/// When that does not hold.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let token = Token::parse(text);
    for origin in [Origin::Local, Origin::Remote] {
        let Ok(keys) = KeySet::parse(text, origin) else { continue };
        assert!(!keys.is_empty(), "a set that is read has a key");
        if let Ok(token) = &token {
            assert!(keys.verify(token).is_err(), "bytes verify themselves");
        }
    }
}
