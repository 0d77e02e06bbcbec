//! Texts sealed for one key: the age format, version 1, with X25519 recipients.
//!
//! In:    a text and the public key for which it is sealed; or sealed text and private keys.
//! Out:   armored text that may lie in git; or the bytes again.
//! Never: opens what was changed, or tells more than that it cannot be opened.
//!
//! The format is that of <https://age-encryption.org/v1>, so the `age` program seals and opens the
//! same; the cryptography is aws-lc's.

mod armor;

use std::{fmt, fs, io, os::unix::fs::MetadataExt, path::Path};

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, PrivateKey, UnparsedPublicKey, X25519},
    constant_time, hkdf, hmac, rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bech32::{Bech32, Hrp};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{FetchError, value::BYTES_MAX};

const MAGIC: &str = "age-encryption.org/v1";
const WRAP_INFO: &[u8] = b"age-encryption.org/v1/X25519";
const RECIPIENT_PREFIX: &str = "age";
const IDENTITY_PREFIX: &str = "age-secret-key-";
/// Bytes of a chunk of the payload, without its tag.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
/// Columns of base64 in a header.
const COLUMNS: usize = 64;
/// Recipients of one text. A header that goes on for ever is no header.
const STANZAS_MAX: usize = 32;
/// Keys in one file: the one in use, and those before it.
const IDENTITIES_MAX: usize = 16;

/// Why a text cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is not in the format.
    #[error("it is not an age file of version 1: {0}")]
    Format(&'static str),
    /// None of our keys is one it was sealed for.
    #[error("it was sealed for another key than those of this namespace")]
    WrongKey,
    /// It was changed after it was sealed.
    #[error("it was changed or cut after it was sealed")]
    Changed,
    /// It is longer than any secret.
    #[error("it is longer than 128 KiB")]
    TooLarge,
    /// A key is not in the form of age.
    #[error("this is no key of age ({0})")]
    Key(&'static str),
    /// The machine gives no random numbers.
    #[error("no random numbers")]
    Random,
}

/// Who can open: a public key, `age1…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// Who opens: a private key, `AGE-SECRET-KEY-1…`. Overwritten when dropped; `Debug` shows nothing.
pub struct Identity(Zeroizing<[u8; 32]>);

impl std::str::FromStr for Recipient {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        Ok(Self(*decoded(text.trim(), RECIPIENT_PREFIX)?))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Hrp::parse_unchecked(RECIPIENT_PREFIX);
        f.write_str(&bech32::encode::<Bech32>(prefix, &self.0).map_err(|_| fmt::Error)?)
    }
}

impl std::str::FromStr for Identity {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        Ok(Self(decoded(text.trim(), IDENTITY_PREFIX)?))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(secret)")
    }
}

impl Identity {
    /// A new key.
    ///
    /// # Errors
    ///
    /// [`SealError::Random`].
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(key.as_mut_slice()).map_err(|_| SealError::Random)?;
        Ok(Self(key))
    }

    /// The public key.
    ///
    /// # Errors
    ///
    /// [`SealError::Key`] when the library does not take the private one.
    pub fn recipient(&self) -> Result<Recipient, SealError> {
        let public = self.private()?.compute_public_key();
        let public = public.map_err(|_| SealError::Key("it has no public key"))?;
        let bytes = <[u8; 32]>::try_from(public.as_ref());
        Ok(Recipient(bytes.map_err(|_| SealError::Key("its length"))?))
    }

    /// The key as age writes it, for a file of its owner.
    ///
    /// # Errors
    ///
    /// [`SealError::Key`], which no key of ours causes.
    pub fn to_text(&self) -> Result<Zeroizing<String>, SealError> {
        let prefix = Hrp::parse_unchecked(IDENTITY_PREFIX);
        let text = bech32::encode_upper::<Bech32>(prefix, self.0.as_slice());
        text.map(Zeroizing::new).map_err(|_| SealError::Key("its length"))
    }

    fn private(&self) -> Result<PrivateKey, SealError> {
        PrivateKey::from_private_key(&X25519, self.0.as_slice())
            .map_err(|_| SealError::Key("it is not accepted"))
    }
}

fn decoded(text: &str, prefix: &str) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32>(text)
        .map_err(|_| SealError::Key("its checksum is wrong"))?;
    if checked.hrp().to_lowercase() != prefix {
        return Err(SealError::Key("its prefix is another one"));
    }
    let mut bytes: Zeroizing<Vec<u8>> = Zeroizing::new(checked.byte_iter().collect());
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| SealError::Key("its length"))?;
    bytes.zeroize();
    Ok(Zeroizing::new(key))
}

/// The keys in a file of age's: one in a line, `#` before comments. The first one is in use.
///
/// # Errors
///
/// When the file cannot be read, others may read it, or it holds no key.
pub fn identities(path: &Path) -> Result<Vec<Identity>, FetchError> {
    let unreadable = |error| FetchError::Unreadable { path: path.to_owned(), error };
    let mode = fs::metadata(path).map_err(unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FetchError::Exposed { path: path.to_owned(), mode });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Result<Vec<Identity>, SealError> =
        lines.take(IDENTITIES_MAX).map(str::parse).collect();
    let invalid = |error: &dyn fmt::Display| {
        unreadable(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    };
    let keys = keys.map_err(|error| invalid(&error))?;
    if keys.is_empty() {
        return Err(invalid(&"it holds no key"));
    }
    Ok(keys)
}

/// Seals a text for some keys, each of which opens it; armored.
///
/// # Errors
///
/// [`SealError::TooLarge`], [`SealError::Random`].
pub fn seal(plain: &[u8], recipients: &[Recipient]) -> Result<String, SealError> {
    if plain.len() > BYTES_MAX {
        return Err(SealError::TooLarge);
    }
    let mut file_key = Zeroizing::new([0_u8; 16]);
    rand::fill(file_key.as_mut_slice()).map_err(|_| SealError::Random)?;
    let mut header = format!("{MAGIC}\n");
    for recipient in recipients {
        let share = Identity::generate()?;
        let public = share.recipient()?;
        let key = wrap_key(&share, &recipient.0, &public.0, &recipient.0)?;
        let mut body = file_key.to_vec();
        aead(&key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key([0; 12]),
                Aad::empty(),
                &mut body,
            )
            .map_err(|_| SealError::Format("it cannot be sealed"))?;
        let share = STANDARD_NO_PAD.encode(public.0);
        header.push_str(&format!("-> X25519 {share}\n{}\n", STANDARD_NO_PAD.encode(body)));
    }
    header.push_str("---");
    let mac = hmac::sign(&mac_key(&file_key)?, header.as_bytes());
    let mut sealed = format!("{header} {}\n", STANDARD_NO_PAD.encode(mac)).into_bytes();
    let mut nonce = [0_u8; 16];
    rand::fill(&mut nonce).map_err(|_| SealError::Random)?;
    sealed.extend(nonce);
    let payload_key = derive(&nonce, file_key.as_slice(), b"payload")?;
    let payload = aead(&payload_key)?;
    let chunks: Vec<&[u8]> =
        if plain.is_empty() { vec![plain] } else { plain.chunks(CHUNK).collect() };
    for (index, chunk) in chunks.iter().enumerate() {
        let mut chunk_bytes = chunk.to_vec();
        let nonce = chunk_nonce(index, index + 1 == chunks.len());
        payload
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut chunk_bytes)
            .map_err(|_| SealError::Format("it cannot be sealed"))?;
        sealed.extend(chunk_bytes);
    }
    Ok(armor::put_on(&sealed))
}

/// Opens an armored text with the first of the keys that fits.
///
/// # Errors
///
/// [`SealError::Format`], [`SealError::WrongKey`], [`SealError::Changed`], [`SealError::TooLarge`].
pub fn open(text: &str, identities: &[Identity]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let sealed = armor::take_off(text)?;
    let (header, payload) = Header::split(&sealed)?;
    let file_key = identities
        .iter()
        .flat_map(|identity| header.stanzas.iter().map(move |stanza| (identity, stanza)))
        .find_map(|(identity, stanza)| stanza.unwrap(identity))
        .ok_or(SealError::WrongKey)?;
    let mac = hmac::sign(&mac_key(&file_key)?, header.signed);
    constant_time::verify_slices_are_equal(mac.as_ref(), &header.mac)
        .map_err(|_| SealError::Changed)?;
    let (nonce, chunks) = payload.split_at_checked(16).ok_or(SealError::Changed)?;
    let payload_key = derive(nonce, file_key.as_slice(), b"payload")?;
    let key = aead(&payload_key)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(chunks.len()));
    let all: Vec<&[u8]> = chunks.chunks(CHUNK + TAG).collect();
    if all.is_empty() {
        return Err(SealError::Changed);
    }
    for (index, chunk) in all.iter().enumerate() {
        let is_last = index + 1 == all.len();
        // A last chunk is empty only when the whole text is.
        if is_last && index > 0 && chunk.len() <= TAG {
            return Err(SealError::Changed);
        }
        let mut bytes = Zeroizing::new(chunk.to_vec());
        let opened = key
            .open_in_place(chunk_nonce(index, is_last), Aad::empty(), &mut bytes)
            .map_err(|_| SealError::Changed)?;
        plain.extend_from_slice(opened);
    }
    Ok(plain)
}

/// One way to the file's key: who may open it.
struct Stanza {
    share: [u8; 32],
    body: Vec<u8>,
}

struct Header<'a> {
    stanzas: Vec<Stanza>,
    /// What the code of authentication covers.
    signed: &'a [u8],
    mac: Vec<u8>,
}

impl Stanza {
    fn unwrap(&self, identity: &Identity) -> Option<Zeroizing<[u8; 16]>> {
        let own = identity.recipient().ok()?;
        let key = wrap_key(identity, &self.share, &self.share, &own.0).ok()?;
        let mut body = Zeroizing::new(self.body.clone());
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let opened = aead(&key).ok()?.open_in_place(nonce, Aad::empty(), &mut body).ok()?;
        <[u8; 16]>::try_from(&*opened).ok().map(Zeroizing::new)
    }
}

impl<'a> Header<'a> {
    /// Splits a file into its header and the payload behind it.
    fn split(sealed: &'a [u8]) -> Result<(Self, &'a [u8]), SealError> {
        let mut at = 0;
        let mut line = || {
            let rest = &sealed[at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let end = end.ok_or(SealError::Format("its header does not end"))?;
            let text = std::str::from_utf8(&rest[..end])
                .map_err(|_| SealError::Format("its header is no text"))?;
            at += end + 1;
            Ok((text, at - end - 1, at))
        };
        if line()?.0 != MAGIC {
            return Err(SealError::Format("it begins otherwise"));
        }
        let mut stanzas = Vec::new();
        let mut count = 0;
        let (mut text, mut start, mut end) = line()?;
        while let Some(arguments) = text.strip_prefix("-> ") {
            count += 1;
            if count > STANZAS_MAX {
                return Err(SealError::Format("it has more than 32 recipients"));
            }
            let mut body = String::new();
            loop {
                let (part, _, _) = line()?;
                if part.len() > COLUMNS || body.len() > 16 * COLUMNS {
                    return Err(SealError::Format("a line of its header is too long"));
                }
                body.push_str(part);
                if part.len() < COLUMNS {
                    break;
                }
            }
            // Recipients of other kinds are passed over: another key may open it for us.
            let arguments: Vec<&str> = arguments.split(' ').collect();
            if arguments.first() == Some(&"X25519") {
                stanzas.push(stanza(&arguments, &body)?);
            }
            (text, start, end) = line()?;
        }
        let mac = text.strip_prefix("--- ").ok_or(SealError::Format("its header is broken"))?;
        let mac = STANDARD_NO_PAD.decode(mac).map_err(|_| SealError::Format("its code"))?;
        Ok((Self { stanzas, signed: &sealed[..start + 3], mac }, &sealed[end..]))
    }
}

fn stanza(arguments: &[&str], body: &str) -> Result<Stanza, SealError> {
    let bad = SealError::Format("a recipient is broken");
    let [_, share] = arguments else { return Err(bad) };
    let share = STANDARD_NO_PAD.decode(share).ok().and_then(|share| share.try_into().ok());
    let body = STANDARD_NO_PAD.decode(body).ok().filter(|body| body.len() == 16 + TAG);
    match (share, body) {
        (Some(share), Some(body)) => Ok(Stanza { share, body }),
        _ => Err(bad),
    }
}

/// The key that wraps the file's key, from one side's private and the other's public key.
fn wrap_key(
    private: &Identity,
    peer: &[u8; 32],
    share: &[u8; 32],
    recipient: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let salt = [share.as_slice(), recipient].concat();
    let peer = UnparsedPublicKey::new(&X25519, peer);
    agreement::agree(&private.private()?, peer, SealError::Key("it agrees with none"), |shared| {
        derive(&salt, shared, WRAP_INFO)
    })
}

fn mac_key(file_key: &[u8; 16]) -> Result<hmac::Key, SealError> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, derive(&[], file_key, b"header")?.as_slice()))
}

/// HKDF with SHA-256 (RFC 5869), 32 bytes.
fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let mut derived = Zeroizing::new([0; 32]);
    key.expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .map_err(|_| SealError::Format("no key can be derived"))?;
    Ok(derived)
}

fn aead(key: &[u8; 32]) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key);
    Ok(LessSafeKey::new(key.map_err(|_| SealError::Format("its key"))?))
}

/// The number of the chunk, and whether it is the last one (the STREAM construction).
fn chunk_nonce(index: usize, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&(index as u64).to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests;
