//! What is in force, over time.

use std::time::UNIX_EPOCH;

use super::*;
use crate::Value;

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn schedule() -> Schedule {
    Schedule {
        refresh: 5 * MINUTE,
        grace: 10 * MINUTE,
        alert_before: 30 * MINUTE,
        max_stale: 60 * MINUTE,
    }
}

fn keeper() -> Keeper {
    Keeper::new("vault", schedule(), false)
}

fn given(value: &str, label: &str, end: Option<SystemTime>) -> Result<Fetched, FetchError> {
    let entries = [("key".to_owned(), Value::new(value))].into();
    Ok(Fetched { entries, label: Label::Told(label.to_owned()), not_after: end })
}

fn down() -> Result<Fetched, FetchError> {
    Err(FetchError::Unreachable { address: "127.0.0.1:1".to_owned(), error: "refused".to_owned() })
}

fn labels(keeper: &Keeper) -> (Option<&str>, Option<&str>) {
    let Account { current, previous, .. } = keeper.account();
    (
        current.as_ref().map(|one| one.label.as_str()),
        previous.as_ref().map(|one| one.label.as_str()),
    )
}

#[test]
fn a_changed_value_keeps_the_one_before_for_the_grace() {
    let mut keeper = keeper();
    keeper.on(given("a", "1", None), at(0), 0);
    keeper.on(given("b", "2", None), at(100), 0);
    assert_eq!(labels(&keeper), (Some("2"), Some("1")));
    assert_eq!(keeper.next_change(), Some(at(700)));
    assert!(!keeper.pass(at(699)));
    assert!(keeper.pass(at(700)));
    assert_eq!(labels(&keeper), (Some("2"), None));
    assert_eq!(keeper.account().status.rotations, 1);
}

#[test]
fn the_same_value_is_no_rotation_and_a_new_word_for_it_is_taken_over() {
    let mut keeper = keeper();
    keeper.on(given("a", "1", None), at(0), 0);
    let first = keeper.account().current.clone().unwrap();
    keeper.on(given("a", "1", None), at(10), 0);
    assert!(Arc::ptr_eq(&first, keeper.account().current.as_ref().unwrap()));
    keeper.on(given("a", "2", None), at(20), 0);
    assert_eq!(labels(&keeper), (Some("2"), None));
    let touched = Fetched { label: Label::Changed(at(30)), ..given("a", "", None).unwrap() };
    keeper.on(Ok(touched), at(30), 0);
    assert_eq!(labels(&keeper), (Some("2"), None));
}

#[test]
fn two_versions_never_have_one_name() {
    let mut keeper = keeper();
    keeper.on(given("a", "blue", None), at(0), 0);
    keeper.on(given("b", "blue", None), at(10), 0);
    assert_eq!(labels(&keeper), (Some("blue+1"), Some("blue")));
}

#[test]
fn a_source_that_fails_takes_nothing_away_until_it_is_too_stale() {
    let mut keeper = keeper();
    keeper.on(given("a", "1", None), at(0), 0);
    for seconds in [10, 1000, 3599] {
        keeper.on(down(), at(seconds), 0);
        assert_eq!(labels(&keeper), (Some("1"), None), "{seconds}");
    }
    assert_eq!(keeper.next_change(), Some(at(3600)));
    assert!(keeper.pass(at(3600)));
    assert_eq!(labels(&keeper), (None, None));
    let status = &keeper.account().status;
    assert_eq!(status.withdrawn, Some("stale"));
    let (reason, text, since) = status.failing.clone().unwrap();
    assert_eq!((reason, since), (Reason::Unreachable, at(10)));
    assert!(text.contains("127.0.0.1:1"), "{text}");
    keeper.on(given("a", "1", None), at(3700), 0);
    assert_eq!(labels(&keeper), (Some("1"), None), "it recovers");
    assert_eq!(
        (&keeper.account().status.failing, keeper.account().status.withdrawn),
        (&None, None)
    );
}

#[test]
fn what_has_expired_is_withdrawn_whether_or_not_the_source_answers() {
    let mut keeper = keeper();
    keeper.on(given("a", "1", Some(at(100))), at(0), 0);
    assert!(keeper.pass(at(100)));
    assert_eq!(labels(&keeper), (None, None));
    assert_eq!(keeper.account().status.withdrawn, Some("expired"));
    keeper.on(given("a", "1", Some(at(100))), at(110), 0);
    assert_eq!(labels(&keeper), (None, None), "an expired version is no version");
    assert_eq!(keeper.account().status.failing.as_ref().unwrap().0, Reason::Expired);
}

#[test]
fn the_version_before_is_dropped_at_its_own_end() {
    let mut keeper = keeper();
    keeper.on(given("a", "1", Some(at(200))), at(0), 0);
    keeper.on(given("b", "2", None), at(100), 0);
    assert!(keeper.pass(at(200)));
    assert_eq!(labels(&keeper), (Some("2"), None));
}

#[test]
fn an_end_that_is_near_is_told_once() {
    let mut keeper = keeper();
    keeper.on(given("a", "1", Some(at(3600))), at(0), 0);
    assert!(!keeper.account().status.expires_soon);
    assert_eq!(keeper.next_change(), Some(at(1800)));
    assert!(keeper.pass(at(1801)) && keeper.account().status.expires_soon);
    assert!(!keeper.pass(at(1802)));
}

#[test]
fn the_source_is_asked_again_before_the_end_and_more_seldom_while_it_fails() {
    let mut keeper = keeper();
    assert_eq!(keeper.on(given("a", "1", None), at(0), 0), 5 * MINUTE);
    assert_eq!(keeper.on(given("a", "1", Some(at(90))), at(0), 0), Duration::from_secs(30));
    let waits: Vec<u64> = (0..8).map(|_| keeper.on(down(), at(1), 0).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let drawn = keeper.on(down(), at(1), 29_999);
    assert_eq!(drawn, Duration::from_millis(30_001), "up to a half is taken off");
    assert_eq!(keeper.on(given("a", "1", None), at(2), 0), 5 * MINUTE);
}

#[test]
fn without_grace_there_is_no_version_before() {
    let mut keeper = Keeper::new("env", Schedule { grace: Duration::ZERO, ..schedule() }, false);
    keeper.on(given("a", "1", None), at(0), 0);
    keeper.on(given("b", "2", None), at(1), 0);
    assert_eq!(labels(&keeper), (Some("2"), None));
}
