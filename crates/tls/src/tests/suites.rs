//! Which cipher suites are offered, and in which order.

use rustls::{
    CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
};

use crate::{is_aes_128, provider};

#[test]
fn suites_of_aes_128_are_offered_first_and_none_is_lost() {
    let suites = |provider: &CryptoProvider| -> Vec<_> {
        provider.cipher_suites.iter().map(|suite| suite.suite()).collect()
    };
    let (ours, usual) = (suites(&provider()), suites(&aws_lc_rs::default_provider()));
    assert_eq!(ours[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
    let first_other = ours.iter().position(|suite| !is_aes_128(*suite)).unwrap();
    assert!(!ours[first_other..].iter().any(|suite| is_aes_128(*suite)));
    assert!(usual.iter().all(|suite| ours.contains(suite)) && ours.len() == usual.len());
}
