//! Which tokens are given, and which are not.

use sluis_signing::{Moment, TokenFlow};

use super::*;

fn held(secret: &Arc<GenericSecret>, now: Instant) -> Arc<Held> {
    let flow = TokenFlow {
        token_url: "https://as.test/token".into(),
        client_id_key: "id".into(),
        client_secret_key: "secret".into(),
        ..TokenFlow::default()
    };
    let answer = br#"{"access_token":"t","token_type":"Bearer","expires_in":100}"#;
    let moment = Moment { unix_nanos: 0, nonce: [0; 16] };
    let token = flow.compile().unwrap().answer(200, answer, None, &moment).unwrap();
    Arc::new(Held::new(token, Arc::clone(secret), now))
}

fn secret() -> Arc<GenericSecret> {
    Arc::new(GenericSecret::new([], "", None))
}

#[test]
fn a_token_is_given_while_it_is_good_and_its_secret_is_the_same() {
    let (tokens, now, own) = (Tokens::default(), Instant::now(), secret());
    let slot = tokens.slot(("c".into(), [0; 32]), now);
    assert!(slot.good(&own, now).is_none());
    slot.fill(held(&own, now));
    let at = |seconds| now + Duration::from_secs(seconds);
    let given = slot.good(&own, at(79)).unwrap();
    assert!(given.is_fresh(at(79)) && !given.is_fresh(at(80)));
    assert!(slot.good(&own, at(99)).is_some() && slot.good(&own, at(100)).is_none());
    assert!(slot.good(&secret(), now).is_none(), "had with other values");
    let other = tokens.slot(("c".into(), [1; 32]), now);
    assert!(other.good(&own, now).is_none(), "another user's");
}

#[test]
fn a_token_that_is_refused_is_fetched_anew_but_not_at_once() {
    let (tokens, now, own) = (Tokens::default(), Instant::now(), secret());
    let slot = tokens.slot(("c".into(), [0; 32]), now);
    let token = held(&own, now);
    slot.fill(Arc::clone(&token));
    token.refuse(now + Duration::from_secs(9));
    assert!(slot.good(&own, now).is_some());
    token.refuse(now + Duration::from_secs(10));
    assert!(slot.good(&own, now).is_none());
}

#[test]
fn a_failure_is_remembered_for_a_moment_and_for_its_secret() {
    let (tokens, now, own) = (Tokens::default(), Instant::now(), secret());
    let slot = tokens.slot(("c".into(), [0; 32]), now);
    slot.fail(&own, now);
    assert!(slot.has_failed(&own, now) && !slot.has_failed(&secret(), now));
    assert!(!slot.has_failed(&own, now + FAILURE_TIME));
}

#[test]
fn tokens_are_bounded() {
    let (tokens, now) = (Tokens::default(), Instant::now());
    for count in 0..TOKENS_MAX + 10 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&count.to_be_bytes());
        tokens.slot(("c".into(), key), now);
    }
    assert!(lock(&tokens.slots).len() <= TOKENS_MAX);
}

#[test]
fn only_what_is_a_nonce_is_remembered() {
    let tokens = Tokens::default();
    for bad in [&b""[..], b"a b", b"a\"b", b"a\r\nb", &[b'a'; 257], b"\xff"] {
        assert!(!tokens.remember("as.test", bad));
    }
    assert!(tokens.remember("as.test", b"n-1") && !tokens.remember("as.test", b"n-1"));
    assert_eq!(tokens.nonce("as.test").as_deref(), Some("n-1"));
    assert_eq!(tokens.nonce("other.test"), None);
}
